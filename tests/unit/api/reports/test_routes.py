"""Report routes over scripted connections: caching, formats, streaming."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.results.formats import FORMATS
from octane_analytics.clickhouse.results import DataRead, Result, RowStream
from octane_analytics.errors import StatementRejected, Unavailable
from tests.support.asgi_calls import NOW, Script, app_over, call, report, result

ROW = result(("x", 1), s="String", n="UInt64")
WIDE = ComplexityLimits(
    seconds=30, result_rows=1_000_000, result_bytes=1 << 30, memory_bytes=1 << 30
)
MANY = result(*((f"{n:01000d}", n) for n in range(5000)), s="String", n="UInt64")
"""About 5 MB in any format, which is streamed."""
PATH = "/report/top_content"


def get(app: ASGIApp, path: str = PATH, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(app, "GET", path, headers=named)


def test_get_returns_the_same_as_post() -> None:
    script = Script(ROW, ROW)
    app = app_over(script)
    body = get(app, "/report/top_content?limit=2&app_id=a&from=-2h&to=1770033600").json()
    assert body["params"] == {
        "app_id": "a",
        "from": "2026-02-02T10:00:01Z",
        "to": "2026-02-02T12:00:00Z",
        "exact": False,
        "limit": 2,
        "offset": 0,
    }
    posted = report(app, "top_content", limit=2, app_id="a", **{"from": "-2h", "to": 1770033600})
    assert posted.json()["params"] == body["params"]


def test_get_reads_arrays_from_repeated_parameters() -> None:
    script = Script(ROW)
    assert get(app_over(script), "/report/funnel?steps=a&steps=b").status_code == 200
    assert script.calls[0][1]["steps"] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/report/nothing", 404, "unknown_template"),
        ("/report/top_content?limit=many", 422, "bad_parameter"),
        ("/report/top_content?limit=1&limit=2", 422, "bad_parameter"),
        ("/report/top_content?app_id=", 422, "bad_parameter"),
        ("/report/top_content?colour=red", 422, "unknown_parameter"),
        ("/report/top_content?format=xml", 422, "bad_parameter"),
        ("/report/funnel", 422, "bad_parameter"),
        ("/report/funnel?steps=a", 422, "bad_parameter"),
        ("/report/active_users?timezone=Europe/Atlantis", 422, "bad_parameter"),
    ],
)
def test_get_rejects_the_same_as_post(path: str, status: int, code: str) -> None:
    answer = get(app_over(Script()), path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_chosen_by_name_or_accept(name: str) -> None:
    app = app_over(Script(ROW, ROW, ROW))
    by_name = get(app, f"{PATH}?format={name}")
    by_accept = get(app, accept=FORMATS[name].accepted[0])
    posted = call(app, "POST", "/report", json={"template": "top_content", "format": name})
    kinds = {each.headers["content-type"] for each in (by_name, by_accept, posted)}
    assert kinds == {FORMATS[name].media_type}


@pytest.mark.parametrize("name", FORMATS)
def test_browser_saves_downloads_under_a_name(name: str) -> None:
    answer = get(app_over(Script(ROW)), f"{PATH}?format={name}")
    is_download = name in ("csv", "ndjson", "arrow", "parquet")
    expected = f'attachment; filename="top_content.{name}"' if is_download else None
    assert answer.headers.get("content-disposition") == expected


def test_streamed_answer_has_a_file_name() -> None:
    answer = get(app_over(Script(MANY), limits=WIDE), "/report/events_over_time?format=csv")
    assert "etag" not in answer.headers
    assert answer.headers["content-disposition"] == 'attachment; filename="events_over_time.csv"'


def test_time_of_a_query_is_a_header_once() -> None:
    app = app_over(Script(ROW), cache_bytes=1 << 20)
    first, second = get(app), get(app)
    assert first.headers["server-timing"].startswith("query;dur=")
    assert "server-timing" not in second.headers
    assert first.json()["rows_read"] == second.json()["rows_read"] == 5


def test_second_request_is_answered_from_the_cache() -> None:
    script = Script(ROW)
    registry = CollectorRegistry()
    app = app_over(script, cache_bytes=1 << 20, registry=registry)
    first, second = get(app), get(app)
    assert len(script.calls) == 1
    read = registry.get_sample_value("analytics_api_rows_read_total", {"route": "/report"})
    assert read == 5, "rows read are counted once"
    assert first.content == second.content
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert second.headers["cache-control"] == "public, max-age=60"
    assert 0 <= int(second.headers["age"]) < 60
    assert report(app, "top_content").content == first.content
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    "path", [f"{PATH}?limit=3", f"{PATH}?format=csv", f"{PATH}?app_id=a", f"{PATH}?from=-1h"]
)
def test_different_request_is_not_answered_from_cache(path: str) -> None:
    script = Script(ROW, ROW)
    app = app_over(script, cache_bytes=1 << 20)
    get(app)
    assert get(app, path).headers["x-cache"] == "miss"


def test_relative_range_hits_the_cache_seconds_later() -> None:
    script = Script(ROW, ROW, ROW)
    clock = iter(NOW + timedelta(seconds=each) for each in (0, 7, 14, 15))
    app = app_over(script, cache_bytes=1 << 20, now=lambda: next(clock))
    first, second = get(app, f"{PATH}?from=-7d"), get(app, f"{PATH}?from=-7d")
    assert second.headers["x-cache"] == "hit"
    assert second.json()["params"]["to"] == first.json()["params"]["to"]


@pytest.mark.parametrize("control", ["no-cache", "max-age=0, no-cache", "no-store"])
def test_no_cache_header_bypasses_the_cache(control: str) -> None:
    script = Script(ROW, result(("y", 2), s="String", n="UInt64"))
    app = app_over(script, cache_bytes=1 << 20)
    get(app)
    fresh = get(app, cache_control=control)
    assert (fresh.headers["x-cache"], fresh.json()["rows"]) == ("bypass", [{"s": "y", "n": 2}])


def test_same_rows_have_same_etag_and_return_304() -> None:
    script = Script(ROW, ROW, result(("y", 2), s="String", n="UInt64"))
    app = app_over(script)
    first = get(app)
    etag = first.headers["etag"]
    again = get(app, if_none_match=f'"other", {etag}')
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    other = get(app, if_none_match=etag)
    assert (other.status_code, other.headers["etag"] != etag) == (200, True)


def test_etag_depends_on_the_format() -> None:
    app = app_over(Script(ROW, ROW))
    assert get(app).headers["etag"] != get(app, f"{PATH}?format=csv").headers["etag"]


def test_error_is_not_cached() -> None:
    script = Script(StatementRejected(159, "TIMEOUT_EXCEEDED", "slow"), ROW)
    app = app_over(script, cache_bytes=1 << 20)
    assert get(app).status_code == 504
    assert get(app).status_code == 200


def test_concurrent_identical_requests_run_one_query() -> None:
    release = threading.Event()

    def slow_query() -> Result:
        release.wait(10)
        return ROW

    script = Script(slow_query)
    app = app_over(script)

    async def request_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            requests = [asyncio.ensure_future(client.get(PATH)) for _ in range(200)]
            await asyncio.sleep(0.2)
            release.set()
            return await asyncio.gather(*requests)

    answers = asyncio.run(request_all())
    assert {answer.status_code for answer in answers} == {200}
    outcomes = [answer.headers["x-cache"] for answer in answers]
    assert (outcomes.count("miss"), outcomes.count("shared")) == (1, 199)
    assert len(script.calls) == 1


@pytest.mark.parametrize("name", ["json", "ndjson", "csv"])
def test_large_answer_is_streamed_completely(name: str) -> None:
    app = app_over(Script(MANY, MANY), limits=WIDE, cache_bytes=1 << 30)
    path = f"/report/overview_stats?format={name}"
    answer = get(app, path)
    assert answer.status_code == 200
    assert "content-length" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-row-limit"] == "1000000"
    if name == "json":
        body = answer.json()
        assert (body["row_count"], body["truncated"]) == (5000, False)
        assert [row["n"] for row in body["rows"]] == list(range(5000))
    else:
        lines = answer.text.splitlines()
        assert len(lines) == 5000 + (name == "csv")
        if name == "ndjson":
            assert [json.loads(line)["n"] for line in lines] == list(range(5000))
    # It was not cached.
    assert get(app, path).status_code == 200


class FailingStream(Script):
    """Streams MANY, then raises the error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @contextmanager
    def stream(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
        max_block_bytes: int | None = None,
    ) -> Iterator[RowStream]:
        self.calls.append((sql, {}, {}))

        def blocks() -> Iterator[list[tuple[Any, ...]]]:
            yield MANY.rows
            raise self._error

        yield RowStream(MANY.columns, blocks(), lambda: DataRead(0, 0))


@pytest.mark.parametrize(
    "error",
    [Unavailable("the connection broke"), StatementRejected(159, "TIMEOUT_EXCEEDED", "slow")],
)
def test_error_while_streaming_aborts_and_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    script = FailingStream(error)
    app = app_over(script, limits=WIDE)
    sent: list[Message] = []

    async def run() -> None:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            for message in messages:
                return message
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/report/overview_stats",
            "query_string": b"format=ndjson",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "asgi": {"spec_version": "2.3"},
        }
        await app(scope, receive, send)

    with caplog.at_level(logging.ERROR), pytest.raises(Exception) as raised:  # noqa: PT011
        asyncio.run(run())
    error_text = repr(raised.value) + repr(getattr(raised.value, "exceptions", ""))
    assert "broke off in the middle" in error_text
    assert sent[0]["status"] == 200
    assert all(message.get("more_body") for message in sent[1:])
    assert len(sent) > 1
    # A partly sent answer is not retried.
    assert len(script.calls) == 1
    assert caplog.records


def test_row_limit_of_service_applies_and_is_shown() -> None:
    rows = result(*((n,) for n in range(4)), n="UInt64")
    answer = get(app_over(Script(rows)), "/report/overview_stats")
    assert answer.headers["x-truncated"] == "true"
    assert answer.headers["x-row-limit"] == "3"
    assert answer.json()["row_count"] == 3


def test_next_offset_is_set_if_rows_follow() -> None:
    rows = result(*((n,) for n in range(3)), n="UInt64")
    app = app_over(Script(rows, rows))
    assert get(app, f"{PATH}?limit=2&offset=10").json()["next_offset"] == 12
    assert get(app, f"{PATH}?limit=3&offset=10").json()["next_offset"] is None


def test_integers_beyond_a_double_are_strings_on_request() -> None:
    rows = result((2**53 - 1, [2**63]), (2**53, []), n="UInt64", a="Array(UInt64)")
    app = app_over(Script(*[rows] * 5), cache_bytes=1 << 20)
    plain = get(app).json()["rows"]
    assert plain == [{"n": 2**53 - 1, "a": [2**63]}, {"n": 2**53, "a": []}]
    wanted = [{"n": 2**53 - 1, "a": [str(2**63)]}, {"n": str(2**53), "a": []}]
    assert get(app, f"{PATH}?integers=string").json()["rows"] == wanted
    body = {"template": "top_content", "integers": "string"}
    assert call(app, "POST", "/report", json=body).json()["rows"] == wanted
    lines = get(app, f"{PATH}?integers=string&format=ndjson").text.splitlines()
    assert [json.loads(line) for line in lines] == wanted
    assert get(app, f"{PATH}?integers=text").status_code == 422


def test_download_names_an_answer_of_any_format() -> None:
    app = app_over(Script(ROW, ROW), cache_bytes=1 << 20)
    assert "content-disposition" not in get(app).headers
    saved = get(app, f"{PATH}?download=1").headers["content-disposition"]
    assert saved == 'attachment; filename="top_content.json"'
    text = get(app, f"{PATH}?download=1&format=prometheus").headers["content-disposition"]
    assert text == 'attachment; filename="top_content.txt"'


def test_schema_describes_each_column() -> None:
    app = app_over(Script())
    body = get(app, "/reports/top_content/schema").json()
    assert body["columns"][0]["type"] == "String"
    assert body["row"]["properties"]["watch_time"]["type"] == ["number", "null"]
    assert body["row"]["properties"]["unique_viewers"]["type"] == "integer"
    assert get(app, "/reports/nothing/schema").status_code == 404
