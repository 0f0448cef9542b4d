"""Responses of all routes, with scripted connections."""

import gzip
import json
import logging
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from octane_analytics.api.raw_sql import quoted_names
from octane_analytics.api.raw_sql.validator import EXPLAIN_AST, EXPLAIN_TREE
from octane_analytics.errors import NeedsOperator, StatementRejected, Unavailable
from tests.support.asgi_calls import Script, app_over, call, judged, query, report, result

ROW = result((1, "x"), n="UInt64", s="String")


def rejected(code: int, message: str = "no") -> StatementRejected:
    return StatementRejected(code, "NAME", message)


def test_report_returns_rows_and_its_parameters() -> None:
    script = Script(ROW)
    answer = report(app_over(script), "top_content", limit=5, app_id="openstream")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.pop("elapsed_ms") >= 0
    assert (body.pop("rows_read"), body.pop("bytes_read")) == (5, 500)
    assert body == {
        "template": "top_content",
        "params": {
            "app_id": "openstream",
            "from": "2026-02-01T12:00:01Z",
            "to": "2026-02-02T12:00:01Z",
            "exact": False,
            "limit": 5,
            "offset": 0,
        },
        "columns": [{"name": "n", "type": "UInt64"}, {"name": "s", "type": "String"}],
        "rows": [{"n": 1, "s": "x"}],
        "row_count": 1,
        "truncated": False,
        "next_offset": None,
        "next_cursor": None,
    }
    _, values, settings = script.calls[0]
    assert (values["database"], values["table"], values["limit"]) == ("db", "events", 6)
    assert settings["readonly"] == 1


def test_report_without_params_runs() -> None:
    app = app_over(Script(ROW))
    assert call(app, "POST", "/report", json={"template": "overview_stats"}).status_code == 200


def test_query_is_validated_before_it_runs() -> None:
    script = judged(ROW)
    answer = query(app_over(script), "SELECT 1")
    assert answer.status_code == 200
    assert set(answer.json()) == {
        *("columns", "rows", "row_count", "truncated"),
        *("rows_read", "bytes_read", "elapsed_ms"),
    }
    assert answer.headers["server-timing"].startswith("query;dur=")
    asked, probe, ast, tree, run = script.calls
    assert "system.settings" in asked[0]
    assert (probe[0], probe[1]) == (quoted_names.PROBE, {"statement": "SELECT 1"})
    assert (ast[0], tree[0]) == (f"{EXPLAIN_AST}SELECT 1", f"{EXPLAIN_TREE}SELECT 1")
    assert run[0] == "SELECT 1"
    # Settings that the server does not know, or pins, are not sent.
    assert [call[2] for call in (probe, ast, tree)] == [{"readonly": 1}] * 3
    assert run[2] == {"readonly": 1, "limit": 4}


def test_refused_query_does_not_run() -> None:
    script = judged()
    script.steps[2] = result(("SYSTEM query",), explain="String")
    answer = query(app_over(script), "SYSTEM STOP MERGES")
    assert answer.status_code == 403
    assert len(script.calls) == 3


def test_query_above_row_limit_is_truncated() -> None:
    body = query(app_over(judged(result((1,), (2,), (3,), (4,), n="UInt8"))), "SELECT 1").json()
    assert (body["row_count"], body["truncated"]) == (3, True)


def test_long_column_names_count_as_result_bytes() -> None:
    long = {"n" * 400_000: "UInt8"}
    body = query(app_over(judged(result((1,), (2,), (3,), **long))), "SELECT 1").json()
    assert (body["row_count"], body["truncated"]) == (2, True)
    too_long = {"n" * 1_100_000: "UInt8"}
    answer = query(app_over(judged(result((1,), **too_long))), "SELECT 1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "result_too_large")


def test_raw_query_is_logged_with_its_cost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    query(app_over(judged(ROW)), "SELECT 1")
    (record,) = [record for record in caplog.records if record.getMessage() == "raw query"]
    logged = dict(vars(record)["octane_fields"])
    assert logged.pop("ms") >= 0
    assert logged.pop("request_id")
    assert logged == {
        "caller": "anonymous",
        "fingerprint": "123",
        "outcome": "ok",
        "rows_read": 7,
        "result_rows": 1,
        "truncated": False,
    }


def test_unknown_template_is_404_with_known_names() -> None:
    answer = report(app_over(Script()), "overview")
    assert answer.status_code == 404
    assert "overview_stats" in answer.json()["error"]["templates"]


@pytest.mark.parametrize(
    ("params", "named"),
    [({"limit": 0}, "limit"), ({"colour": "red"}, "colour"), ({"from": "now"}, "from")],
)
def test_bad_parameter_is_named(params: dict[str, object], named: str) -> None:
    answer = report(app_over(Script()), "top_content", **params)
    assert answer.status_code == 422
    assert answer.json()["error"]["parameter"] == named


@pytest.mark.parametrize(
    ("path", "content", "kind", "status", "code"),
    [
        ("/report", b"{", "application/json", 400, "malformed_json"),
        ("/report", b'{"template":"\xff"}', "application/json", 400, "malformed_json"),
        ("/report", b"", "application/json", 400, "malformed_json"),
        ("/report", b"[" * 50_000, "application/json", 422, "invalid_body"),
        ("/report", b"[]", "application/json", 422, "invalid_body"),
        ("/report", b"{}", "application/json", 422, "invalid_body"),
        ("/report", b'{"template":1}', "application/json", 422, "invalid_body"),
        ("/report", b'{"template":"x","prams":{}}', "application/json", 422, "invalid_body"),
        ("/report", b'{"template":"x","params":[]}', "application/json", 422, "invalid_body"),
        ("/query", b'{"sql":" "}', "application/json; charset=utf-8", 422, "invalid_body"),
        (
            "/query",
            b"sql=SELECT",
            "application/x-www-form-urlencoded",
            415,
            "unsupported_media_type",
        ),
        ("/report", b" " * (65 << 10), "application/json", 413, "body_too_large"),
        ("/query", b" " * (257 << 10), "application/json", 413, "body_too_large"),
    ],
)
def test_invalid_body_is_refused(
    path: str, content: bytes, kind: str, status: int, code: str
) -> None:
    answer = call(app_over(Script()), "POST", path, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_body_without_content_length_is_bounded() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 4096

    headers = {"Content-Type": "application/json"}
    answer = call(app_over(Script()), "POST", "/report", content=endless(), headers=headers)
    assert answer.status_code == 413


def test_missing_content_type_is_refused() -> None:
    assert call(app_over(Script()), "POST", "/report", content=b"{}").status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/report", 405),
        ("PUT", "/query", 405),
        ("POST", "/healthz", 405),
        ("POST", "/", 405),
        ("GET", "/dashboard/", 404),
        ("POST", "/report/", 404),
        ("GET", "/reports/x", 404),
    ],
)
def test_unknown_route_is_answered_in_json(method: str, path: str, status: int) -> None:
    answer = call(app_over(Script()), method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed")
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (rejected(62), 400, "sql_error"),
        (rejected(60), 400, "sql_error"),
        (rejected(159), 504, "timeout"),
        (rejected(160), 504, "timeout"),
        (rejected(241, "Query memory limit exceeded"), 422, "memory_limit"),
        (rejected(241, "(total) memory limit exceeded"), 503, "overloaded"),
        (rejected(241, "User memory limit exceeded: would use 2 GiB"), 503, "overloaded"),
        (rejected(173, "Cannot allocate memory"), 503, "overloaded"),
        (rejected(439, "Cannot schedule a task"), 503, "overloaded"),
        (rejected(396), 422, "result_too_large"),
        (rejected(164), 403, "forbidden_statement"),
        (rejected(497), 403, "forbidden_statement"),
        (rejected(201), 503, "overloaded"),
        (rejected(394), 503, "overloaded"),
    ],
)
def test_query_error_has_its_status(error: StatementRejected, status: int, code: str) -> None:
    answer = query(app_over(judged(error)), "SELECT 1")
    error_body = answer.json()["error"]
    assert (answer.status_code, error_body["code"]) == (status, code)
    if status < 500:
        assert (error_body["clickhouse_code"], error_body["clickhouse_error"]) == (
            error.code,
            "NAME",
        )
        assert error_body["message"] == str(error)
    if code == "overloaded":
        assert "lacks memory" in error_body["message"]
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (rejected(47, "secret SQL"), 500, "internal"),
        (rejected(60, "secret table"), 503, "not_ready"),
        (rejected(497, "secret user"), 503, "unavailable"),
        (rejected(159), 504, "timeout"),
        (rejected(241, "Query memory limit exceeded: '(total)'"), 422, "memory_limit"),
    ],
)
def test_report_error_has_status_and_hides_sql(
    error: StatementRejected, status: int, code: str
) -> None:
    answer = report(app_over(Script(error)), "overview_stats")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("cannot talk to ClickHouse at 10.0.0.1:9000"), "unavailable"),
        (NeedsOperator("check CLICKHOUSE_PASSWORD at 10.0.0.1:9000"), "misconfigured"),
    ],
)
def test_unavailable_clickhouse_is_503_without_addresses(error: Exception, code: str) -> None:
    answer = report(app_over(Script(error, error)), "overview_stats")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
    assert "10.0.0.1" not in answer.text
    assert answer.headers["retry-after"]


def test_unexpected_error_returns_only_the_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = report(app_over(Script(ZeroDivisionError("inside"))), "overview_stats")
    assert answer.status_code == 500
    error_body = answer.json()["error"]
    assert error_body["request_id"] == answer.headers["x-request-id"]
    assert "inside" not in answer.text
    assert any(record.exc_info for record in caplog.records)


def test_every_answer_has_its_headers() -> None:
    app = app_over(Script())
    for path in ("/healthz", "/nowhere", "/metrics"):
        headers = call(app, "GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("given", "is_kept"), [("abc-1.2:3", True), ("a b", False), ("x" * 65, False), ("", False)]
)
def test_valid_request_id_of_caller_is_kept(given: str, is_kept: bool) -> None:
    answer = call(app_over(Script()), "GET", "/healthz", headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) == is_kept


def test_access_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = app_over(Script(ROW))
    report(app, "overview_stats")
    call(app, "GET", "/healthz")
    (record,) = [record for record in caplog.records if record.getMessage() == "request"]
    logged = record.__dict__["octane_fields"]
    assert (logged["method"], logged["path"], logged["status"]) == ("POST", "/report", 200)


def test_requests_are_counted_by_route() -> None:
    registry = CollectorRegistry()
    app = app_over(Script(), registry=registry)
    call(app, "GET", "/healthz")
    call(app, "GET", "/made-up-1")
    call(app, "GET", "/made-up-2")
    name = "analytics_api_requests_total"
    assert registry.get_sample_value(name, {"route": "/healthz", "status": "200"}) == 1
    assert registry.get_sample_value(name, {"route": "other", "status": "404"}) == 2


def test_readiness_reads_table_on_its_own_connection() -> None:
    pool, probe = Script(), Script(result(n="UInt8"))
    answer = call(app_over(pool, probe=probe), "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    assert probe.calls[0][1] == {"database": "db", "table": "events"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (rejected(60), "not_ready"),
        (rejected(497), "unavailable"),
        (Unavailable("x"), "unavailable"),
    ],
)
def test_readiness_without_table_is_503(error: Exception, code: str) -> None:
    answer = call(app_over(Script(), probe=Script(error, error)), "GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)


def test_metrics_are_prometheus_text() -> None:
    answer = call(app_over(Script()), "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "# metrics\n"


def test_report_list_has_every_template() -> None:
    listed = call(app_over(Script()), "GET", "/reports").json()["templates"]
    assert [each["name"] for each in listed] == sorted(each["name"] for each in listed)
    (top,) = [each for each in listed if each["name"] == "top_content"]
    assert top["parameters"]["properties"]["limit"]["default"] == 20
    assert "watch_time" in top["columns"]
    assert json.dumps(listed)


@pytest.mark.parametrize(("path", "body"), [("/query", {"sql": "SELECT 1"}), ("/report", {})])
def test_encoded_body_is_415(path: str, body: dict[str, object]) -> None:
    answer = call(
        app_over(Script()),
        "POST",
        path,
        content=gzip.compress(json.dumps(body).encode()),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_unavailable_settings_are_not_an_internal_error() -> None:
    full = rejected(241, "(total) memory limit exceeded")
    answer = call(app_over(Script(full)), "POST", "/query", json={"sql": "SELECT 1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
