"""Results that need far more memory than their encoded size, or that the driver cannot read."""

import gc
from pathlib import Path

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import StatementRejected
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over
from tests.support.asgi_calls import call, query

MAX_BYTES = 16 << 20
LARGE = [
    "SELECT arrayMap(x -> toFixedString('ab', 2), range(number + 7000000)) FROM numbers(1)",
    "SELECT arrayMap(x -> toDate(x % 60000), range(number + 7000000)) FROM numbers(1)",
    "SELECT arrayMap(x -> 1::UInt8, range(15000000))",
    "SELECT arrayMap(x -> emptyArrayUInt8(), range(1900000))",
    "SELECT arrayMap(x -> NULL, range(15000000))",
    "SELECT arrayMap(x -> (1::UInt8, (2::UInt8, true)), range(5000000))",
    "SELECT arrayMap(x -> '', range(15000000))",
    "SELECT arrayMap(x -> map(1::UInt8, 1::UInt8), range(1000000))",
    "SELECT arrayMap(x -> toLowCardinality('a string that repeats'), range(3000000))",
    "SELECT arrayMap(x -> toIPv4('1.1.1.1'), range(3900000))",
    "SELECT arrayMap(x -> toDecimal32(1.5, 2), range(3900000))",
    "SELECT arrayMap(x -> repeat(char(1), 1000), range(14000))",
]


def resident_bytes(field: str) -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if field in line
    )
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("sql", LARGE)
def test_values_are_rejected_before_allocating_memory(
    clickhouse_settings: ClickHouseSettings, sql: str
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests", is_confined=True) as connection:
        connection.select("SELECT 1")
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_bytes("VmRSS")
        excerpt = connection.excerpt(sql, settings={}, max_rows=10, max_bytes=MAX_BYTES)
        grown = resident_bytes("VmHWM") - before
        assert not excerpt.is_whole
        assert grown <= 2 * MAX_BYTES, grown
        assert connection.select("SELECT 1").rows == [(1,)]


@pytest.mark.parametrize("sql", LARGE)
def test_block_of_a_stream_is_bounded(clickhouse_settings: ClickHouseSettings, sql: str) -> None:
    with (
        ClickHouse(clickhouse_settings, client_name="tests") as connection,
        pytest.raises(StatementRejected, match="memory"),
        connection.stream(sql, max_block_bytes=MAX_BYTES) as result,
    ):
        list(result.blocks)


def test_total_size_of_a_stream_is_unbounded(clickhouse_settings: ClickHouseSettings) -> None:
    with (
        ClickHouse(clickhouse_settings, client_name="tests") as connection,
        connection.stream(
            "SELECT number FROM numbers(2000000)", max_block_bytes=MAX_BYTES
        ) as result,
    ):
        assert sum(map(len, result.blocks)) == 2_000_000


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + ", ".join(f"CAST(1, 'Enum8(\\'{'a' * 900}{i}\\' = 1)')" for i in range(40)),
        "SELECT " + "[" * 900 + "1" + "]" * 900,
        "SELECT map('a', map('b', (1, 2)))",
    ],
)
def test_unreadable_result_is_a_client_error(
    clickhouse_settings: ClickHouseSettings, sql: str
) -> None:
    with app_over(clickhouse_settings) as app:
        answer = query(app, sql)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "sql_error")


TOTALS = "SELECT number % 2 AS k, count() AS n FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k"


def test_totals_are_separate_in_json(clickhouse_settings: ClickHouseSettings) -> None:
    with app_over(clickhouse_settings) as app:
        body = query(app, TOTALS).json()
        assert body["rows"] == [{"k": 0, "n": 5}, {"k": 1, "n": 5}]
        assert (body["row_count"], body["totals"]) == (2, {"k": 0, "n": 10})
        assert "totals" not in query(app, "SELECT 1").json()


@pytest.mark.parametrize("name", ["csv", "ndjson", "arrow", "parquet"])
def test_totals_are_rejected_in_other_formats(
    clickhouse_settings: ClickHouseSettings, name: str
) -> None:
    with app_over(clickhouse_settings) as app:
        answer = call(app, "POST", "/query", json={"sql": TOTALS, "format": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "totals_need_json")


def test_times_of_distant_years_keep_their_fraction(
    clickhouse_settings: ClickHouseSettings,
) -> None:
    sql = (
        "SELECT toDateTime64('2299-12-31 23:59:59.999', 3, 'UTC') AS a, "
        "toDateTime64('2283-11-11 23:59:59.999999', 6, 'UTC') AS b, "
        "[toNullable(toDateTime64('1900-01-01 00:00:00.123456', 6, 'UTC'))] AS c"
    )
    with app_over(clickhouse_settings) as app:
        assert query(app, sql).json()["rows"] == [
            {
                "a": "2299-12-31T23:59:59.999000Z",
                "b": "2283-11-11T23:59:59.999999Z",
                "c": ["1900-01-01T00:00:00.123456Z"],
            }
        ]
