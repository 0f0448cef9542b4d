"""Raw SQL through the app, against a real ClickHouse."""

import asyncio
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from starlette.types import ASGIApp

from octane_analytics.api.raw_sql.validator import EXPLAIN_AST
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import QUERY_LIMITS, app_over, event, insert
from tests.support.asgi_calls import call, query
from tests.support.explain_trees import ALLOWED, FORBIDDEN


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with app_over(clickhouse_settings) as opened:
        yield opened


def value_of(app: ASGIApp, expression: str) -> object:
    answer = query(app, f"SELECT {expression} AS v")
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"][0]["v"]


@pytest.mark.parametrize(
    "sql", [*ALLOWED, *(sql for sql in FORBIDDEN if not sql.startswith("graph"))]
)
def test_sample_trees_match_the_parser(clickhouse_settings: ClickHouseSettings, sql: str) -> None:
    expected = ALLOWED[sql] if sql in ALLOWED else FORBIDDEN[sql][0]
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        rows = connection.select(EXPLAIN_AST + sql).rows
    assert "\n".join(row[0] for row in rows) == expected


@pytest.mark.parametrize("sql", ["SELECT 1 AS n", "WITH 1 AS n SELECT n;", "(SELECT 1 AS n)"])
def test_select_is_answered(app: ASGIApp, sql: str) -> None:
    body = query(app, sql).json()
    assert body["columns"] == [{"name": "n", "type": "UInt8"}]
    assert (body["rows"], body["row_count"], body["truncated"]) == ([{"n": 1}], 1, False)


TABLE = "SELECT number AS n, concat('a,', toString(number)) AS s FROM numbers(2)"
NDJSON = b'{"n":0,"s":"a,0"}\n{"n":1,"s":"a,1"}\n'
CSV = b'n,s\r\n0,"a,0"\r\n1,"a,1"\r\n'


@pytest.mark.parametrize(
    ("name", "accept", "media_type", "body"),
    [
        ("ndjson", None, "application/x-ndjson", NDJSON),
        (None, "application/x-ndjson", "application/x-ndjson", NDJSON),
        ("csv", None, "text/csv; charset=utf-8; header=present", CSV),
        (None, "text/plain, text/csv;q=0.5", "text/csv; charset=utf-8; header=present", CSV),
        ("csv", "application/json", "text/csv; charset=utf-8; header=present", CSV),
    ],
)
def test_answer_has_the_requested_format(
    app: ASGIApp, name: str | None, accept: str | None, media_type: str, body: bytes
) -> None:
    request = {"sql": TABLE} | ({"format": name} if name else {})
    answer = call(app, "POST", "/query", json=request, headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.content == body
    assert answer.headers["x-truncated"] == "false"


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_answer_is_an_arrow_or_parquet_table(app: ASGIApp, name: str) -> None:
    answer = call(app, "POST", "/query", json={"sql": TABLE, "format": name})
    body = io.BytesIO(answer.content)
    read = pyarrow.ipc.open_stream(body).read_all if name == "arrow" else None
    table = read() if read else pyarrow.parquet.read_table(body)
    assert table.to_pylist() == [{"n": 0, "s": "a,0"}, {"n": 1, "s": "a,1"}]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"format": "prometheus"}, {}, 422),
        ({"format": "xml"}, {}, 422),
        ({"format": 1}, {}, 422),
        ({}, {"Accept": "text/plain"}, 406),
    ],
)
def test_other_format_is_rejected(
    app: ASGIApp, body: dict[str, object], headers: dict[str, str], status: int
) -> None:
    answer = call(app, "POST", "/query", json={"sql": "SELECT 1"} | body, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("name", ["json", "ndjson", "csv", "arrow", "parquet"])
def test_truncated_answer_is_marked_in_headers(app: ASGIApp, name: str) -> None:
    body = {"sql": "SELECT number FROM numbers(2001)", "format": name}
    answer = call(app, "POST", "/query", json=body)
    assert (answer.headers["x-truncated"], answer.headers["x-row-limit"]) == ("true", "2000")


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_statement_other_than_select_is_rejected(app: ASGIApp, sql: str) -> None:
    answer = query(app, sql)
    assert answer.status_code in (400, 403), answer.text
    assert answer.json()["error"]["code"] in ("sql_error", "forbidden_statement")


def test_rejected_statements_change_nothing(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    insert(clickhouse_settings, [event(int(time.time()), "e")])
    table = f"{clickhouse_settings.database}.{clickhouse_settings.table}"
    for sql in (
        f"TRUNCATE TABLE {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} DELETE WHERE 1",
        f"DELETE FROM {table} WHERE 1",
        f"INSERT INTO {table} SELECT * FROM {table}",
        f"SELECT 1; DROP TABLE {table}",
        f"SELECT count() FROM {table}; TRUNCATE TABLE {table};",
        f"EXPLAIN AST SELECT 1; TRUNCATE TABLE {table}",
        f"/* */ TRUNCATE TABLE {table}",
    ):
        assert query(app, sql).status_code in (400, 403), sql
    assert query(app, f"SELECT count() AS n FROM {table}").json()["rows"] == [{"n": 1}]


@pytest.mark.parametrize(
    "source",
    [
        "file('/etc/passwd', 'LineAsString')",
        "url('http://127.0.0.1:1/', 'LineAsString')",
        "remote('127.0.0.1', system.one)",
        "mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "s3('http://127.0.0.1:1/bucket/x.csv', 'CSV')",
        # clickhouse-local reads files and URLs of such names, and Python() objects of its host.
        "'/etc/passwd'",
        "`/etc/passwd`",
        "default.`/etc/passwd`",
        "'http://127.0.0.1:1/?query=SELECT+42'",
        "Python(x)",
        "python('x')",
    ],
)
def test_table_functions_with_external_data_are_rejected(app: ASGIApp, source: str) -> None:
    answer = query(app, f"SELECT * FROM {source}")
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("toInt128('-170141183460469231731687303715884105728')", str(-(2**127))),
        ("toDecimal64('1.50', 2)", "1.5"),
        ("nan", None),
        ("-inf", None),
        ("NULL", None),
        ("true", True),
        ("unhex('FF41')", "\ufffdA"),
        ("toFixedString('ab', 4)", "ab"),
        ("toDateTime(1770000000, 'Asia/Tokyo')", "2026-02-02T02:40:00Z"),
        ("toDateTime(1770000000)", "2026-02-02T02:40:00Z"),
        ("[toDateTime(0)]", ["1970-01-01T00:00:00Z"]),
        ("toDateTime64(1770000000.25, 3, 'UTC')", "2026-02-02T02:40:00.250000Z"),
        ("toDate('2026-02-02')", "2026-02-02"),
        ("toDate32('1950-01-01')", "1950-01-01"),
        ("toUUID('00000000-0000-0000-0000-000000000001')", "00000000-0000-0000-0000-000000000001"),
        ("toIPv4('1.2.3.4')", "1.2.3.4"),
        ("toIPv6('::1')", "::1"),
        ("CAST('a', 'Enum8(\\'a\\' = 1)')", "a"),
        ("toLowCardinality('a')", "a"),
        ("(1, 'a', [2])", [1, "a", [2]]),
        ("map('a', map(1, 2))", {"a": {"1": 2}}),
        ("'é😀\\0'", "é😀\0"),
        ('\'{"a": {"b": 1}}\'::JSON', {"a": {"b": 1}}),
    ],
)
def test_type_is_encoded_as_json(app: ASGIApp, expression: str, expected: object) -> None:
    assert value_of(app, expression) == expected


def test_type_unknown_to_driver_is_a_client_error(app: ASGIApp) -> None:
    answer = query(app, "SELECT 1::Variant(Int8, String)")
    assert answer.status_code == 400
    assert "cast that column to String" in answer.json()["error"]["message"]
    assert value_of(app, "1") == 1


def test_repeated_column_names_are_made_unique(app: ASGIApp) -> None:
    body = query(app, "SELECT 1, 1, 2 AS `1_2`").json()
    assert body["rows"] == [{"1": 1, "1_3": 1, "1_2": 2}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT number FROM numbers(5000)",
        "SELECT number FROM numbers(5000) ORDER BY number LIMIT 4000",
        "SELECT number FROM numbers(3000) UNION ALL SELECT number FROM numbers(3000)",
        "SELECT number FROM system.numbers",
    ],
)
def test_rows_beyond_the_limit_are_truncated(app: ASGIApp, sql: str) -> None:
    body = query(app, sql).json()
    assert (len(body["rows"]), body["row_count"], body["truncated"]) == (2000, 2000, True)


def test_rows_up_to_the_limit_are_complete(app: ASGIApp) -> None:
    body = query(app, "SELECT number FROM numbers(2000)").json()
    assert (body["row_count"], body["truncated"]) == (2000, False)
    # The limit does not apply to subqueries.
    assert value_of(app, "(SELECT count() FROM (SELECT number FROM numbers(5000)))") == 5000


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, "sql_error"),
        ("SELECT nothing", 400, "sql_error"),
        ("SELECT * FROM nowhere.nothing", 403, "forbidden_statement"),
        ("SELECT * FROM nothing_here", 403, "forbidden_statement"),
        ("SELECT {a:String}", 400, "sql_error"),
        ("-- only a comment", 400, "sql_error"),
        ("SELECT length(range(300000000 + number)) FROM numbers(1)", 422, "memory_limit"),
        ("SELECT repeat('x', 10000 + number) FROM numbers(2000)", 422, "result_too_large"),
        ("SELECT sleepEachRow(3) FROM numbers(9) SETTINGS max_block_size = 1", 403, None),
    ],
)
def test_sql_error_has_its_status(app: ASGIApp, sql: str, status: int, code: str | None) -> None:
    answer = query(app, sql)
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert code in (None, error["code"])
    assert "Stack trace" not in error["message"]
    assert "DB::Exception" not in error["message"]


def test_query_timeout_is_a_504(clickhouse_settings: ClickHouseSettings) -> None:
    with app_over(clickhouse_settings, query_limits=replace(QUERY_LIMITS, seconds=0.5)) as app:
        started = time.monotonic()
        answer = query(app, "SELECT count() FROM system.numbers WHERE sipHash64(number) = 1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert time.monotonic() - started < 5
        assert value_of(app, "1") == 1


def test_concurrent_queries_are_all_answered(app: ASGIApp) -> None:
    async def run_concurrently() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = await asyncio.gather(
                *(client.post("/query", json={"sql": f"SELECT {n} AS n"}) for n in range(30))
            )
        return [answer.json()["rows"][0]["n"] for answer in answers]

    assert asyncio.run(run_concurrently()) == list(range(30))


def test_readiness_depends_on_the_table(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    assert call(app, "GET", "/readyz").status_code == 200
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(f"DROP TABLE {connection.table}")
    answer = call(app, "GET", "/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_clickhouse_restart_is_transparent_outage_a_503(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path / "clickhouse") as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with app_over(settings) as app:
            assert value_of(app, "1") == 1
            engine.kill()
            engine.start()
            assert value_of(app, "2") == 2
            engine.kill()
            answer = query(app, "SELECT 3")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"]
            assert call(app, "GET", "/readyz").status_code == 503
            assert call(app, "GET", "/healthz").status_code == 200
            engine.start()
            assert value_of(app, "4") == 4
