"""POST /reports over scripted connections: isolation of failures, bounds, the shared cache."""

import dataclasses
import threading
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.clickhouse.results import Result
from octane_analytics.errors import StatementRejected
from tests.support.asgi_calls import LIMITS, Script, app_over, call, report, result

ROW = result(("x", 1), s="String", n="UInt64")
WIDE = ComplexityLimits(
    seconds=30, result_rows=1_000_000, result_bytes=1 << 30, memory_bytes=1 << 30
)
TOP = {"template": "top_content"}


def batch(app: ASGIApp, *reports: object) -> list[dict[str, Any]]:
    answer = call(app, "POST", "/reports", json={"reports": list(reports)})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["answers"]
    return found


def test_reports_fail_by_themselves() -> None:
    script = Script(ROW, StatementRejected(159, "TIMEOUT_EXCEEDED", "slow"), ROW)
    answers = batch(
        app_over(script),
        TOP,
        {"template": "nothing"},
        {"template": "funnel"},
        {"template": "overview_stats"},
        {"template": "top_content", "parameters": {}},
        5,
        {"template": "top_content", "format": "csv"},
        {"template": "search_analytics"},
    )
    assert [each["status"] for each in answers] == [200, 404, 422, 504, 422, 422, 422, 200]
    assert all(("answer" in each) == (each["status"] == 200) for each in answers)
    assert answers[0]["answer"]["rows"] == [{"s": "x", "n": 1}]


def test_batch_shares_the_cache_with_single_reports() -> None:
    app = app_over(Script(ROW), cache_bytes=1 << 20)
    single = report(app, "top_content")
    (one, two) = batch(app, TOP, TOP)
    assert (one["cache"], two["cache"]) == ("hit", "hit")
    assert one["answer"] == single.json()
    assert one["etag"] == single.headers["etag"]


@pytest.mark.parametrize("reports", [[], [TOP] * 21, None, {}, "x"])
def test_invalid_list_is_rejected(reports: object) -> None:
    answer = call(app_over(Script()), "POST", "/reports", json={"reports": reports})
    assert answer.status_code == 422


def test_answers_of_a_batch_are_bounded() -> None:
    large = result(*((f"{n:01000d}",) for n in range(900)), s="String")
    huge = result(*((f"{n:01000d}",) for n in range(5000)), s="String")
    app = app_over(Script(huge, *[large] * 10), limits=WIDE)
    answers = batch(app, *[{"template": "overview_stats"}] * 11)
    assert [each["status"] for each in answers] == [422] + [200] * 9 + [422]
    assert answers[0]["error"]["code"] == "result_too_large"


def test_batch_ends_within_its_time() -> None:
    release = threading.Event()

    def slow() -> Result:
        release.wait(60)
        return ROW

    limits = dataclasses.replace(LIMITS, seconds=4)
    try:
        answers = batch(app_over(Script(ROW, slow), limits=limits), TOP, TOP, TOP)
        assert not release.is_set()
    finally:
        release.set()
    assert [each["status"] for each in answers] == [200, 504, 504]


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(repr))
def test_hostile_body_is_never_an_internal_error(body: bytes | str) -> None:
    headers = {"Content-Type": "application/json"}
    answer: httpx.Response = call(
        app_over(Script()), "POST", "/reports", content=body, headers=headers
    )
    assert answer.status_code in (400, 422)
