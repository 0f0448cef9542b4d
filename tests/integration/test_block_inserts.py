"""Blocks and their repeats on real servers: query ids, TTLs, engines, replicas, views, kills."""

import contextlib
import random
import shutil
import string
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import row_lookups, schema
from octane_analytics.clickhouse.inserts import ClickHouseSink, server_query_id
from octane_analytics.errors import NeedsOperator, StatementRejected, Unavailable
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.worker.preflight import check_table
from tests.support import replicated_clickhouse
from tests.support.command import wait_until

NOW = int(time.time())
DAY = 86_400
MONTH = 31 * DAY
TABLE = "ai_analytics_events"
HASTY = User("hasty", settings={"replace_running_query": 1})
PARTIAL = User("partial", settings={"max_rows_in_set": 1, "set_overflow_mode": "break"})
CUT = User("cut", settings={"limit": 1, "offset": 1, "use_query_cache": 1})
BARE = User("bare", grants=[f"GRANT SELECT, INSERT ON default.{TABLE}"])
WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    directory = tmp_path_factory.mktemp("clickhouse")
    with replicated_clickhouse.started(directory, HASTY, BARE, PARTIAL, CUT) as server:
        yield server


@pytest.fixture
def sink(engine: EmbeddedClickHouse) -> Iterator[ClickHouseSink]:
    """Sink without its table."""
    with ClickHouseSink(_settings(engine), client_name="tests") as connected:
        yield connected
        for name in ("view", "view2", "target", "other", TABLE):
            connected.execute(f"DROP TABLE IF EXISTS {name} SYNC")


def _settings(engine: EmbeddedClickHouse, user: str = "default") -> ClickHouseSettings:
    return ClickHouseSettings(
        host=engine.host, port=engine.tcp_port, user=user, timeout_seconds=4.0
    )


def _block(users: str, *, seconds_ago: int = 0) -> list[list[object]]:
    rows, at = len(users), NOW - seconds_ago
    return [[at] * rows, ["app"] * rows, ["e"] * rows, list(users), ["{}"] * rows]


def _joined(*blocks: Sequence[Sequence[object]]) -> list[list[object]]:
    return [
        [value for column in columns for value in column] for columns in zip(*blocks, strict=True)
    ]


def _users(sink: ClickHouseSink, table: str = TABLE) -> str:
    found = sink.select(f"SELECT user_id FROM {table} ORDER BY user_id").rows
    return "".join(user for (user,) in found)


def _create(sink: ClickHouseSink, *, engine: str = "MergeTree()", ttl: str = schema.TTL) -> None:
    statement = schema.create_table(sink.table).replace("MergeTree()", engine)
    if engine.startswith("Replicated"):
        statement = statement.partition("\nSETTINGS")[0]
    sink.execute(statement.replace(f"TTL {schema.TTL}", f"TTL {ttl}" if ttl else ""))


def _create_view(sink: ClickHouseSink) -> None:
    sink.execute(
        f"CREATE TABLE target (user_id String, n UInt64) ENGINE = MergeTree ORDER BY user_id {WINDOW}"
    )
    sink.execute(
        f"CREATE MATERIALIZED VIEW view TO target AS SELECT user_id, count() AS n FROM {TABLE} "
        "GROUP BY user_id"
    )


def _in_view(sink: ClickHouseSink) -> int:
    return int(sink.select("SELECT sum(n) FROM target").rows[0][0])


def _lose_rows(sink: ClickHouseSink, condition: str = "1") -> None:
    """Remove rows whose tokens stay, as after a kill between token and part."""
    sink.execute(f"ALTER TABLE {TABLE} DELETE WHERE {condition} SETTINGS mutations_sync = 1")


@pytest.mark.parametrize("user", ["default", "hasty"])
def test_query_id_is_unique_among_all_users(
    engine: EmbeddedClickHouse, sink: ClickHouseSink, user: str
) -> None:
    _create(sink)
    query_id = server_query_id(sink.table, "batch")
    failures: list[Exception] = []

    def run() -> None:
        with ClickHouseSink(_settings(engine), client_name="tests") as other:
            try:
                other.select("SELECT sleep(2)", query_id=query_id)
            except StatementRejected as error:
                failures.append(error)

    running = threading.Thread(target=run)
    running.start()
    found = f"SELECT count() FROM system.processes WHERE query_id = '{query_id}'"
    wait_until(lambda: sink.select(found).rows == [(1,)])
    with (
        ClickHouseSink(_settings(engine, user), client_name="tests") as other,
        pytest.raises(Unavailable, match="another insert of this batch is running") as raised,
    ):
        other.insert_block(_block("a"), "token", "batch")
    assert isinstance(raised.value.__cause__, driver_errors.ServerException)
    assert raised.value.__cause__.code == 216
    running.join()
    assert failures == [], "the running statement was cancelled"
    assert _users(sink) == ""


def test_query_id_holds_no_text_of_the_token(sink: ClickHouseSink) -> None:
    secret = "octane2/it's/<script>\n\0é"
    found = server_query_id(sink.table, secret)
    assert set(found) <= {*string.ascii_lowercase, *string.digits, "-"}
    assert len(found) < 64
    others = {
        server_query_id(sink.table, "other"),
        server_query_id(schema.TableName("default", "other"), secret),
        server_query_id(schema.TableName("other", TABLE), secret),
    }
    assert len({found, *others}) == 4
    _create(sink)
    sink.insert_block(_block("a"), secret, secret)
    assert _users(sink) == "a"


@pytest.mark.parametrize(
    ("ttl", "missing"),
    [
        ("", "abcd"),
        ("timestamp + INTERVAL 30 DAY", "cd"),
        ("timestamp + INTERVAL 365 DAY", "bcd"),
        ("toDate(timestamp) + INTERVAL 2 MONTH", "cd"),
        ("timestamp + INTERVAL 30 DAY DELETE WHERE app_id = 'other'", "abcd"),
        ("timestamp + INTERVAL 30 DAY DELETE WHERE user_id IN ('a', 'c,)')", "bcd"),
        ("timestamp + INTERVAL 30 DAY RECOMPRESS CODEC(ZSTD(9))", "abcd"),
        ("timestamp + INTERVAL 1 DAY RECOMPRESS CODEC(LZ4), timestamp + INTERVAL 99 DAY", "bcd"),
        ("timestamp + INTERVAL 1 DAY TO VOLUME 'default', timestamp + INTERVAL 99 DAY", "bcd"),
        ("if(user_id = 'a', toDateTime(0), timestamp + INTERVAL 5 DAY)", "acd"),
    ],
)
def test_counts_follow_the_tables_own_ttl(sink: ClickHouseSink, ttl: str, missing: str) -> None:
    _create(sink, ttl=ttl)
    ages = {"a": 1000 * DAY, "b": 92 * DAY, "c": DAY // 2, "d": 0}
    rows = _joined(*(_block(user, seconds_ago=age) for user, age in ages.items()))
    assert [rows[3][row] for row in sink.missing_rows(rows)] == list(missing)
    sink.execute(f"SYSTEM STOP MERGES {TABLE}")
    insert_repeated(sink, rows, "token")
    assert _users(sink) == missing


def test_changed_ttl_counts_at_once(sink: ClickHouseSink) -> None:
    _create(sink)
    rows = _block("a", seconds_ago=40 * DAY)
    assert sink.missing_rows(rows) == [0]
    sink.execute(f"ALTER TABLE {TABLE} MODIFY TTL timestamp + INTERVAL 30 DAY")
    assert sink.missing_rows(rows) == []


@pytest.mark.parametrize(
    ("engine_name", "ttl"),
    [
        ("ReplacingMergeTree", schema.TTL),
        ("SummingMergeTree", schema.TTL),
        ("MergeTree", "timestamp + INTERVAL 1 DAY GROUP BY app_id, event_name, timestamp "
         "SET user_id = max(user_id)"),
    ],
)  # fmt: skip
def test_uncountable_table_relies_on_tokens(
    sink: ClickHouseSink, engine_name: str, ttl: str
) -> None:
    _create(sink, engine=engine_name, ttl=ttl)
    rows = _joined(_block("a"), _block("b", seconds_ago=10))
    for _ in range(3):
        insert_repeated(sink, rows, "token")
        assert _users(sink) == "ab"
    with pytest.raises(NeedsOperator, match="cannot be counted"):
        sink.missing_rows(rows)


@pytest.mark.parametrize(("user", "error"), [(PARTIAL, Unavailable), (CUT, None)])
def test_profile_never_makes_a_count_partial(
    sink: ClickHouseSink, engine: EmbeddedClickHouse, user: User, error: type[Exception] | None
) -> None:
    _create(sink)
    block: list[list[object]] = [[NOW - n for n in range(6)], *_block("abcdef")[1:]]
    sink.insert_block(block, "t", "t")
    with ClickHouseSink(_settings(engine, user.name), client_name="tests") as other:
        for _ in range(3):
            with contextlib.nullcontext() if error is None else pytest.raises(error):
                insert_repeated(other, block, "t")
    assert _users(sink) == "abcdef"


def test_ttl_on_another_column_relies_on_tokens(sink: ClickHouseSink) -> None:
    _create(sink)
    sink.execute(f"ALTER TABLE {TABLE} ADD COLUMN `a b` DateTime DEFAULT now()")
    sink.execute(f"ALTER TABLE {TABLE} MODIFY TTL `a b` + INTERVAL 1 DAY")
    for _ in range(2):
        insert_repeated(sink, _block("a", seconds_ago=100 * DAY), "token")
        assert _users(sink) == "a"


def test_ttl_of_a_column_relies_on_tokens(sink: ClickHouseSink) -> None:
    _create(sink)
    sink.execute(f"ALTER TABLE {TABLE} MODIFY COLUMN user_id TTL timestamp + INTERVAL 1 DAY")
    rows = _block("a", seconds_ago=2 * DAY)
    insert_repeated(sink, rows, "token")
    sink.execute(f"OPTIMIZE TABLE {TABLE} FINAL")
    insert_repeated(sink, rows, "token")
    assert _users(sink) == ""
    assert sink.select(f"SELECT count() FROM {TABLE}").rows == [(1,)]
    live = sink.describe()
    assert live is not None
    assert live.columns_with_ttl == ("user_id",)


def test_rows_fit_any_column_types_a_worker_accepts(sink: ClickHouseSink) -> None:
    sink.execute(
        f"CREATE TABLE {TABLE} (timestamp DateTime('Asia/Tokyo'), app_id LowCardinality(String), "
        "event_name Nullable(String), user_id LowCardinality(Nullable(String)), properties String, "
        "at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY timestamp "
        "TTL timestamp + INTERVAL 90 DAY SETTINGS non_replicated_deduplication_window = 10"
    )
    sink.execute(f"INSERT INTO {TABLE} (app_id) VALUES ('a row of NULLs')")
    rows = _joined(_block("aab"), _block("c", seconds_ago=91 * DAY))
    sink.insert_block(_block("a"), "part", "part")
    for _ in range(2):
        insert_repeated(sink, rows, "token")
        found = sink.select(f"SELECT user_id FROM {TABLE} WHERE app_id = 'app' ORDER BY 1").rows
        assert found == [("a",), ("a",), ("b",)]


def test_count_waits_for_rows_of_other_replicas(tmp_path: Path) -> None:
    # A server of its own: this build ends some time after a replica could not fetch a part.
    with (
        replicated_clickhouse.started(tmp_path) as server,
        ClickHouseSink(_settings(server), client_name="tests") as sink,
        ClickHouseSink(replace(_settings(server), table="other"), client_name="tests") as lagging,
    ):
        for table, replica in ((sink, "one"), (lagging, "two")):
            table.execute(
                replicated_clickhouse.create_replicated(table.table, path="shared", replica=replica)
            )
        lagging.execute("SYSTEM STOP REPLICATION QUEUES other")
        sink.insert_block(_block("a"), "token", "batch")
        with pytest.raises(Unavailable, match=r"ClickHouse error 159: SYNC REPLICA"):
            lagging.missing_rows(_block("a"))
        server.kill()


def test_missing_right_to_sync_is_named(sink: ClickHouseSink, engine: EmbeddedClickHouse) -> None:
    sink.execute(replicated_clickhouse.create_replicated(sink.table))
    with ClickHouseSink(_settings(engine, "bare"), client_name="tests") as bare:
        bare.insert_block(_block("a"), "token", "batch")
        needed = f"GRANT SYSTEM SYNC REPLICA ON default.{TABLE} TO bare"
        with pytest.raises(NeedsOperator, match=needed):
            bare.missing_rows(_block("a"))
        settings = replace(load({}).settings, clickhouse=_settings(engine, "bare"))
        with pytest.raises(NeedsOperator, match=needed):
            check_table(bare, settings)
        batch = replace(settings.batch, delivery="at-least-once")
        check_table(bare, replace(settings, batch=batch))
    sink.execute(f"DROP TABLE {TABLE} SYNC")
    _create(sink)
    with ClickHouseSink(_settings(engine, "bare"), client_name="tests") as bare:
        assert bare.missing_rows(_block("a")) == [0], "a plain table needs no further right"


def test_repeat_completes_view_that_lacks_the_block(sink: ClickHouseSink) -> None:
    """As after a kill between the rows of the table and those of the view."""
    sink.execute(replicated_clickhouse.create_replicated(sink.table))
    rows = _joined(_block("ab"), _block("c", seconds_ago=MONTH))
    begun = time.time() - 1
    sink.insert_block(rows, "token", "token")
    _create_view(sink)
    for _ in range(2):
        insert_repeated(sink, rows, "token", not_before=begun)
        assert (_users(sink), _in_view(sink)) == ("abc", 3)


def test_old_block_in_table_is_not_repeated(sink: ClickHouseSink) -> None:
    sink.execute(replicated_clickhouse.create_replicated(sink.table, window_seconds=10))
    _create_view(sink)
    rows = _joined(_block("ab"), _block("c", seconds_ago=MONTH))
    sink.insert_block(rows, "forgotten", "token")
    for not_before in (None, time.time() - 100):
        insert_repeated(sink, rows, "token", not_before=not_before)
        assert (_users(sink), _in_view(sink)) == ("abc", 3)


def test_missing_month_reaches_view_once(sink: ClickHouseSink) -> None:
    """As after a kill between the rows of two months, of a batch whose token may be forgotten."""
    sink.execute(replicated_clickhouse.create_replicated(sink.table))
    _create_view(sink)
    rows = _joined(_block("ab"), _block("c", seconds_ago=MONTH))
    sink.insert_block(_block("ab"), "first month", "token")
    for _ in range(2):
        insert_repeated(sink, rows, "token")
        assert (_users(sink), _in_view(sink)) == ("abc", 3)


@pytest.mark.parametrize("is_replicated", [False, True])
@pytest.mark.parametrize("is_recent", [False, True])
def test_repair_that_would_double_a_view_needs_operator(
    sink: ClickHouseSink, is_replicated: bool, is_recent: bool
) -> None:
    create = replicated_clickhouse.create_replicated if is_replicated else schema.create_table
    sink.execute(create(sink.table))
    _create_view(sink)
    rows = _block("ab")
    sink.insert_block(rows, "token", "token")
    _lose_rows(sink)
    with pytest.raises(NeedsOperator, match=r"missing although.*twice in default\.view"):
        insert_repeated(sink, rows, "token", not_before=time.time() - 1 if is_recent else None)
    assert (_users(sink), _in_view(sink)) == ("", 2)


def test_owners_of_killed_server_insert_once(tmp_path: Path) -> None:
    """Two owners repeat one batch while ClickHouse is killed between token and part."""
    draw = random.Random(7)
    with EmbeddedClickHouse(tmp_path / "clickhouse") as server:
        settings = replace(_settings(server), timeout_seconds=5.0)
        with ClickHouseSink(settings, client_name="tests") as sink:
            sink.execute(schema.create_table(sink.table))
            # Parts must stay separate, so that one of them can be removed.
            sink.execute(f"SYSTEM STOP MERGES {sink.table}")
        expected = lost = 0
        for number in range(6):
            blocks = [_block("xyz" * 300, seconds_ago=age * MONTH) for age in range(3)]
            rows = _joined(*blocks)
            rows[3] = [f"{number}-{row // 2}" for row in range(len(rows[3]))]
            expected += len(rows[3])
            before = _parts(tmp_path)
            with ThreadPoolExecutor(2) as pool:
                owners = [
                    pool.submit(_repeat_until_done, settings, rows, f"t{number}") for _ in "ab"
                ]
                while not _parts(tmp_path) - before and not owners[0].done():
                    time.sleep(0.001)
                time.sleep(draw.uniform(0.0, 0.01))
                server.kill()
                if not any(owner.done() for owner in owners):
                    lost += _remove_newest_part(_parts(tmp_path) - before)
                server.start()
                for owner in owners:
                    owner.result(60)
            with ClickHouseSink(settings, client_name="tests") as sink:
                assert sink.missing_rows(rows) == []
                assert sink.select(f"SELECT count() FROM {TABLE}").rows == [(expected,)]
    assert lost, "no kill hit an insert"


def _repeat_until_done(settings: ClickHouseSettings, rows: list[list[object]], token: str) -> None:
    deadline = time.monotonic() + 50
    with ClickHouseSink(settings, client_name="owner") as sink:
        while True:
            try:
                insert_repeated(sink, rows, token)
            except Unavailable:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return


def _parts(directory: Path) -> set[Path]:
    while True:
        # The server renames directories meanwhile.
        with contextlib.suppress(FileNotFoundError):
            return set(directory.glob("**/store/*/*/20[0-9][0-9][0-9][0-9]_*_*_0"))


def _remove_newest_part(parts: set[Path]) -> int:
    """Remove the part that was written last; its token stays. Return the number of parts removed."""
    newest = sorted(parts, key=lambda path: int(path.name.split("_")[1]))[-1:]
    for part in newest:
        shutil.rmtree(part)
    return len(newest)


def test_large_block_is_counted_in_bounded_memory(
    sink: ClickHouseSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_lookups, "CHUNK_ROWS", 10_000)
    _create(sink)
    rows = [[value for value in column for _ in range(40_000)] for column in _block("a")]
    rows[3] = [str(row // 2) for row in range(40_000)]
    sink.insert_block(rows, "token", "token")
    sent: list[int] = []
    chunks = row_lookups.chunks

    def counted(*arguments: object) -> Iterator[dict[str, object]]:
        for chunk in chunks(*arguments):  # type: ignore[arg-type]
            sent.append(len(chunk["data"]))
            yield chunk

    monkeypatch.setattr(row_lookups, "chunks", counted)
    rows[3][5] = "missing"
    assert sink.missing_rows(rows) == [5]
    assert max(sent) <= 10_001
    assert sum(sent) == 40_000
