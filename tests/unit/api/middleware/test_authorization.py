"""Authorization and request context middleware, around the application without a server."""

import logging
from pathlib import Path
from typing import Any

import pytest

from octane_analytics.api.auth.callers import Caller
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.errors import Unavailable
from tests.support.asgi_calls import (
    judged,
    result,
)
from tests.support.token_app import TokenApp

ROW = result((1,), n="UInt64")
NOTHING = result(name="String")
REPORT: dict[str, Any] = {"json": {"template": "overview_stats"}}
QUERY: dict[str, Any] = {"json": {"sql": "SELECT 1"}}


@pytest.fixture
def app(tmp_path: Path) -> TokenApp:
    return TokenApp(tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "options", "scope"),
    [
        ("POST", "/report", REPORT, "report"),
        ("GET", "/reports", {}, "report"),
        ("POST", "/query", QUERY, "query"),
        ("GET", "/schema", {}, "query"),
        ("GET", "/metrics", {}, "metrics"),
        ("GET", "/status/data", {}, "metrics"),
    ],
)
def test_each_route_needs_its_scope(
    app: TokenApp, method: str, path: str, options: dict[str, Any], scope: str
) -> None:
    for name in ("report", "query", "metrics"):
        steps: dict[str, list[Any]] = {
            "/query": judged(ROW).steps,
            "/schema": [NOTHING, NOTHING],
        }
        app.script.steps = steps.get(path, [ROW])
        answer = app.ask(name, method, path, **options)
        assert answer.status_code == (200 if name == scope else 403), answer.text
    missing = app.ask(None, method, path, **options)
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"].startswith("Bearer realm=")
    unknown = app.ask("nonsense", method, path, **options)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (401, "token_unknown")
    assert app.ask("old", method, path, **options).status_code == 401


@pytest.mark.parametrize(
    "path", ["/nowhere", "/query/", "/%2Fquery", "/Query", "/healthz/", "/caller/"]
)
def test_unknown_path_without_token_is_unauthorized(app: TokenApp, path: str) -> None:
    assert app.ask(None, "POST", path, **QUERY).status_code == 401
    assert app.ask("report", "POST", path, **QUERY).status_code == 404


def test_path_in_another_spelling_needs_the_same_scope(app: TokenApp) -> None:
    assert app.ask("report", "POST", "/%71uery", **QUERY).status_code == 403
    assert app.ask(None, "POST", "/%71uery", **QUERY).status_code == 401


def test_unknown_method_needs_a_token(app: TokenApp) -> None:
    assert app.ask(None, "GET", "/query").status_code == 401
    assert app.ask("query", "GET", "/query").status_code == 405


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_open(app: TokenApp, path: str) -> None:
    app.script.steps = [Unavailable("x"), Unavailable("x")]
    assert app.ask(None, "GET", path).status_code in (200, 503)
    app.script.steps = [Unavailable("x"), Unavailable("x")]
    assert app.ask("nonsense", "GET", path).status_code in (200, 503)


def test_bound_token_reads_only_its_rows(app: TokenApp) -> None:
    app.script.steps = [ROW]
    answer = app.ask("bound", "POST", "/report", **REPORT)
    assert answer.json()["params"]["app_id"] == "openstream"
    assert app.script.calls[0][1]["app_id"] == "openstream"
    other = {"template": "overview_stats", "params": {"app_id": "other"}}
    refused = app.ask("bound", "POST", "/report", json=other)
    assert (refused.status_code, refused.json()["error"]["parameter"]) == (403, "app_id")
    assert app.ask("bound", "POST", "/query", **QUERY).status_code == 403
    assert len(app.script.calls) == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("?app_id=openstream", 200),
        ("?app_id=other", 403),
        ("?app_id=", 403),
        ("?app_id=openstream&app_id=other", None),
        ("?app_id=other&app_id=openstream", None),
        ("?app%5Fid=other", 403),
    ],
)
def test_bound_token_reads_only_its_rows_by_url(
    app: TokenApp, query: str, status: int | None
) -> None:
    app.script.steps = [ROW]
    answer = app.ask("bound", "GET", f"/report/overview_stats{query}")
    assert status is None or answer.status_code == status
    assert all(values["app_id"] == "openstream" for _, values, _ in app.script.calls)
    if answer.status_code == 200:
        assert answer.headers["cache-control"].startswith("private")


def test_cached_answer_is_limited_to_its_token(app: TokenApp) -> None:
    app.script.steps = [ROW, ROW]
    for name in ("report", "bound"):
        assert app.ask(name, "GET", "/report/overview_stats?app_id=openstream").status_code == 200
    assert len(app.script.calls) == 2


def test_token_with_filters_reads_only_its_rows(app: TokenApp) -> None:
    app.script.steps = [ROW] * 4
    own = {"template": "overview_stats", "filters": [{"property": "tenant", "value": "other"}]}
    posted = app.ask("tenant", "POST", "/report", json=own)
    assert posted.json()["filters"] == [
        {"property": "tenant", "op": "eq", "value": "acme"},
        {"property": "tenant", "op": "eq", "value": "other"},
    ]
    app.ask("tenant", "GET", "/report/overview_stats?filter=tenant:ne:acme")
    app.ask("tenant", "GET", "/report/overview_stats")
    for sql, values, _ in app.script.calls:
        assert "filter_0_texts" in sql
        assert values["filter_0_name"] == "tenant"
        assert values["filter_0_texts"] == ["acme"]
    assert app.ask("tenant", "POST", "/query", **QUERY).status_code == 403
    # Ten filters are those of the request and of the token together.
    many = {"template": "overview_stats", "filters": [{"property": "a", "op": "exists"}] * 10}
    assert app.ask("tenant", "POST", "/report", json=many).status_code == 422
    assert len(app.script.calls) == 3


def test_cached_answer_depends_on_filters(app: TokenApp) -> None:
    app.script.steps = [ROW] * 4
    for name in ("tenant", "rival", "report"):
        assert app.ask(name, "GET", "/report/overview_stats").headers["x-cache"] == "miss"
    path = "/report/overview_stats?filter=tenant:eq:acme"
    assert app.ask("report", "GET", path).headers["x-cache"] == "miss"
    assert app.ask("report", "GET", path).headers["x-cache"] == "hit"


@pytest.mark.parametrize(
    ("token", "is_shown"), [("report", True), ("tenant", False), ("bound", False)]
)
def test_reads_of_others_are_not_shown(app: TokenApp, token: str, is_shown: bool) -> None:
    app.script.steps = [ROW, ROW, ROW]
    csv = app.ask(token, "GET", "/report/overview_stats?format=csv").headers
    assert ("x-rows-read" in csv, "x-bytes-read" in csv) == (is_shown, is_shown)
    alone = app.ask(token, "POST", "/report", **REPORT).json()
    batch = {"json": {"reports": [REPORT["json"]]}}
    (shared,) = app.ask(token, "POST", "/reports", **batch).json()["answers"]
    for answer in (alone, shared["answer"]):
        assert ("rows_read" in answer, "bytes_read" in answer) == (is_shown, is_shown)
        assert "elapsed_ms" in answer


@pytest.mark.parametrize("compare", ["previous_period", {"from": 0, "to": "now"}])
def test_fixed_range_excludes_comparison(app: TokenApp, compare: object) -> None:
    options: dict[str, Any] = {"json": {"template": "top_content", "compare": compare}}
    answer = app.ask("past", "POST", "/report", **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "parameter_fixed")
    assert app.script.calls == []


def test_rate_is_shown_in_headers(app: TokenApp) -> None:
    app.script.steps = [ROW] * 3
    found = []
    for _ in range(3):
        headers = app.ask("slow", "POST", "/report", **REPORT).headers
        found.append([headers[f"ratelimit-{name}"] for name in ("limit", "remaining")])
        assert 0 < int(headers["ratelimit-reset"]) <= 120
    assert found == [["2", "1"], ["2", "0"], ["2", "0"]]
    assert "ratelimit-limit" not in app.ask("report", "GET", "/reports").headers


def batch(*reports: object) -> dict[str, Any]:
    return {"json": {"reports": list(reports)}}


def test_batch_is_bound_to_its_token(app: TokenApp) -> None:
    app.script.steps = [ROW] * 3
    own, other = (
        {"template": "overview_stats", "params": {"app_id": name}} for name in ("openstream", "x")
    )
    answers = app.ask("bound", "POST", "/reports", **batch(own, other, {**own, "filters": []}))
    found = answers.json()["answers"]
    assert [each["status"] for each in found] == [200, 403, 200]
    assert found[2]["cache"] == "hit"
    tenant = app.ask("tenant", "POST", "/reports", **batch({"template": "overview_stats"}))
    assert tenant.json()["answers"][0]["cache"] == "miss"
    assert app.script.calls[-1][1]["filter_0_texts"] == ["acme"]
    assert app.ask("query", "POST", "/reports", **batch(own)).status_code == 403
    assert app.ask(None, "POST", "/reports", **batch(own)).status_code == 401


def test_each_report_of_a_batch_is_charged(app: TokenApp) -> None:
    app.script.steps = [ROW] * 5
    reports = [{"template": "overview_stats", "params": {"from": f"-{n}h"}} for n in range(1, 5)]
    answers = app.ask("slow", "POST", "/reports", **batch(*reports)).json()["answers"]
    assert [each["status"] for each in answers] == [200, 200, 429, 429]
    assert answers[2]["error"]["code"] == "rate_limited"
    assert app.ask("slow", "POST", "/reports", **batch(*reports)).status_code == 429


@pytest.mark.parametrize("path", ["/docs", "/docs/docs.js"])
def test_docs_page_is_open_with_its_own_policy(app: TokenApp, path: str) -> None:
    answer = app.ask(None, "GET", path)
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert app.ask(None, "GET", "/openapi.json").status_code == 401
    assert app.ask("report", "GET", "/openapi.json").status_code == 200


@pytest.mark.parametrize(
    "path", ["/dashboard", "/dashboard/main.js", "/dashboard/vendor/uplot.js", "/status"]
)
def test_dashboard_is_open_and_revalidated_by_etag(app: TokenApp, path: str) -> None:
    answer = app.ask(None, "GET", path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "set-cookie" not in answer.headers
    same = app.ask(None, "GET", path, headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    other = app.ask(None, "GET", path, headers={"If-None-Match": '"other"'})
    assert other.content == answer.content


def test_root_leads_to_the_dashboard_relatively(app: TokenApp) -> None:
    answer = app.ask(None, "GET", "/")
    assert (answer.status_code, answer.headers["location"]) == (307, "dashboard")


@pytest.mark.parametrize("path", ["pages.py", "%2e%2e/pages.py", "vendor", "pages/", ""])
def test_dashboard_serves_listed_files_only(app: TokenApp, path: str) -> None:
    assert app.ask(None, "GET", f"/dashboard/{path}").status_code == 404


def test_caller_is_described_to_any_scope(app: TokenApp) -> None:
    assert app.ask(None, "GET", "/caller").status_code == 401
    assert app.ask("metrics", "GET", "/caller").json()["scopes"] == ["metrics"]
    assert app.ask("bound", "GET", "/caller").json() == {
        "name": "bound",
        "scopes": ["report"],
        "parameters": {"app_id": "openstream"},
    }


def test_duplicate_key_does_not_bypass_fixed_parameters(app: TokenApp) -> None:
    app.script.steps = [ROW]
    body = b'{"template":"overview_stats","params":{"app_id":"other"},"params":{"app_id":"openstream"}}'
    headers = {"Content-Type": "application/json"}
    app.ask("bound", "POST", "/report", content=body, headers=headers)
    assert [values["app_id"] for _, values, _ in app.script.calls] == ["openstream"]


def test_exceeded_rate_is_429_with_retry_after(app: TokenApp) -> None:
    for _ in range(2):
        assert app.ask("slow", "GET", "/reports").status_code == 200
    answer = app.ask("slow", "GET", "/reports")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert app.ask("report", "GET", "/reports").status_code == 200


def test_refused_requests_count_too(app: TokenApp) -> None:
    for status in (403, 403, 429):
        assert app.ask("slow", "POST", "/query", **QUERY).status_code == status


def test_exceeded_concurrency_is_429(app: TokenApp) -> None:
    seen: list[int] = []

    def concurrent_request() -> Any:
        seen.append(app.ask("single", "GET", "/reports").status_code)
        return ROW

    app.script.steps = [concurrent_request]
    assert app.ask("single", "POST", "/report", **REPORT).status_code == 200
    assert seen == [429]
    assert app.ask("single", "GET", "/reports").status_code == 200


def test_failed_request_releases_its_slot(app: TokenApp) -> None:
    app.script.steps = [ZeroDivisionError()]
    assert app.ask("single", "POST", "/report", **REPORT).status_code == 500
    assert app.ask("single", "GET", "/reports").status_code == 200


def test_revoked_token_is_refused_after_reload(
    app: TokenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.ask("report", "GET", "/reports").status_code == 200
    (tmp_path / "tokens.toml").write_text("")
    assert app.policy.tokens is not None
    app.policy.tokens.current(float("inf"))
    assert app.ask("report", "GET", "/reports").status_code == 401


def test_changed_token_is_no_longer_valid(
    app: TokenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app.policy.tokens is not None
    policy, tokens = app.policy, app.policy.tokens
    callers = {
        token.name: Caller(token.name, token.scopes, token=token)
        for token in tokens.current(0).listed
    }
    assert policy.is_valid(Caller("anonymous", frozenset()))
    assert policy.is_valid(callers["tenant"])
    assert not policy.is_valid(callers["old"]), "it has expired"
    file = tmp_path / "tokens.toml"
    file.write_text(file.read_text().replace('value = "acme"', 'value = "none"'))
    monkeypatch.setattr(tokens, "_checked_at", -10.0)
    assert not policy.is_valid(callers["tenant"]), "its filters are others"
    assert policy.is_valid(callers["report"])


def test_access_log_has_the_caller_without_token(
    app: TokenApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app.script.steps = [ROW]
    app.ask("report", "POST", "/report?key=hush", headers={"X-Request-Id": "r-1"}, **REPORT)
    app.ask("nonsense-token", "GET", "/nowhere%0d%0aforged%00")
    records = [
        record.__dict__["octane_fields"]
        for record in caplog.records
        if record.getMessage() == "request"
    ]
    assert [each["caller"] for each in records] == ["report", ""]
    assert [each["route"] for each in records] == ["/report", "other"]
    assert (records[0]["status"], records[0]["request_id"]) == (200, "r-1")
    assert records[0]["bytes"] > 0
    assert records[1]["status"] == 401
    everything = str(records)
    for secret in ("hush", "nonsense-token", "Bearer", digest_of("report").hex()):
        assert secret not in everything
    assert records[1]["path"].isprintable()


@pytest.mark.parametrize(
    ("given", "is_passed_on"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", False),
        ("x", False),
    ],
)
def test_valid_traceparent_is_passed_on(app: TokenApp, given: str, is_passed_on: bool) -> None:
    app.script.steps = [ROW]
    app.ask("report", "POST", "/report", headers={"traceparent": given}, **REPORT)
    _, _, settings = app.script.calls[0]
    assert ("opentelemetry_traceparent" in settings) == is_passed_on


def test_every_answer_has_its_security_headers(app: TokenApp) -> None:
    for token, path in ((None, "/healthz"), (None, "/query"), ("report", "/reports")):
        headers = app.ask(token, "GET", path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


def test_pages_of_other_origins_are_refused(app: TokenApp) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    preflight = app.ask(None, "OPTIONS", "/query", headers=headers)
    assert preflight.status_code == 401
    answer = app.ask("report", "GET", "/reports", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_listed_origins_read_refusals(tmp_path: Path) -> None:
    app = TokenApp(tmp_path, origins=("https://dash.example.com",))
    headers = {
        "Origin": "https://dash.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, last-event-id, traceparent",
    }
    preflight = app.ask(None, "OPTIONS", "/report", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://dash.example.com"
    assert "access-control-allow-credentials" not in preflight.headers
    shown = app.ask("report", "GET", "/reports", headers=headers).headers
    assert set(shown["access-control-expose-headers"].split(", ")) >= {
        "X-Truncated",
        "X-Row-Limit",
        "X-Cache",
        "X-Request-Id",
        "ETag",
        "Age",
    }
    refused = app.ask(None, "GET", "/reports", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://dash.example.com"
    for origin in ("https://evil.example", "null", "https://dash.example.com.evil.example"):
        other = app.ask(None, "OPTIONS", "/report", headers=headers | {"Origin": origin})
        assert other.status_code == 400
        error = other.json()["error"]
        assert error["code"] == "cross_origin_refused"
        assert error["request_id"] == other.headers["x-request-id"]
        assert "access-control-allow-origin" not in other.headers


def test_content_length_with_transfer_encoding_is_400(app: TokenApp) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "5"}
    answer = app.ask("report", "POST", "/report", headers=headers, content=b"hello")
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
