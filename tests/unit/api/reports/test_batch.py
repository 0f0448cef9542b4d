"""POST /reports: several reports in one request, each answered or failed by itself."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from octane_analytics.api.request_bodies import MAX_BATCH
from octane_analytics.clickhouse.results import Result
from octane_analytics.errors import StatementRejected, Unavailable
from tests.support.asgi_calls import LIMITS, Script, app_over, call, report, result
from tests.support.token_app import TokenApp

ROW = result((1,), n="UInt64")
WIDE = replace(LIMITS, result_rows=10_000)
MANY = result(*((f"{n:01000d}",) for n in range(5000)), s="String")
"""About 5 MB, which a request of its own streams."""


def batch(*items: object) -> dict[str, Any]:
    return {"json": {"reports": list(items)}}


def ask(script: Script, *items: object, **options: Any) -> list[dict[str, Any]]:
    response = call(app_over(script, **options), "POST", "/reports", **batch(*items))
    assert response.status_code == 200
    answers: list[dict[str, Any]] = response.json()["answers"]
    return answers


def statuses(response: httpx.Response) -> list[int]:
    return [each["status"] for each in response.json()["answers"]]


def test_answers_have_the_order_of_the_request() -> None:
    answers = ask(
        Script(ROW, ROW, ROW),
        {"template": "top_content", "params": {"limit": 3}},
        {"template": "overview_stats"},
        {"template": "top_content", "params": {"limit": 2}},
    )
    assert [each["answer"]["template"] for each in answers] == [
        "top_content",
        "overview_stats",
        "top_content",
    ]
    assert [each["answer"]["params"].get("limit") for each in answers] == [3, None, 2]


def test_answer_equals_that_of_a_single_request() -> None:
    (answer,) = ask(Script(ROW), {"template": "top_content", "params": {"limit": 3}})
    alone = report(app_over(Script(ROW)), "top_content", limit=3).json()
    for each in (answer["answer"], alone):
        del each["elapsed_ms"]
    assert answer["answer"] == alone


def test_failed_reports_leave_others_answered() -> None:
    answers = ask(
        Script(ROW),
        {"template": "nothing"},
        {"template": "top_content", "params": {"limit": "many"}},
        {"template": "top_content"},
    )
    failed = [(each["status"], each.get("error", {}).get("code")) for each in answers]
    assert failed == [(404, "unknown_template"), (422, "bad_parameter"), (200, None)]


def test_limit_of_clickhouse_fails_its_report() -> None:
    (answer,) = ask(
        Script(StatementRejected(159, "TIMEOUT_EXCEEDED", "Timeout exceeded")),
        {"template": "overview_stats"},
    )
    assert (answer["status"], answer["error"]["code"]) == (504, "timeout")


def test_unavailable_clickhouse_fails_each_report() -> None:
    answers = ask(
        Script(*[Unavailable("gone")] * 4),  # each is tried again once
        {"template": "top_content"},
        {"template": "overview_stats"},
    )
    assert [each["status"] for each in answers] == [503, 503]


def test_answer_too_large_for_a_batch_is_413() -> None:
    (answer,) = ask(Script(MANY), {"template": "events_over_time"}, limits=WIDE)
    assert (answer["status"], answer["error"]["code"]) == (413, "answer_too_large")


def test_same_reports_share_one_query_and_the_cache() -> None:
    script, registry = Script(ROW), CollectorRegistry()
    app = app_over(script, cache_bytes=1 << 20, registry=registry)
    params = {"from": "2026-02-01T00:00:00Z", "to": "2026-02-02T00:00:00Z"}
    same = {"template": "overview_stats", "params": params}
    assert statuses(call(app, "POST", "/reports", **batch(same, same))) == [200, 200]
    assert statuses(call(app, "POST", "/reports", **batch(same))) == [200]
    assert report(app, "overview_stats", **params).headers["x-cache"] == "hit"
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"reports": []}, 422),
        ({"reports": [{"template": "overview_stats"}] * (MAX_BATCH + 1)}, 422),
        ({"reports": [{"template": "overview_stats", "format": "csv"}]}, 422),
        ({"reports": [{"params": {}}]}, 422),
        ({"reports": ["overview_stats"]}, 422),
        ({"reports": {"0": {"template": "overview_stats"}}}, 422),
        ({"reports": [{"template": "a" * (64 << 10)}]}, 413),
    ],
)
def test_invalid_batch_is_refused_whole(body: object, status: int) -> None:
    assert call(app_over(Script()), "POST", "/reports", json=body).status_code == status


def test_each_report_counts_against_the_rate(tmp_path: Path) -> None:
    app = TokenApp(tmp_path)
    app.script.steps = [ROW, ROW, ROW]
    same = {"template": "overview_stats"}
    answer = app.ask("slow", "POST", "/reports", **batch(same, same, same, same))
    assert statuses(answer) == [200, 200, 429, 429]
    assert app.ask("slow", "GET", "/reports").status_code == 429


def test_batch_is_bound_to_what_its_token_fixes(tmp_path: Path) -> None:
    app = TokenApp(tmp_path)
    app.script.steps = [ROW, ROW]
    others = {"template": "overview_stats", "params": {"app_id": "other"}}
    own = {"template": "overview_stats", "params": {"app_id": "openstream"}}
    answer = app.ask("bound", "POST", "/reports", **batch(others, own, {"template": "top_content"}))
    assert statuses(answer) == [403, 200, 200]
    assert [values["app_id"] for _, values, _ in app.script.calls] == ["openstream"] * 2


def test_cached_answer_is_limited_to_its_token(tmp_path: Path) -> None:
    app = TokenApp(tmp_path)
    app.script.steps = [ROW, ROW]
    own = {"template": "overview_stats", "params": {"app_id": "openstream"}}
    for name in ("report", "bound"):
        assert statuses(app.ask(name, "POST", "/reports", **batch(own))) == [200]
    assert len(app.script.calls) == 2


def test_token_without_report_scope_gets_no_batch(tmp_path: Path) -> None:
    app = TokenApp(tmp_path)
    for name, status in (("query", 403), ("metrics", 403), ("old", 401), (None, 401)):
        answer = app.ask(name, "POST", "/reports", **batch({"template": "overview_stats"}))
        assert answer.status_code == status


def test_batch_keeps_the_token_within_its_concurrency(tmp_path: Path) -> None:
    app = TokenApp(tmp_path)
    running, most = threading.Semaphore(1), []

    def step() -> Result:
        most.append(running.acquire(blocking=False))
        running.release()
        return ROW

    app.script.steps = [step, step, step]
    same = [{"template": "overview_stats", "params": {"app_id": each}} for each in "abc"]
    assert statuses(app.ask("single", "POST", "/reports", **batch(*same))) == [200, 200, 200]
    assert most == [True, True, True]
