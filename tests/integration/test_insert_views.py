"""Repeated inserts with materialized views, and with tokens that are forgotten by age."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink, is_token_remembered
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.views import View, view_findings
from octane_analytics.errors import ConfigError, NeedsOperator
from octane_analytics.events.decode import decode_all
from octane_analytics.operations.checks.clickhouse import check_clickhouse
from octane_analytics.operations.checks.finding import Level
from octane_analytics.pipeline.batch import Batch
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.settings.sections import Settings
from octane_analytics.types import TopicPartition
from octane_analytics.worker.preflight import check_table
from octane_analytics.worker.view_watch import ViewWatch
from tests.fakes.kafka import FakeRecord
from tests.support import replicated_clickhouse
from tests.support.command import run
from tests.support.operations_fixtures import event

NOW = int(time.time())
WORKER = User(
    "worker",
    grants=[
        "GRANT SELECT, INSERT, SYSTEM SYNC REPLICA ON views.ai_analytics_events",
    ],
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    with replicated_clickhouse.started(tmp_path_factory.mktemp("clickhouse"), WORKER) as server:
        yield server


@pytest.fixture
def sink(engine: EmbeddedClickHouse) -> Iterator[ClickHouseSink]:
    """Sink with a database of its own, without the table."""
    beside = ClickHouseSettings(host=engine.host, port=engine.tcp_port, timeout_seconds=10)
    with ClickHouseSink(beside, client_name="tests") as root:
        root.execute("CREATE DATABASE views ENGINE = Atomic")
        with ClickHouseSink(replace(beside, database="views"), client_name="tests") as connected:
            yield connected
        root.execute("DROP DATABASE views SYNC")


def _create(sink: ClickHouseSink, *, is_replicated: bool = True, seconds: int = 86_400) -> None:
    statement = schema.create_table(sink.table)
    if is_replicated:
        statement = replicated_clickhouse.create_replicated(sink.table, window_seconds=seconds)
    sink.execute(statement)


def _create_view(
    sink: ClickHouseSink, number: int, source: str, settings: str = "", engine: str = ""
) -> None:
    engine = engine or "SummingMergeTree ORDER BY user_id"
    sink.execute(
        f"CREATE TABLE target{number} (user_id String, n UInt64) ENGINE = {engine} {settings}"
    )
    sink.execute(
        f"CREATE MATERIALIZED VIEW view{number} TO target{number} "
        f"AS SELECT user_id, count() AS n FROM {source} GROUP BY user_id"
    )


WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


def _block(*users: str, at: float = NOW) -> list[list[object]]:
    rows = len(users)
    return [
        [int(at)] * rows,
        ["app"] * rows,
        ["e"] * rows,
        list(users),
        ["{}"] * rows,
    ]


def _count(sink: ClickHouseSink, table: str, what: str = "count()") -> int:
    return int(sink.select(f"SELECT {what} FROM {table}").rows[0][0])


def _settings(sink: ClickHouseSink, engine: EmbeddedClickHouse, user: str = "default") -> Settings:
    server = ClickHouseSettings(
        host=engine.host, port=engine.tcp_port, database=sink.table.database, user=user
    )
    return replace(load({}).settings, clickhouse=server)


def _findings(sink: ClickHouseSink, engine: EmbeddedClickHouse) -> list[tuple[Level, str]]:
    settings = _settings(sink, engine)
    found = check_clickhouse(sink, "ch", settings, time.time)
    return [(f.level, f.message) for f in found if f.subject == "views at ch"]


def test_view_added_later_is_reported(sink: ClickHouseSink) -> None:
    _create(sink)
    reports: list[str] = []
    watch = ViewWatch(sink, reports.append)
    watch.look()
    _create_view(sink, 1, str(sink.table))
    watch.look()
    assert len(reports) == 1
    assert "view1" in reports[0]


def test_repeated_insert_counts_once_in_chained_views(
    sink: ClickHouseSink, engine: EmbeddedClickHouse
) -> None:
    _create(sink)
    _create_view(sink, 1, str(sink.table), WINDOW)
    _create_view(sink, 2, "target1", WINDOW)
    for _ in range(3):
        insert_repeated(sink, _block("a", "b", "b"), "token", not_before=time.time() - 1)
    sink.insert_block(_block("a", "b", "b"), "another", None)
    assert _count(sink, str(sink.table)) == 6
    assert _count(sink, "target1", "sum(n)") == 6
    assert _count(sink, "target2", "sum(n)") == 4, "two groups of each insert"
    assert _findings(sink, engine) == [
        (Level.OK, "views.view1, views.view2: their targets recognise repeated inserts")
    ]
    check_table(sink, _settings(sink, engine))


def test_repeated_insert_counts_once_with_any_profile(tmp_path: Path) -> None:
    careless = User("careless", settings={"deduplicate_blocks_in_dependent_materialized_views": 0})
    with replicated_clickhouse.started(tmp_path, careless) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port, user="careless")
        with ClickHouseSink(settings, client_name="tests") as sink:
            _create(sink)
            _create_view(sink, 1, str(sink.table), WINDOW)
            for _ in range(2):
                sink.insert_block(_block("a"), "token", None)
            assert _count(sink, "target1", "sum(n)") == 1


@pytest.mark.parametrize("depth", [1, 2])
def test_target_without_window_is_refused_with_fix(
    sink: ClickHouseSink, engine: EmbeddedClickHouse, depth: int
) -> None:
    _create(sink)
    source = str(sink.table)
    for number in range(1, depth + 1):
        _create_view(sink, number, source, WINDOW if number < depth else "")
        source = f"target{number}"
    alter = f"ALTER TABLE views.target{depth} MODIFY SETTING non_replicated_deduplication_window = 10000"
    settings = _settings(sink, engine)
    with pytest.raises(ConfigError, match=f"view views.view{depth}.*{alter}"):
        check_table(sink, settings)
    ((level, message),) = _findings(sink, engine)
    assert level is Level.FAIL
    assert alter in message
    at_least_once = replace(settings, batch=replace(settings.batch, delivery="at-least-once"))
    check_table(sink, at_least_once)
    sink.execute(alter)
    check_table(sink, settings)


def test_view_with_inner_table_is_checked(sink: ClickHouseSink, engine: EmbeddedClickHouse) -> None:
    _create(sink)
    sink.execute(
        f"CREATE MATERIALIZED VIEW own ENGINE = MergeTree ORDER BY user_id "
        f"AS SELECT user_id FROM {sink.table}"
    )
    ((level, message),) = _findings(sink, engine)
    assert level is Level.FAIL
    sink.execute(message[message.index("ALTER TABLE") :])
    assert [level for level, _ in _findings(sink, engine)] == [Level.OK]


def test_plain_table_with_view_is_refused(sink: ClickHouseSink, engine: EmbeddedClickHouse) -> None:
    _create(sink, is_replicated=False)
    _create_view(sink, 1, str(sink.table), WINDOW)
    with pytest.raises(ConfigError, match=r"views\.view1.*ReplicatedMergeTree"):
        check_table(sink, _settings(sink, engine))
    assert [level for level, _ in _findings(sink, engine)] == [Level.FAIL]
    sink.execute("DROP VIEW view1 SYNC")
    check_table(sink, _settings(sink, engine))


def test_repair_of_plain_table_triggers_no_view(
    sink: ClickHouseSink,
) -> None:
    _create(sink, is_replicated=False)
    sink.insert_block(_block("a"), "token", None)
    # The token stays, as after a kill between token and part.
    sink.execute(f"ALTER TABLE {sink.table} DELETE WHERE 1 SETTINGS mutations_sync = 1")
    _create_view(sink, 1, str(sink.table), WINDOW)
    sink.insert_block(_block("b"), "other", None)
    before = _count(sink, "target1", "sum(n)")
    with pytest.raises(NeedsOperator, match=r"1 rows .*although.*views.view1"):
        insert_repeated(sink, _block("a"), "token")
    assert _count(sink, "target1", "sum(n)") <= before + 1


def test_view_invisible_to_worker_is_a_warning(
    sink: ClickHouseSink, engine: EmbeddedClickHouse, caplog: pytest.LogCaptureFixture
) -> None:
    _create(sink)
    _create_view(sink, 1, str(sink.table))
    settings = _settings(sink, engine, "worker")
    with ClickHouseSink(settings.clickhouse, client_name="tests") as limited:
        check_table(limited, settings)
    assert "GRANT SHOW TABLES ON views.view1" in str(vars(caplog.records[-1]))


@pytest.mark.parametrize(
    ("view", "level", "words"),
    [
        (("target", "MergeTree", 1), None, ""),
        (("target", "ReplicatedSummingMergeTree", 10_000), None, ""),
        (("target", "Null", 0), None, ""),
        (("target", "Memory", 0), False, "is a Memory"),
        (("target", "Distributed", 0), False, "is a Distributed"),
        (("target", "", 0), False, "create db.target"),
        ((None, "", 0), False, "GRANT SHOW TABLES ON db.view"),
        (("target", "AggregatingMergeTree", 0), True, "MODIFY SETTING non_replicated"),
        (("target", "ReplicatedMergeTree", 0), True, "MODIFY SETTING replicated_dedup"),
    ],
)
def test_findings_about_a_target(
    view: tuple[str | None, str, int], level: bool | None, words: str
) -> None:
    target, engine, window = view
    live = schema.LiveTable("ReplicatedMergeTree", "", "", "", 1, ())
    seen = View(TableName("db", "view"), target and TableName("db", target), engine, window)  # type: ignore[arg-type]
    found = view_findings(TableName("db", "events"), live, [seen])
    assert [(f.is_refusal, words in f.message) for f in found] == ([(level, True)] if words else [])


@pytest.mark.parametrize(
    ("table", "target", "servers", "is_refused"),
    [
        ("ReplicatedMergeTree", "SummingMergeTree", 2, True),
        ("ReplicatedMergeTree", "SummingMergeTree", 1, False),
        ("ReplicatedMergeTree", "ReplicatedSummingMergeTree", 2, False),
        ("SharedMergeTree", "SharedSummingMergeTree", 3, False),
    ],
)
def test_target_on_one_of_several_servers_is_refused(
    table: str, target: str, servers: int, is_refused: bool
) -> None:
    live = schema.LiveTable(table, "", "", "", 1, ())
    seen = View(TableName("db", "view"), TableName("db", "target"), target, 100)
    found = view_findings(TableName("db", "events"), live, [seen], servers=servers)
    assert [(f.is_refusal, "use a ReplicatedSummingMergeTree" in f.message) for f in found] == (
        [(True, True)] if is_refused else []
    )


def test_repeat_of_old_batch_looks_up_rows(sink: ClickHouseSink) -> None:
    _create(sink, seconds=10)
    now = time.time()
    sink.insert_block(_block("a", "b", "b", at=now), "token", None)
    # Under an unknown token, as after the server has forgotten the first one.
    for not_before in (now - 60, None, now + 3600):
        insert_repeated(sink, _block("a", "b", "b", at=now), "forgotten", not_before=not_before)
        assert _count(sink, str(sink.table)) == 3
    insert_repeated(sink, _block("a", "b", "b", "b", "c", at=now), "later", not_before=now - 60)
    assert _count(sink, str(sink.table)) == 5
    assert _count(sink, str(sink.table), "countIf(user_id = 'b')") == 3


def test_clock_ahead_does_not_double_old_batch(sink: ClickHouseSink) -> None:
    """One producer's clock is ahead by about the age of the batch, which the server has forgotten."""
    _create(sink, seconds=10)
    _create_view(sink, 1, str(sink.table), WINDOW)
    users, now = "abc", time.time()
    batch, where = Batch(), TopicPartition("events", 0)
    records = [
        FakeRecord(where, number, event(user), created_ms=round(1000 * at))
        for number, (user, at) in enumerate(zip(users, (now - 60, now - 60, now), strict=True))
    ]
    batch.append(records, [0, 0, 0], decode_all, 0.0)
    sink.insert_block(batch.columns, "token", None)
    insert_repeated(sink, batch.columns, "forgotten", not_before=batch.not_before)
    assert _count(sink, str(sink.table)) == 3
    assert _count(sink, "target1", "sum(n)") == 3


@pytest.mark.parametrize(
    ("window_seconds", "age_seconds", "is_remembered"),
    [
        (None, 1e9, True),
        (3600, 60, True),
        (3600, 1800, True),
        (3600, 1801, False),
        (3600, -1, False),
        (3600, None, False),
        (0, 1, False),
    ],
)
def test_token_counts_for_half_of_window(
    window_seconds: int | None, age_seconds: float | None, is_remembered: bool
) -> None:
    now = 1_700_000_000.0
    not_before = None if age_seconds is None else now - age_seconds
    assert is_token_remembered(window_seconds, not_before, now) is is_remembered


def test_repeat_of_recent_batch_uses_token(sink: ClickHouseSink) -> None:
    _create(sink)
    sink.insert_block(_block("a"), "token", None)
    # An equal event of another batch that was never inserted does not count as stored.
    insert_repeated(sink, _block("a"), "another", not_before=time.time() - 1, prefers_token=True)
    assert _count(sink, str(sink.table)) == 2
    insert_repeated(sink, _block("a"), "another", not_before=time.time() - 1, prefers_token=True)
    assert _count(sink, str(sink.table)) == 2


def test_schema_apply_sets_replicated_window_to_a_day(
    sink: ClickHouseSink, engine: EmbeddedClickHouse
) -> None:
    _create(sink, seconds=3600)
    environ = {
        "CLICKHOUSE_HOST": engine.host,
        "CLICKHOUSE_PORT": str(engine.tcp_port),
        "CLICKHOUSE_DATABASE": "views",
    }
    live = sink.describe()
    assert live is not None
    assert live.window_seconds == 3600
    settings = _settings(sink, engine)
    (found,) = [f for f in check_clickhouse(sink, "ch", settings, time.time)
                if f.subject == "deduplication at ch"]  # fmt: skip
    assert found.level is Level.WARN
    assert "10,000 inserts and 3,600 s" in found.message

    first = run("schema", "apply", settings=environ).stdout
    assert "from 3,600 to 86,400 seconds" in first
    assert "deduplication window: 10,000 inserts and 86,400 seconds" in first
    assert "nothing to do" in run("schema", "apply", settings=environ).stdout
    live = sink.describe()
    assert live is not None
    assert live.window_seconds == 86_400
    (found,) = [f for f in check_clickhouse(sink, "ch", settings, time.time)
                if f.subject == "deduplication at ch"]  # fmt: skip
    assert found.level is Level.OK
    assert "10,000 inserts and 86,400 s" in found.message
