import csv
import io
import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from octane_analytics.api.results.formats import FORMATS, Envelope, Rows, choose, writer
from octane_analytics.clickhouse.results import ResultColumn
from octane_analytics.errors import QueryError

COLUMNS = (
    ResultColumn("name", "String"),
    ResultColumn("n", "UInt64"),
    ResultColumn("x", "Nullable(Float64)"),
    ResultColumn("at", "DateTime('UTC')"),
    ResultColumn("tags", "Array(String)"),
)
AT = datetime(2026, 2, 2, 12, tzinfo=UTC)
BLOCKS: list[list[tuple[Any, ...]]] = [
    [('say "hi", you\n', 1, 1.5, AT, ["a", "b"]), ("", 2, None, AT, [])],
    [("=1+1", 2**64 - 1, math.inf, AT, ["☃"])],
]


def written(
    name: str,
    columns: Sequence[ResultColumn] = COLUMNS,
    blocks: Sequence[list[tuple[Any, ...]]] = BLOCKS,
    max_rows: int = 100,
    *,
    is_csv_raw: bool = False,
) -> bytes:
    rows = Rows(blocks, max_rows)
    envelope = Envelope({"template": "top"}, lambda: {"elapsed_ms": 1})
    out = writer(FORMATS[name], columns, rows, envelope, is_csv_raw=is_csv_raw)
    return b"".join([out.begin(), *(out.rows(block) for block in rows), out.end()])


PLAIN = [
    {"name": 'say "hi", you\n', "n": 1, "x": 1.5, "at": "2026-02-02T12:00:00Z", "tags": ["a", "b"]},
    {"name": "", "n": 2, "x": None, "at": "2026-02-02T12:00:00Z", "tags": []},
    {"name": "=1+1", "n": 2**64 - 1, "x": None, "at": "2026-02-02T12:00:00Z", "tags": ["☃"]},
]


def test_json_is_one_object_with_row_count() -> None:
    assert json.loads(written("json")) == {
        "template": "top",
        "columns": [{"name": each.name, "type": each.type} for each in COLUMNS],
        "rows": PLAIN,
        "row_count": 3,
        "truncated": False,
        "elapsed_ms": 1,
    }


def test_ndjson_is_one_object_per_line() -> None:
    lines = written("ndjson").decode().splitlines()
    assert [json.loads(line) for line in lines] == PLAIN


def test_csv_has_a_header_and_reads_back() -> None:
    text = written("csv", is_csv_raw=True).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert rows == [
        {**{name: "" if value is None else str(value) for name, value in row.items()}, "tags": tags}
        for row, tags in zip(PLAIN, ['["a","b"]', "[]", '["☃"]'], strict=True)
    ]
    assert text.startswith("name,n,x,at,tags\r\n")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        *((f"{first}1+1", f"'{first}1+1") for first in "=+-@"),
        ("\t=1", '"\'\t=1"'),
        ("-1.5", "-1.5"),
        ("a=1", "a=1"),
        ('=HYPERLINK("a")', '"\'=HYPERLINK(""a"")"'),
        (" =1", "' =1"),
        ("\0=1", "'\0=1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("\x0b\t1", '"\'\x0b\t1"'),
        (" -1.5", " -1.5"),
        ("\u00a0a", "\u00a0a"),
        ("a;=1", '"a;=1"'),
        ("a\t=1", '"a\t=1"'),
        ("\n=1", '"\'\n=1"'),
        ("\uff1d1", "'\uff1d1"),
        ("\uff20x", "'\uff20x"),
        ("\r=1", '"\'\r=1"'),
    ],
)
def test_csv_formula_cell_is_escaped_unless_raw(value: str, cell: str) -> None:
    columns = (ResultColumn(value, "String"),)
    body = written("csv", columns, [[(value,)]]).decode()
    assert body == f"{cell}\r\n{cell}\r\n"
    raw = written("csv", columns, [[(value,)]], is_csv_raw=True).decode()
    assert ("'" in raw) is False


def test_prometheus_has_a_gauge_for_each_number() -> None:
    columns = (
        ResultColumn("by-what", "LowCardinality(String)"),
        ResultColumn("n", "UInt8"),
        ResultColumn("ratio", "Nullable(Float64)"),
    )
    blocks: list[list[tuple[Any, ...]]] = [
        [("a\\b", 1, 0.5), ('q"\n', 2, None)],
        [(None, 3, math.inf)],
    ]
    assert written("prometheus", columns, blocks).decode() == (
        "# TYPE octane_top_n gauge\n"
        'octane_top_n{by_what="a\\\\b"} 1\n'
        'octane_top_n{by_what="q\\"\\n"} 2\n'
        'octane_top_n{by_what=""} 3\n'
        "# TYPE octane_top_ratio gauge\n"
        'octane_top_ratio{by_what="a\\\\b"} 0.5\n'
        'octane_top_ratio{by_what=""} inf\n'
    )


def test_prometheus_without_number_is_not_acceptable() -> None:
    with pytest.raises(QueryError) as raised:
        written("prometheus", (ResultColumn("name", "String"),), [[("a",)]])
    assert raised.value.status == 406


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_arrow_keeps_types(name: str) -> None:
    columns = (
        *COLUMNS,
        ResultColumn("day", "Date"),
        ResultColumn("wide", "Int128"),
        ResultColumn("exact", "Nullable(Decimal(9, 2))"),
        ResultColumn("ats", "Array(DateTime64(3))"),
        ResultColumn("flag", "Nullable(Bool)"),
        ResultColumn("map", "Map(String, UInt8)"),
    )
    more = (date(2026, 2, 2), 2**100, Decimal("1.50"), [AT], True, {"a": 1})
    none: tuple[Any, ...] = (date(1970, 1, 1), -1, None, [], None, {})
    blocks = [
        [(*row, *rest) for row in block] for block, rest in zip(BLOCKS, (more, none), strict=True)
    ]
    body = io.BytesIO(written(name, columns, blocks))
    if name == "arrow":
        table = pyarrow.ipc.open_stream(body).read_all()
    else:
        table = pyarrow.parquet.read_table(body)
    assert table.column("n").type == pyarrow.uint64()
    assert table.column("at").type == pyarrow.timestamp("us", tz="UTC")
    rows = table.to_pylist()
    assert [row["name"] for row in rows] == [row["name"] for row in PLAIN]
    assert rows[0]["at"] == AT
    assert rows[0]["ats"] == [AT]
    assert rows[0]["day"] == date(2026, 2, 2)
    assert (rows[0]["wide"], rows[0]["exact"], rows[0]["map"]) == (str(2**100), "1.50", '{"a":1}')
    assert (rows[2]["exact"], rows[2]["flag"], rows[2]["x"]) == (None, None, math.inf)


@pytest.mark.parametrize("name", FORMATS)
def test_empty_result_is_written(name: str) -> None:
    body = written(name, blocks=[])
    match name:
        case "json":
            assert json.loads(body)["rows"] == []
        case "ndjson":
            assert body == b""
        case "csv":
            assert body == b"name,n,x,at,tags\r\n"
        case "prometheus":
            assert b"gauge" in body
        case "arrow":
            assert pyarrow.ipc.open_stream(body).read_all().num_rows == 0
        case "parquet":
            assert pyarrow.parquet.read_table(io.BytesIO(body)).num_rows == 0


def test_arrow_emits_row_groups_when_full() -> None:
    columns = (ResultColumn("n", "UInt32"),)
    rows = Rows(([(n,) for n in range(k, k + 2000)] for k in range(0, 50_000, 2000)), 50_000)
    out = writer(FORMATS["parquet"], columns, rows, Envelope({}, dict))
    parts = [out.begin(), *(out.rows(block) for block in rows), out.end()]
    assert sum(map(bool, parts[1:-1])) == 2
    file = pyarrow.parquet.ParquetFile(io.BytesIO(b"".join(parts)))
    assert file.num_row_groups == 3
    assert file.read().column("n").to_pylist() == list(range(50_000))


def test_rows_are_truncated_and_all_blocks_read() -> None:
    source = iter(BLOCKS)
    rows = Rows(source, 1)
    assert [len(block) for block in rows] == [1]
    assert (rows.count, rows.is_truncated) == (1, True)
    assert next(source, None) is None
    rows = Rows(BLOCKS, 3)
    assert [len(block) for block in rows] == [2, 1]
    assert rows.is_truncated is False


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("application/json", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("text/csv;q=0.5, application/x-ndjson", "ndjson"),
        ("APPLICATION/X-NDJSON; q=0.1", "ndjson"),
        ("text/csv; q=0, application/json", "json"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2",
            "prometheus",
        ),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/vnd.apache.arrow.stream", "arrow"),
    ],
)
def test_accept_selects_the_preferred_format(accept: str, name: str) -> None:
    assert choose(None, accept).name == name


def test_name_takes_precedence_over_accept() -> None:
    assert choose("csv", "application/json").name == "csv"


@pytest.mark.parametrize("accept", ["text/html", "text/csv;q=0", "application/json;q=none"])
def test_nothing_acceptable_is_406_with_available_types(accept: str) -> None:
    with pytest.raises(QueryError) as raised:
        choose(None, accept)
    assert raised.value.status == 406
    assert "text/csv" in str(raised.value.details["available"])


def test_unknown_name_is_422_with_known_names() -> None:
    with pytest.raises(QueryError, match="format must be one of json, ndjson, csv") as raised:
        choose("xml", "")
    assert raised.value.status == 422


def test_missing_pyarrow_is_501_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("octane_analytics.api.results.arrow.is_available", lambda: False)
    with pytest.raises(QueryError, match=r"pip install 'octane-analytics\[arrow\]'") as raised:
        choose("parquet", "")
    assert raised.value.status == 501
