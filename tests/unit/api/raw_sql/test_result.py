import json
import time

import pytest

from octane_analytics.api.raw_sql.result import OFFERED, SerializedResult, serialize
from octane_analytics.clickhouse.results import DataRead, Excerpt, ResultColumn
from octane_analytics.errors import QueryError

ROWS = [(number, "x" * 10) for number in range(5)]
COLUMNS = (ResultColumn("n", "UInt8"), ResultColumn("a_long_name_that_repeats", "String"))


def serialized(name: str, max_bytes: int, *, is_whole: bool = True) -> SerializedResult:
    excerpt = Excerpt(COLUMNS, list(ROWS), is_whole, DataRead(5, 500))
    return serialize(excerpt, OFFERED[name], max_bytes, time.perf_counter())


@pytest.mark.parametrize("name", OFFERED)
def test_complete_result_is_not_truncated(name: str) -> None:
    result = serialized(name, 10_000)
    assert (result.row_count, result.is_truncated) == (5, False)


@pytest.mark.parametrize("name", OFFERED)
def test_incomplete_excerpt_is_marked_as_truncated(name: str) -> None:
    result = serialized(name, 10_000, is_whole=False)
    assert (result.row_count, result.is_truncated) == (5, True)


def test_rows_beyond_maximum_size_are_truncated() -> None:
    size = len(json.dumps({"n": 0, COLUMNS[1].name: "x" * 10}, separators=(",", ":"))) + 1
    result = serialized("json", 3 * size)
    body = json.loads(result.body)
    assert (result.row_count, result.is_truncated) == (3, True)
    assert (len(body["rows"]), body["row_count"], body["truncated"]) == (3, 3, True)
    assert serialized("ndjson", 3 * size).body.count(b"\n") == 3
    assert serialized("csv", 2 * len("0,xxxxxxxxxx\r\n")).body.count(b"\r\n") == 1 + 2


@pytest.mark.parametrize("name", ["json", "ndjson", "csv"])
def test_result_without_room_for_one_row_fails(name: str) -> None:
    with pytest.raises(QueryError) as raised:
        serialized(name, 5)
    assert (raised.value.status, raised.value.code) == (422, "result_too_large")


def test_prometheus_format_is_not_offered() -> None:
    assert "prometheus" not in OFFERED
