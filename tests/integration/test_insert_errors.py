"""Classification of insert errors by code and ClickHouse's own text, never by a row's text."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import DataRejected, NeedsOperator, OctaneError, Unavailable
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.clickhouse_error_codes import (
    DATA_CASES,
    UNDECIDED_CASES,
    Bench,
    Case,
    provoke,
)

DATA_CODES = {6, 12, 27, 32, 38, 41, 69, 70, 72, 117, 128, 130, 131, 153, 190, 349, 376, 395, 407, 427,
              454, 467, 469, 675, 676, 691}  # fmt: skip
QUOTABLE = [case for case in DATA_CASES if case.is_quotable]
UUID = "01234567-89ab-cdef-0123-456789abcdef"
PARTS = [
    ": while pushing to view ",
    "while pushing to view quoted.watching",
    ": while pushing to view quoted.watching",
    f": while pushing to view quoted.watching ({UUID})",
    ". Stack trace:\n\n0. ",
    "Stack trace:",
    "If you use ClickHouse Cloud",
    "Too many partitions for single INSERT block",
    "DB::Exception: ",
    "Code: 241. ",
    "'",
    '"',
    "`",
    "\\",
    "\n",
    "\0",
    "é",
    "😀",
    ". ",
]
HOSTILE = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=8).map("".join)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture
def sink(engine: EmbeddedClickHouse) -> Iterator[ClickHouseSink]:
    address = {"host": engine.host, "port": engine.tcp_port}
    with ClickHouseSink(ClickHouseSettings(**address), client_name="tests") as root:  # type: ignore[arg-type]
        root.execute("CREATE DATABASE quoted ENGINE = Atomic")
        quoted = ClickHouseSettings(**address, database="quoted")  # type: ignore[arg-type]
        with ClickHouseSink(quoted, client_name="tests") as connected:
            yield connected
        root.execute("DROP DATABASE quoted")


def _watch(sink: ClickHouseSink, select: str = "SELECT user_id", name: str = "watching") -> None:
    sink.execute(
        f"CREATE MATERIALIZED VIEW {name} ENGINE = MergeTree ORDER BY tuple() "
        f"AS {select} FROM {sink.table}"
    )


def _rows(sink: ClickHouseSink) -> int:
    return int(sink.select(f"SELECT count() FROM {sink.table}").rows[0][0])


def test_errors_raised_by_values_are_data_errors(sink: ClickHouseSink) -> None:
    found = list(provoke(sink, DATA_CASES))
    assert [(f.case, f.code, f.message) for f in found if f.kind != "data"] == []
    assert {f.code for f in found} == DATA_CODES


def test_errors_of_wrong_definitions_are_not_data_errors(sink: ClickHouseSink) -> None:
    assert {f.kind for f in provoke(sink, UNDECIDED_CASES)} == {"wait"}


@pytest.mark.parametrize("case", QUOTABLE, ids=lambda case: f"{case.kind} {case.expression}")
def test_text_of_row_does_not_affect_classification(sink: ClickHouseSink, case: Case) -> None:
    bench = Bench(sink)
    assert bench.define(case)
    _watch(sink)
    uuid = sink.select("SELECT uuid FROM system.tables WHERE name = 'watching'").rows[0][0]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HOSTILE)
    def classify(text: str) -> None:
        found = bench.insert(case, case.text + text.replace(UUID, str(uuid)))
        assert found.kind == "data", found

    classify()
    assert _rows(sink) == 0


@pytest.mark.parametrize("expression", ["reverse(user_id)", "substring(user_id, 2)"])
def test_message_with_invalid_utf8_is_classified(sink: ClickHouseSink, expression: str) -> None:
    bench = Bench(sink)
    case = Case(f"toUInt64({expression})", "UInt64", "éé")
    assert bench.define(case)
    found = bench.insert(case)
    assert (found.kind, found.code) == ("data", 6)
    assert "\\x" in found.message
    waiting = Case(f"toUInt64(file({expression}))", "UInt64", "éé")
    bench.undefine(case)
    assert bench.define(waiting)
    assert bench.insert(waiting).kind == "wait"


@pytest.mark.parametrize(
    "name",
    ["watching", "`it's`", "`a``b: c`", "`select`", "`a  b`", "` a `", "`a\u00a0b\u2003`"]
    + [f"`a{escape}b`" for escape in (r"\b", r"\f", r"\n", r"\r", r"\t", r"\\", r"\`")],
)
def test_error_of_view_needs_operator(sink: ClickHouseSink, name: str) -> None:
    bench = Bench(sink)
    _watch(sink, "SELECT toUInt64(user_id) AS n", name)
    error = _error(sink, "Stack trace: while")
    assert isinstance(error, NeedsOperator)
    assert "materialized view quoted." in str(error)
    sink.execute(f"DROP VIEW {name} SYNC")
    assert bench.insert(Case("", "", "1")).kind == "stored"


def test_error_of_chained_view_needs_operator(sink: ClickHouseSink) -> None:
    Bench(sink)
    sink.execute("CREATE TABLE copies (u String) ENGINE = MergeTree ORDER BY u")
    sink.execute(
        f"CREATE MATERIALIZED VIEW first TO copies AS SELECT user_id AS u FROM {sink.table}"
    )
    sink.execute(
        "CREATE MATERIALIZED VIEW second ENGINE = Memory AS SELECT toUInt64(u) AS n FROM copies"
    )
    error = _error(sink, "x: while pushing to view quoted.other")
    assert isinstance(error, NeedsOperator)
    assert "materialized view quoted.first" in str(error)


@pytest.mark.parametrize("depth", [1, 2])
def test_view_with_dropped_target_names_missing_table(sink: ClickHouseSink, depth: int) -> None:
    Bench(sink)
    source = str(sink.table)
    for number in range(1, depth + 1):
        sink.execute(
            f"CREATE TABLE target{number} (user_id String) ENGINE = MergeTree ORDER BY user_id"
        )
        sink.execute(
            f"CREATE MATERIALIZED VIEW view{number} TO target{number} AS SELECT user_id FROM {source}"
        )
        source = f"target{number}"
    sink.execute(f"DROP TABLE {source} SYNC")
    error = _error(sink, "u")
    assert isinstance(error, NeedsOperator)
    assert f"view quoted.view{depth} needs the table quoted.{source}" in str(error)
    assert "schema apply" not in str(error)


def test_too_many_partitions_is_data_error(sink: ClickHouseSink) -> None:
    Bench(sink)
    months = [number * 31 * 86_400 for number in range(1, 200)]
    texts: list[list[object]] = [[text] * len(months) for text in ("a", "e", "u", "{}")]
    with pytest.raises(DataRejected, match="Too many partitions"):
        sink.insert_block([months, *texts], "token", None)


def test_missing_table_is_named(sink: ClickHouseSink) -> None:
    error = _error(sink, "u")
    assert isinstance(error, NeedsOperator)
    assert "schema apply" in str(error)


def _error(sink: ClickHouseSink, user: str) -> OctaneError:
    columns: list[list[object]] = [[1_700_000_000], ["a"], ["e"], [user], ["{}"]]
    with pytest.raises(Unavailable) as raised:
        sink.insert_block(columns, "token", None)
    return raised.value
