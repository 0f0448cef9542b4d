import json
import time

import pytest

from octane_analytics.api.raw_sql.result import OFFERED, SerializedResult, serialize
from octane_analytics.clickhouse.results import Excerpt, ResultColumn
from octane_analytics.errors import QueryError

ROWS = [(number, "x" * 10) for number in range(5)]
COLUMNS = (ResultColumn("n", "UInt8"), ResultColumn("a_long_name_that_repeats", "String"))


def answer(name: str, max_bytes: int, *, is_whole: bool = True) -> SerializedResult:
    excerpt = Excerpt(COLUMNS, list(ROWS), is_whole, 5)
    return serialize(excerpt, OFFERED[name], max_bytes, time.perf_counter())


@pytest.mark.parametrize("name", OFFERED)
def test_whole_result_is_whole(name: str) -> None:
    told = answer(name, 10_000)
    assert (told.row_count, told.is_truncated) == (5, False)


@pytest.mark.parametrize("name", OFFERED)
def test_result_that_was_cut_before_says_so(name: str) -> None:
    told = answer(name, 10_000, is_whole=False)
    assert (told.row_count, told.is_truncated) == (5, True)


def test_rows_that_do_not_fit_are_left_out_and_told() -> None:
    size = len(json.dumps({"n": 0, COLUMNS[1].name: "x" * 10}, separators=(",", ":"))) + 1
    told = answer("json", 3 * size)
    body = json.loads(told.body)
    assert (told.row_count, told.is_truncated) == (3, True)
    assert (len(body["rows"]), body["row_count"], body["truncated"]) == (3, 3, True)
    assert answer("ndjson", 3 * size).body.count(b"\n") == 3
    assert answer("csv", 2 * len("0,xxxxxxxxxx\r\n")).body.count(b"\r\n") == 1 + 2


@pytest.mark.parametrize("name", ["json", "ndjson", "csv"])
def test_not_even_one_row_is_an_error(name: str) -> None:
    with pytest.raises(QueryError) as raised:
        answer(name, 5)
    assert (raised.value.status, raised.value.code) == (422, "result_too_large")


def test_gauges_with_labels_of_the_clients_choice_are_not_offered() -> None:
    assert "prometheus" not in OFFERED
