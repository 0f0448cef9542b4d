"""Contract of BlockSink, for the fake and for a real ClickHouse, plain and replicated."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from octane_analytics.clickhouse import row_lookups, schema
from octane_analytics.clickhouse.inserts import ClickHouseSink, server_query_id
from octane_analytics.clickhouse.shard_sink import ShardSink
from octane_analytics.errors import ConfigError, DataRejected, NeedsOperator, Unavailable
from octane_analytics.events.event import Row
from octane_analytics.events.packed_columns import SecondsColumn, TextColumn
from octane_analytics.interfaces import BlockSink
from octane_analytics.pipeline.repeated_insert import insert_in_parts, insert_repeated
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.types import RepeatRules
from tests.fakes.block_table import FakeBlockSink, FakeBlockTable
from tests.support import replicated_clickhouse
from tests.support.command import wait_until

NOW = int(time.time())
LAST_MONTH = int((datetime.now(UTC).replace(day=1) - timedelta(days=3)).timestamp())
DAY = 86_400
Rows = Sequence[Sequence[object]]


class Bench(Protocol):
    """Empty table that refuses events with the name `refused`."""

    sink: BlockSink

    def users(self) -> list[str]: ...
    def lose_rows(self, users: str) -> None:
        """Remove the rows of these users; the table keeps their tokens."""
        ...

    def accept_all(self) -> None: ...
    def occupy(self, query_id: str) -> contextlib.AbstractContextManager[None]:
        """Run another statement with this id."""
        ...

    def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self._table = FakeBlockTable()
        self._table.refuses = lambda row: row.event_name == "refused"
        self.sink: BlockSink = FakeBlockSink(self._table)

    def users(self) -> list[str]:
        return sorted(row.user_id for row in self._table.rows)

    def lose_rows(self, users: str) -> None:
        self._table.rows = [row for row in self._table.rows if row.user_id not in users]

    def accept_all(self) -> None:
        self._table.refuses = lambda row: False

    @contextlib.contextmanager
    def occupy(self, query_id: str) -> Iterator[None]:
        self._table.running.add(query_id)
        yield
        self._table.running.clear()

    def close(self) -> None:
        pass


class ClickHouseBench:
    def __init__(self, engine: EmbeddedClickHouse, *, is_replicated: bool = False) -> None:
        self._settings = ClickHouseSettings(
            host=engine.host,
            port=engine.tcp_port,
            table=f"events_{uuid.uuid4().hex[:8]}",
            timeout_seconds=10.0,
        )
        self._connection = ClickHouseSink(self._settings, client_name="tests")
        self._name = self._connection.table
        create = replicated_clickhouse.create_replicated if is_replicated else schema.create_table
        self._connection.execute(create(self._name))
        self._connection.execute(
            f"ALTER TABLE {self._name} ADD CONSTRAINT accepted CHECK event_name != 'refused'"
        )
        self.sink: BlockSink = ClickHouseSink(self._settings, client_name="tests sink")

    def users(self) -> list[str]:
        found = self._connection.select(f"SELECT user_id FROM {self._name} ORDER BY user_id")
        return [user for (user,) in found.rows]

    def lose_rows(self, users: str) -> None:
        self._connection.execute(
            f"ALTER TABLE {self._name} DELETE WHERE position('{users}', user_id) > 0 "
            "SETTINGS mutations_sync = 1"
        )

    def accept_all(self) -> None:
        self._connection.execute(f"ALTER TABLE {self._name} DROP CONSTRAINT accepted")

    @contextlib.contextmanager
    def occupy(self, query_id: str) -> Iterator[None]:
        known = server_query_id(self._name, query_id)

        def run() -> None:
            with ClickHouseSink(self._settings, client_name="tests") as other:
                other.select("SELECT sleep(2)", query_id=known)

        thread = threading.Thread(target=run)
        thread.start()
        running = f"SELECT count() FROM system.processes WHERE query_id = '{known}'"
        wait_until(lambda: self._connection.select(running).rows == [(1,)])
        yield
        thread.join()

    def close(self) -> None:
        self.sink.close()
        self._connection.execute(f"DROP TABLE {self._name} SYNC")
        self._connection.close()


class PackedBench(ClickHouseBench):
    """ClickHouse with packed columns and the sink of a shard, as a worker has them."""

    def __init__(self, engine: EmbeddedClickHouse) -> None:
        super().__init__(engine)
        self.sink = PackingSink(ShardSink(self._settings, client_name="tests sink"))


class PackingSink:
    def __init__(self, sink: BlockSink) -> None:
        self._sink = sink

    def insert_block(self, columns: Rows, token: str | None, query_id: str | None) -> bool | None:
        return self._sink.insert_block(_packed(columns), token, query_id)

    def missing_rows(self, columns: Rows) -> Sequence[int]:
        return self._sink.missing_rows(_packed(columns))

    def partitions(self, columns: Rows) -> Sequence[object]:
        return self._sink.partitions(_packed(columns))

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        return self._sink.repeat_rules(not_before)

    def close(self) -> None:
        self._sink.close()


def _packed(columns: Rows) -> Rows:
    timestamps, *texts = columns
    packed: list[Sequence[object]] = [timestamps]
    with contextlib.suppress(OverflowError):
        packed = [SecondsColumn(int(str(second)) for second in timestamps)]
    return packed + [TextColumn(_utf8(text) for text in column) for column in texts]


def _utf8(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with replicated_clickhouse.started(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(params=["fake", "plain", "plain packed", "replicated"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "plain": lambda: ClickHouseBench(request.getfixturevalue("engine")),
        "plain packed": lambda: PackedBench(request.getfixturevalue("engine")),
        "replicated": lambda: ClickHouseBench(
            request.getfixturevalue("engine"), is_replicated=True
        ),
    }
    made = make[request.param]()
    yield made
    made.close()


def row(user: str, *, name: str = "play", at: int = NOW) -> Row:
    return Row(at, "openstream", name, user, b'{"a":"\xc3\xa9"}')


def block(*rows: Row) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def events(users: str, *, at: int = NOW) -> Rows:
    return block(*(row(user, at=at) for user in users))


def test_insert_reports_whether_rows_were_dropped(bench: Bench) -> None:
    assert bench.sink.insert_block(events("ab"), "first", "batch") is True
    assert bench.sink.insert_block(events("cd"), "first", "batch") is False
    assert bench.sink.insert_block(events("c"), "second", "batch") is True
    # Another partition of the table: stored there, and dropped beside it.
    assert bench.sink.insert_block(events("e", at=LAST_MONTH), "first", "batch") is True
    both = block(row("f"), row("g", at=LAST_MONTH))
    assert bench.sink.insert_block(both, "second", "batch") is False
    assert bench.users() == list("abceg")


def test_packets_are_counted_once_by_each_insert(engine: EmbeddedClickHouse) -> None:
    """The driver sets up the same connection again for each statement."""
    bench = ClickHouseBench(engine)
    assert isinstance(bench.sink, ClickHouseSink)
    for number in range(5):
        bench.sink.insert_block(events("ab"), f"{number}", "batch")
        assert bench.sink._connected().inserted_rows == 2
    bench.close()


def test_block_is_stored_once_per_token(bench: Bench) -> None:
    for token in ("t", "t", "u", "t"):
        bench.sink.insert_block(events("ab"), token, token)
    assert bench.users() == ["a", "a", "b", "b"]


def test_equal_blocks_without_token_are_kept(bench: Bench) -> None:
    for _ in range(2):
        bench.sink.insert_block(events("a"), None, None)
    assert bench.users() == ["a", "a"]


def test_token_counts_for_each_month_alone(bench: Bench) -> None:
    bench.sink.insert_block(events("a"), "t", "t")
    bench.sink.insert_block(block(row("a"), row("b", at=LAST_MONTH), row("c")), "t", "t")
    assert bench.users() == ["a", "b"]


def test_refused_block_stores_neither_rows_nor_token(bench: Bench) -> None:
    refused = block(row("a", at=LAST_MONTH), row("b"), row("c", name="refused"))
    with pytest.raises(DataRejected):
        bench.sink.insert_block(refused, "t", "t")
    assert bench.users() == []
    bench.sink.insert_block(events("b"), "t", "t")
    assert bench.users() == ["b"]


@pytest.mark.parametrize("at", [-1, 2**32])
def test_value_of_wrong_type_is_refused(bench: Bench, at: int) -> None:
    with pytest.raises(DataRejected):
        bench.sink.insert_block(block(row("a"), row("b", at=at)), "t", "t")
    bench.sink.insert_block(events("a"), "t", "t")
    assert bench.users() == ["a"]


def test_missing_rows_are_counted_among_equal_ones(bench: Bench) -> None:
    rows = block(row("a"), row("b"), row("a"), row("c", at=LAST_MONTH), row("a"))
    assert list(bench.sink.missing_rows(rows)) == [0, 1, 2, 3, 4]
    bench.sink.insert_block(events("aa"), "t", "t")
    assert list(bench.sink.missing_rows(rows)) == [1, 3, 4]
    bench.sink.insert_block(block(row("c", at=LAST_MONTH), row("a"), row("b")), "u", "u")
    assert list(bench.sink.missing_rows(rows)) == []


def test_row_that_differs_anywhere_is_missing(bench: Bench) -> None:
    base = row("a")
    bench.sink.insert_block(block(base), "t", "t")
    others = (
        base._replace(timestamp=NOW - 1),
        base._replace(app_id="o"),
        base._replace(event_name="PLAY"),
        base._replace(user_id="a "),
        base._replace(properties=b"{}"),
    )
    assert list(bench.sink.missing_rows(block(base, *others))) == [1, 2, 3, 4, 5]


def test_rows_past_ttl_are_never_missing(bench: Bench) -> None:
    oldest = NOW - 90 * DAY
    rows = block(
        row("a", at=oldest - DAY), row("b", at=oldest + 30), row("c", at=oldest + DAY), row("d")
    )
    assert list(bench.sink.missing_rows(rows)) == [2, 3]


def test_rows_are_counted_in_chunks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_lookups, "CHUNK_ROWS", 7)
    users = [f"{number % 40}" for number in range(100)]
    rows = block(*(row(user, at=NOW - number % 8) for number, user in enumerate(users)))
    stored = [[value for at, value in enumerate(column) if at % 3] for column in rows]
    bench.sink.insert_block(stored, "t", "t")
    assert len(bench.sink.missing_rows(rows)) == 34
    bench.sink.insert_block(
        [[column[at] for at in bench.sink.missing_rows(rows)] for column in rows], "u", "u"
    )
    assert list(bench.sink.missing_rows(rows)) == []
    assert sorted(bench.users()) == sorted(users)


def test_query_id_keeps_out_second_statement(bench: Bench) -> None:
    with bench.occupy("q"):
        bench.sink.insert_block(events("a"), "other", "other")
        for _ in range(2):
            with pytest.raises(Unavailable, match="another insert of this batch is running"):
                bench.sink.insert_block(events("b"), "t", "q")
    bench.sink.insert_block(events("b"), "t", "q")
    assert bench.users() == ["a", "b"]


def test_query_id_is_free_after_each_insert(bench: Bench) -> None:
    for number in range(50):
        bench.sink.insert_block(events("a"), str(number), "q")
        with contextlib.suppress(DataRejected):
            bench.sink.insert_block(block(row("b", name="refused")), f"r{number}", "q")
    assert len(bench.users()) == 50


def test_repeat_inserts_the_shortfall(bench: Bench) -> None:
    rows = block(row("a"), row("b"), row("b"), row("c", at=LAST_MONTH))
    bench.sink.insert_block(block(row("b"), row("c", at=LAST_MONTH)), "part", "part")
    for _ in range(2):
        insert_repeated(bench.sink, rows, "t")
        assert bench.users() == ["a", "b", "b", "c"]


def test_repeat_of_invisible_rows_stores_them_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row policy, for example, hides the rows from the user."""
    monkeypatch.setattr(bench.sink, "missing_rows", lambda columns: list(range(len(columns[0]))))
    with pytest.raises(ConfigError, match="does not show them"):
        insert_repeated(bench.sink, events("ab"), "t")
    assert bench.users() == ["a", "b"]


@pytest.mark.parametrize("lost", ["a", "c", "ab", "abc"])
def test_repeat_restores_rows_whose_token_is_known(bench: Bench, lost: str) -> None:
    rows = block(row("a"), row("b"), row("b"), row("c", at=LAST_MONTH))
    bench.sink.insert_block(rows, "t", "t")
    for _ in range(3):
        bench.lose_rows(lost)
        insert_repeated(bench.sink, rows, "t")
        assert bench.users() == ["a", "b", "b", "c"]


def test_parts_of_refused_block_are_all_inserted(bench: Bench) -> None:
    rows = block(row("a"), row("b", at=LAST_MONTH), row("c", name="refused"), row("d"), row("a"))
    refused: dict[int, str] = {}
    for is_repeat in (False, True):
        insert_in_parts(bench.sink, rows, "t", part_token, is_repeat=is_repeat, refused=refused)
        assert bench.users() == ["a", "a", "b", "d"]
        assert list(refused) == [2]


def test_refused_block_accepted_later_is_whole(bench: Bench) -> None:
    rows = block(row("a"), row("b"), row("c", name="refused"), row("d", at=LAST_MONTH))
    insert_in_parts(bench.sink, rows, "t", part_token, is_repeat=False, refused={})
    bench.accept_all()
    for _ in range(2):
        insert_repeated(bench.sink, rows, "t")
        assert bench.users() == ["a", "b", "c", "d"]


def test_large_block_is_inserted_as_one(bench: Bench) -> None:
    rows = block(*(row(f"{number:06}") for number in range(70_000)))
    for _ in range(2):
        bench.sink.insert_block(rows, "t", "t")
    assert len(bench.users()) == 70_000


def test_text_is_stored_byte_for_byte(bench: Bench) -> None:
    texts = ["é😀", "\x00'", "a\tb\\", " ", *("x" * length for length in (100, 1_000, 100_000))]
    rows = block(*(row(text) for text in texts))
    bench.sink.insert_block(rows, "t", "t")
    assert bench.users() == sorted(texts, key=str.encode)
    assert list(bench.sink.missing_rows(rows)) == []


def test_rows_of_one_month_share_a_partition(bench: Bench) -> None:
    rows = block(row("a"), row("b", at=LAST_MONTH), row("c"), row("d", at=LAST_MONTH))
    first, second, third, fourth = bench.sink.partitions(rows)
    assert first == third != second == fourth


@pytest.mark.parametrize("at", [NOW, LAST_MONTH], ids=["one month", "two months"])
def test_refused_block_claims_its_token(bench: Bench, at: int) -> None:
    """A process that is suspended before it inserts the whole block may do so much later."""
    rows = block(row("a"), row("b", at=at), row("c", name="refused"), row("d", at=at))
    insert_in_parts(bench.sink, rows, "t", part_token, is_repeat=False, refused={})
    bench.accept_all()
    bench.sink.insert_block(rows, "t", "t")
    assert bench.users() == ["a", "b", "d"]


def part_token(first: int, end: int) -> str:
    return f"t/{first}-{end}"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"table": "nowhere"}, "schema apply"),
        ({"password": "wrong"}, "CLICKHOUSE_PASSWORD"),
        ({"port": None}, "CLICKHOUSE_PORT"),
    ],
)
def test_wrong_setting_needs_operator(
    engine: EmbeddedClickHouse, changes: dict[str, Any], expected: str
) -> None:
    if "port" in changes:
        changes = {"port": engine.http_port}
    settings = replace(ClickHouseSettings(host=engine.host, port=engine.tcp_port), **changes)
    with ClickHouseSink(settings, client_name="tests") as sink:
        for call in (
            lambda: sink.insert_block(events("a"), "t", "t"),
            lambda: sink.missing_rows(events("a")),
            lambda: sink.repeat_rules(),
            lambda: sink.partitions(events("a")),
        ):
            with pytest.raises(NeedsOperator, match=expected) as raised:
                call()
            assert "wrong" not in str(raised.value)


def test_block_is_inserted_after_outage(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path / "clickhouse") as server:
        settings = ClickHouseSettings(host=server.host, port=server.tcp_port)
        with ClickHouseSink(settings, client_name="tests") as sink:
            sink.execute(schema.create_table(sink.table))
            sink.insert_block(events("a"), "t1", "q")
            server.kill()
            for call in (
                lambda: sink.insert_block(events("b"), "t2", "q"),
                lambda: sink.missing_rows(events("a")),
                lambda: sink.repeat_rules(),
                lambda: sink.partitions(events("a")),
            ):
                with pytest.raises(Unavailable):
                    call()
            server.start()
            sink.insert_block(events("b"), "t2", "q")
            sink.insert_block(events("a"), "t1", "q")
            found = sink.select(f"SELECT user_id FROM {sink.table} ORDER BY 1").rows
            assert found == [("a",), ("b",)]


def test_created_table_has_expected_schema(engine: EmbeddedClickHouse) -> None:
    settings = ClickHouseSettings(
        host=engine.host, port=engine.tcp_port, table=f"events_{uuid.uuid4().hex[:8]}"
    )
    with ClickHouseSink(settings, client_name="tests") as connection:
        assert connection.describe() is None
        connection.execute(schema.create_table(connection.table, window=77))
        live = connection.describe()
        assert live is not None
        assert (schema.differences(live), live.window) == ([], 77)
        connection.execute(schema.alter_window(connection.table, live.window_setting, 5))
        live = connection.describe()
        assert live is not None
        assert live.window == 5
