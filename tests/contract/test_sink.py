"""Contract of BlockSink, for the fake and for a real ClickHouse."""

import contextlib
import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import DataRejected, NeedsOperator, Unavailable
from octane_analytics.events.event import Row
from octane_analytics.events.packed_columns import SecondsColumn, TextColumn
from octane_analytics.interfaces import BlockSink
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.types import RepeatRules
from tests.fakes.clickhouse import FakeClickHouse, FakeSink
from tests.fakes.clock import FakeClock

# The table drops rows older than ninety days.
NOW = int(datetime.now(UTC).timestamp())
LAST_MONTH = int((datetime.now(UTC).replace(day=1) - timedelta(days=3)).timestamp())


class Bench(Protocol):
    """Empty table that refuses events with the name `refused`."""

    sink: BlockSink

    def users(self) -> list[str]: ...
    def properties(self) -> list[str]: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self._table = FakeClickHouse(FakeClock())
        self._table.refuses = lambda row: row.event_name == "refused"
        self.sink: BlockSink = FakeSink(self._table)

    def users(self) -> list[str]:
        return sorted(row.user_id for row in self._table.rows)

    def properties(self) -> list[str]:
        return sorted(row.properties for row in self._table.rows)

    def stop(self) -> None:
        self._table.faults.push("insert", Unavailable("down"))

    def start(self) -> None:
        self._table.faults.clear()

    def close(self) -> None:
        pass


class ClickHouseBench:
    def __init__(self, engine: EmbeddedClickHouse) -> None:
        self._engine = engine
        self._settings = ClickHouseSettings(
            host=engine.host,
            port=engine.tcp_port,
            table=f"events_{uuid.uuid4().hex[:8]}",
            timeout_seconds=10.0,
        )
        self._name = schema.TableName(self._settings.database, self._settings.table)
        self._connection = ClickHouseSink(self._settings, client_name="tests")
        self._connection.execute(schema.create_table(self._name))
        self._connection.execute(
            f"ALTER TABLE {self._name} ADD CONSTRAINT accepted CHECK event_name != 'refused'"
        )
        self.sink: BlockSink = ClickHouseSink(self._settings, client_name="tests sink")

    def _column(self, name: str) -> list[str]:
        found = self._connection.select(f"SELECT {name} FROM {self._name} ORDER BY {name}")
        return [row[0] for row in found.rows]

    def users(self) -> list[str]:
        return self._column("user_id")

    def properties(self) -> list[str]:
        return self._column("properties")

    def stop(self) -> None:
        self._connection.close()
        self._engine.kill()

    def start(self) -> None:
        self._engine.start()

    def close(self) -> None:
        self.sink.close()
        self._connection.execute(f"DROP TABLE IF EXISTS {self._name}")
        self._connection.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    directory: Path = tmp_path_factory.mktemp("clickhouse")
    with EmbeddedClickHouse(directory) as started:
        yield started


class PackedBench(ClickHouseBench):
    """ClickHouse with packed columns, as a worker sends them."""

    def __init__(self, engine: EmbeddedClickHouse) -> None:
        super().__init__(engine)
        self.sink = PackingSink(self.sink)


class PackingSink:
    def __init__(self, sink: BlockSink) -> None:
        self._sink = sink

    def insert_block(
        self, columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
    ) -> bool | None:
        return self._sink.insert_block(_packed(columns), token, query_id)

    def missing_rows(self, columns: Sequence[Sequence[object]]) -> Sequence[int]:
        return self._sink.missing_rows(_packed(columns))

    def partitions(self, columns: Sequence[Sequence[object]]) -> Sequence[object]:
        return self._sink.partitions(_packed(columns))

    def repeat_rules(self, not_before: float | None = None) -> RepeatRules:
        return self._sink.repeat_rules(not_before)

    def close(self) -> None:
        self._sink.close()


def _packed(columns: Sequence[Sequence[object]]) -> Sequence[Sequence[object]]:
    timestamps, *texts = columns
    packed: list[Sequence[object]] = [timestamps]
    with contextlib.suppress(OverflowError):
        packed = [SecondsColumn(int(str(second)) for second in timestamps)]
    return packed + [TextColumn(_utf8(text) for text in column) for column in texts]


def _utf8(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()


@pytest.fixture(params=["fake", "clickhouse", "clickhouse packed"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "clickhouse": lambda: ClickHouseBench(request.getfixturevalue("engine")),
        "clickhouse packed": lambda: PackedBench(request.getfixturevalue("engine")),
    }
    made = make[request.param]()
    yield made
    made.close()


def row(user: str, *, name: str = "play", at: int = NOW, properties: bytes = b"{}") -> Row:
    return Row(at, "openstream", name, user, properties)


def block(*rows: Row) -> Sequence[Sequence[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def test_insert_returns_after_rows_are_stored(bench: Bench) -> None:
    bench.sink.insert_block(block(row("u1"), row("u2")), "t", None)
    assert bench.users() == ["u1", "u2"]


def test_block_with_known_token_is_dropped(bench: Bench) -> None:
    for _ in range(3):
        bench.sink.insert_block(block(row("u1"), row("u2")), "t", None)
    assert bench.users() == ["u1", "u2"]


def test_token_of_another_connection_is_known(bench: Bench) -> None:
    bench.sink.insert_block(block(row("u1")), "t", None)
    bench.sink.close()
    bench.sink.insert_block(block(row("u1")), "t", None)
    assert bench.users() == ["u1"]


def test_equal_rows_with_different_tokens_are_kept(bench: Bench) -> None:
    bench.sink.insert_block(block(row("u1")), "t", None)
    bench.sink.insert_block(block(row("u2")), "t", None)
    bench.sink.insert_block(block(row("u1")), "t/0-1", None)
    assert bench.users() == ["u1", "u1"]


def test_equal_blocks_without_token_are_kept(bench: Bench) -> None:
    bench.sink.insert_block(block(row("u1")), None, None)
    bench.sink.insert_block(block(row("u1")), None, None)
    assert bench.users() == ["u1", "u1"]


def test_repeated_block_is_dropped_in_all_partitions(bench: Bench) -> None:
    rows = block(row("u1"), row("u2", at=LAST_MONTH))
    bench.sink.insert_block(rows, "t", None)
    bench.sink.insert_block(rows, "t", None)
    assert bench.users() == ["u1", "u2"]


def test_large_block_is_inserted_as_one(bench: Bench) -> None:
    rows = block(*(row(f"{number:06}") for number in range(70_000)))
    bench.sink.insert_block(rows, "t", None)
    bench.sink.insert_block(rows, "t", None)
    assert len(bench.users()) == 70_000


def test_text_is_stored_byte_for_byte(bench: Bench) -> None:
    texts = ['{"a": "\\ud83d\\ude00"}', '{"b" :\t"é😀"}', '{"c":"\\u0000\x00\'"}', "{}"]
    texts += [f'{{"d":"{"x" * length}"}}' for length in (100, 1_000, 100_000)]
    bench.sink.insert_block(
        block(*(row("u", properties=text.encode()) for text in texts)), "t", None
    )
    assert bench.properties() == sorted(texts, key=str.encode)


def test_block_with_bad_row_is_refused_whole(bench: Bench) -> None:
    with pytest.raises(DataRejected):
        bench.sink.insert_block(block(row("u1"), row("u2", name="refused"), row("u3")), "t", None)
    assert bench.users() == []


def test_rest_of_refused_block_is_inserted(bench: Bench) -> None:
    with pytest.raises(DataRejected):
        bench.sink.insert_block(block(row("u1"), row("u2", name="refused")), "t", None)
    bench.sink.insert_block(block(row("u1")), "t/0-1", None)
    bench.sink.insert_block(block(row("u1")), "t", None)
    assert bench.users() == ["u1", "u1"], "a refused block stores no token"


@pytest.mark.parametrize("at", [-1, 2**32])
def test_value_of_wrong_type_is_refused(bench: Bench, at: int) -> None:
    with pytest.raises(DataRejected):
        bench.sink.insert_block(block(row("u1"), row("u2", at=at)), "t", None)
    bench.sink.insert_block(block(row("u1")), "t2", None)
    assert bench.users() == ["u1"]


def test_block_is_inserted_after_outage(bench: Bench) -> None:
    bench.sink.insert_block(block(row("u1")), "t1", None)
    bench.stop()
    with pytest.raises(Unavailable):
        bench.sink.insert_block(block(row("u2")), "t2", None)
    bench.start()
    bench.sink.insert_block(block(row("u2")), "t2", None)
    bench.sink.insert_block(block(row("u1")), "t1", None)
    assert bench.users() == ["u1", "u2"]


def test_missing_table_needs_operator(
    engine: EmbeddedClickHouse,
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, table="nowhere")
    with (
        ClickHouseSink(settings, client_name="tests") as sink,
        pytest.raises(NeedsOperator) as raised,
    ):
        sink.insert_block(block(row("u1")), "t", None)
    assert "schema apply" in str(raised.value)


def test_wrong_password_needs_operator(
    engine: EmbeddedClickHouse,
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, password="wrong")
    with (
        ClickHouseSink(settings, client_name="tests") as sink,
        pytest.raises(NeedsOperator) as raised,
    ):
        sink.insert_block(block(row("u1")), "t", None)
    assert "CLICKHOUSE_PASSWORD" in str(raised.value)
    assert "wrong" not in str(raised.value)


def test_port_of_another_protocol_needs_operator(
    engine: EmbeddedClickHouse,
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.http_port)
    with (
        ClickHouseSink(settings, client_name="tests") as sink,
        pytest.raises(Unavailable) as raised,
    ):
        sink.insert_block(block(row("u1")), "t", None)
    assert "CLICKHOUSE_PORT" in str(raised.value)


def test_client_fails_over_to_next_server(engine: EmbeddedClickHouse) -> None:
    settings = ClickHouseSettings(host=f"127.0.0.1:1,{engine.host}:{engine.tcp_port}")
    name = schema.TableName("default", f"events_{uuid.uuid4().hex[:8]}")
    settings = ClickHouseSettings(host=settings.host, table=name.table)
    with ClickHouseSink(settings, client_name="tests") as sink:
        sink.execute(schema.create_table(name))
        sink.insert_block(block(row("u1")), "t", None)
        assert sink.select(f"SELECT count() FROM {name}").rows == [(1,)]


def test_created_table_has_expected_schema(engine: EmbeddedClickHouse) -> None:
    name = schema.TableName("default", f"events_{uuid.uuid4().hex[:8]}")
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, table=name.table)
    with ClickHouseSink(settings, client_name="tests") as connection:
        assert connection.describe() is None
        connection.execute(schema.create_table(name, window=77))
        live = connection.describe()
        assert live is not None
        assert schema.differences(live) == []
        assert live.window == 77
        connection.execute(schema.alter_window(name, live.window_setting, 5))
        live = connection.describe()
        assert live is not None
        assert live.window == 5
