"""Packed blocks that are sent in the order of the table's key: ClickHouse does not sort them, and stores
the same as of unsorted ones."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.events import row_order
from octane_analytics.events.packed_columns import PackedColumn, new_columns
from octane_analytics.pipeline.repeated_insert import insert_repeated, pick_rows
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.compiled import require_compiled
from tests.support.rollup_states import assert_equal_to_rows

require_compiled("_ordering")

ROWS = 3 * row_order.MIN_ROWS
MONTH_SECONDS = 31 * 86_400
ENDS = (0, 1, 700, 2_000, ROWS)
"""Row numbers between which the rows are one chunk each."""
Row = tuple[int, bytes, bytes, bytes, bytes]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture
def sink(engine: EmbeddedClickHouse) -> Iterator[ClickHouseSink]:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with ClickHouseSink(settings, client_name="tests", sorts_rows=True) as connected:
        _create(connected)
        yield connected
        for name in ("view", "target", connected.table.table):
            connected.execute(f"DROP TABLE IF EXISTS {name} SYNC")


def _create(sink: ClickHouseSink) -> None:
    sink.execute(f"DROP TABLE IF EXISTS {sink.table} SYNC")
    sink.execute(schema.create_table(sink.table))
    sink.execute(f"SYSTEM STOP MERGES {sink.table}")


def _rows(seed: int) -> list[Row]:
    """Return rows of two months in random order; some keys and some rows are equal."""
    draw, now = random.Random(seed), int(time.time())
    return [
        (
            now - draw.randrange(9) - MONTH_SECONDS * (row % 5 == 0),
            draw.choice([b"openstream", b"open", b"\xc3\xa9tude", b"a" * 200]),
            draw.choice([b"video_start", b"video_heartbeat", b"search"]),
            b"user_%d" % (row // 2),
            b'{"watch_time":%d}' % draw.randrange(3),
        )
        for row in range(ROWS)
    ]


def _packed(rows: Sequence[Row]) -> tuple[PackedColumn[Any], ...]:
    columns = new_columns()
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        for first, end in pairwise(ENDS):
            column.extend(values[first:end])
    return columns


def _stored(sink: ClickHouseSink) -> list[tuple[Any, ...]]:
    """Return the rows of each part as they lie on disk."""
    return sink.select(
        f"SELECT _partition_id, {', '.join(schema.COLUMN_NAMES)} FROM {sink.table} "
        "ORDER BY _part, _part_offset"
    ).rows


def _hashes(sink: ClickHouseSink) -> list[tuple[Any, ...]]:
    return sink.select(
        "SELECT partition_id, rows, hash_of_all_files FROM system.parts "
        "WHERE active AND table = {table:String} ORDER BY partition_id",
        {"table": sink.table.table},
    ).rows


def _count(sink: ClickHouseSink, event: str) -> int:
    found = sink.select(
        "SELECT value FROM system.events WHERE event = {event:String}", {"event": event}
    ).rows
    return int(found[0][0]) if found else 0


def _sorted_blocks(sink: ClickHouseSink) -> int:
    return _count(sink, "MergeTreeDataWriterBlocksAlreadySorted")


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_sorted_block_leaves_the_same_parts(
    engine: EmbeddedClickHouse,
    sink: ClickHouseSink,
    monkeypatch: pytest.MonkeyPatch,
    compression: str,
) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, compression=compression)
    columns = _packed(_rows(1))
    with ClickHouseSink(settings, client_name="tests", sorts_rows=True) as sorting:
        before = _sorted_blocks(sink)
        sorting.insert_block(columns, "token", None)
        assert _sorted_blocks(sink) - before == 2, "one for each month"
        rows, hashes = _stored(sink), _hashes(sink)
        assert sorted(row[1:] for row in rows) == sorted(
            sink.select(f"SELECT {', '.join(schema.COLUMN_NAMES)} FROM {sink.table}").rows
        )
        _create(sink)
        monkeypatch.setattr(row_order, "_ordering", None)
        sorting.insert_block(columns, "token", None)
    assert _sorted_blocks(sink) - before == 2, "the server has sorted both blocks"
    assert (_stored(sink), _hashes(sink)) == (rows, hashes)
    assert len(rows) == ROWS


def test_rollups_of_sorted_block_equal_its_rows(sink: ClickHouseSink) -> None:
    wanted = rollups.of_sets(rollups.DEFAULT_SETS)
    sink.execute(rollups.alter_settings(sink.table))
    for rollup in wanted:
        sink.execute(rollups.add(sink.table, rollup))
    before = _sorted_blocks(sink)
    sink.insert_block(_packed(_rows(2)), "token", None)
    assert _sorted_blocks(sink) - before == 2
    assert_equal_to_rows(sink, wanted)


def test_repeat_in_another_order_inserts_nothing(
    sink: ClickHouseSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a recovery, which reads partitions in another order, of a host with or without a compiler."""
    sink.execute(
        "CREATE TABLE target (user_id String, n UInt64) ENGINE = MergeTree ORDER BY user_id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    sink.execute(
        f"CREATE MATERIALIZED VIEW view TO target AS SELECT user_id, 1 AS n FROM {sink.table}"
    )
    rows = _rows(3)
    sink.insert_block(_packed(rows), "token", None)
    expected = sink.select("SELECT user_id, sum(n) FROM target GROUP BY 1 ORDER BY 1").rows
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        if seed == 2:
            monkeypatch.setattr(row_order, "_ordering", None)
        sink.insert_block(_packed(rows), "token", None)
        insert_repeated(sink, _packed(rows), "token")
        found = sink.select("SELECT user_id, sum(n) FROM target GROUP BY 1 ORDER BY 1").rows
        assert found == expected
        assert len(_stored(sink)) == ROWS


def test_missing_rows_of_sorted_block_are_counted(sink: ClickHouseSink) -> None:
    rows = _rows(4)
    columns = _packed(rows)
    there = [row for row in range(ROWS) if row % 3]
    sink.insert_block(pick_rows(columns, there), "other", None)
    insert_repeated(sink, columns, "token")
    stored = sorted(row[1:] for row in _stored(sink))
    texts = [tuple(map(bytes.decode, row[1:])) for row in rows]
    assert sorted(row[1:] for row in stored) == sorted(texts)
    assert sink.missing_rows(columns) == []


def test_columns_of_other_types_keep_rows_together(sink: ClickHouseSink) -> None:
    """The driver packs such columns itself, so that nothing is sorted."""
    sink.execute(f"ALTER TABLE {sink.table} MODIFY COLUMN user_id LowCardinality(String)")
    rows = _rows(5)
    sink.insert_block(_packed(rows), "token", None)
    texts = sorted(tuple(map(bytes.decode, row[1:])) for row in rows)
    assert sorted(row[2:] for row in _stored(sink)) == texts


def test_sink_sorts_only_where_asked(engine: EmbeddedClickHouse, sink: ClickHouseSink) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    before = _sorted_blocks(sink)
    with ClickHouseSink(settings, client_name="tests") as other:
        other.insert_block(_packed(_rows(7)), "token", None)
    assert _sorted_blocks(sink) == before
    with ClickHouseShards(settings, client_name="tests", sorts_rows=True) as shards:
        shards.sink("").insert_block(_packed(_rows(7)), "next", None)
    assert _sorted_blocks(sink) - before == 2
    assert len(_stored(sink)) == 2 * ROWS


def test_other_sorting_key_sorts_again(sink: ClickHouseSink) -> None:
    sink.execute(f"DROP TABLE {sink.table} SYNC")
    other = schema.create_table(sink.table).replace(schema.SORTING_KEY, "user_id, timestamp")
    sink.execute(other)
    sink.execute(f"SYSTEM STOP MERGES {sink.table}")
    rows = _rows(6)
    sink.insert_block(_packed(rows), "token", None)
    stored = _stored(sink)
    assert [(row[0], row[4], row[1]) for row in stored] == sorted(
        (row[0], row[4], row[1]) for row in stored
    )
    texts = sorted(tuple(map(bytes.decode, row[1:])) for row in rows)
    assert sorted(row[2:] for row in stored) == texts
