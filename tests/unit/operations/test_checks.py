"""Findings of each check, with the operator's fix."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octane_analytics.cli.commands.check import exit_code
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import LiveColumn, LiveTable, TableName
from octane_analytics.clickhouse.table_fit import require_fit
from octane_analytics.clickhouse.views import View
from octane_analytics.errors import (
    ConfigError,
    NeedsOperator,
    OctaneError,
    StatementRejected,
    Unavailable,
)
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.operations.checks.clickhouse import check_clickhouse
from octane_analytics.operations.checks.finding import Finding, Level, fail, ok, warn, worst
from octane_analytics.operations.checks.host import check_descriptors, check_port
from octane_analytics.operations.checks.kafka import check_kafka
from octane_analytics.operations.checks.runner import downgrade_redundant_failures, run_all
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.sections import BatchSettings, Settings, WorkerSettings
from octane_analytics.types import Committed, LogIdentity, TopicPartition

NOW = 1_770_000_000.0
SETTINGS = Settings(worker=WorkerSettings(procs=2))
TOPIC = SETTINGS.kafka.topic


def member(client_id: str) -> Member:
    return Member(f"{client_id}-1", None, client_id, "10.0.0.1", frozenset())


STABLE = GroupState("stable", (member("octane-analytics-v2-0"),))


@dataclass
class FakeCluster:
    topics: dict[str, int] = field(default_factory=lambda: {TOPIC: 4, f"{TOPIC}.dlq": 1})
    found: GroupState | OctaneError = STABLE
    offsets: dict[int, Committed] = field(default_factory=dict)
    bound: tuple[int, int] = (0, 10)
    newest_at: float = NOW - 3
    away: OctaneError | None = None
    creating: OctaneError | None = None
    reading: OctaneError | None = None
    policy: str | OctaneError = "delete"

    def brokers(self, topic: str) -> int:
        if self.away:
            raise self.away
        return 1

    def partitions(self, topic: str) -> list[TopicPartition]:
        if topic not in self.topics:
            raise NeedsOperator(f"topic {topic}: unknown; create the topic or check its name")
        return [TopicPartition(topic, number) for number in range(self.topics[topic])]

    def cleanup_policy(self, topic: str) -> str:
        if isinstance(self.policy, OctaneError):
            raise self.policy
        return self.policy

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        if self.reading:
            raise self.reading
        return {p: self.offsets.get(p.partition, Committed(None, "")) for p in partitions}

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        return self.bound

    def identity(self, topic: str) -> LogIdentity:
        return LogIdentity("cluster", "id", "")

    def state(self) -> GroupState:
        if isinstance(self.found, OctaneError):
            raise self.found
        return self.found

    def may_create(self, topic: str) -> None:
        if self.creating:
            raise self.creating

    def timestamps(
        self, positions: Mapping[TopicPartition, int], seconds: float
    ) -> dict[TopicPartition, int]:
        return {partition: int(self.newest_at * 1000) for partition in positions}


def kafka(cluster: FakeCluster, settings: Settings = SETTINGS) -> dict[str, Finding]:
    return {f.subject: f for f in check_kafka(cluster, settings, NOW)}


def test_kafka_in_order_yields_only_ok() -> None:
    found = list(check_kafka(FakeCluster(), SETTINGS, NOW))
    assert {f.level for f in found} == {Level.OK}
    assert [f.subject for f in found] == [
        "kafka",
        "dead-letter topic",
        "topic",
        "group",
        "offsets",
        "clock and kafka",
    ]


def test_unreachable_kafka_is_one_transient_failure() -> None:
    assert kafka(FakeCluster(away=Unavailable("no broker"))) == {
        "kafka": Finding(Level.FAIL, "kafka", "no broker", may_pass=True)
    }
    found = kafka(FakeCluster(away=NeedsOperator("check the SASL settings")))
    assert not found["kafka"].may_pass


@pytest.mark.parametrize(
    ("cluster", "subject", "level", "expected"),
    [
        (FakeCluster(topics={}), "topic", Level.FAIL, "create the topic"),
        (FakeCluster(topics={TOPIC: 1}), "topic", Level.WARN, "1 of them will idle"),
        (FakeCluster(policy="compact,delete"), "topic", Level.WARN, "is compacted"),
        (FakeCluster(policy=Unavailable("not supported")), "topic", Level.OK, "4 partitions"),
        (FakeCluster(topics={TOPIC: 4}), "dead-letter topic", Level.OK, "will create it"),
        (
            FakeCluster(topics={TOPIC: 4}, creating=NeedsOperator("not allowed")),
            "dead-letter topic",
            Level.WARN,
            "would halt its partition",
        ),
        (
            FakeCluster(found=GroupState("stable", (member("kcat"),))),
            "group",
            Level.FAIL,
            "kcat@10.0.0.1",
        ),
        (
            FakeCluster(
                found=GroupState("stable", (*STABLE.members, member("octane-analytics-1")))
            ),
            "group",
            Level.FAIL,
            "another version of this service (octane-analytics-1@10.0.0.1)",
        ),
        (FakeCluster(found=GroupState("dead", ())), "group", Level.OK, "is new"),
        (FakeCluster(found=Unavailable("no controller")), "group", Level.WARN, "are not known"),
        (FakeCluster(found=NeedsOperator("grant READ")), "group", Level.FAIL, "grant READ"),
        (FakeCluster(reading=NeedsOperator("grant READ")), "group", Level.FAIL, "grant READ"),
        (
            FakeCluster(offsets={1: Committed(3, "")}, bound=(5, 10)),
            "offsets",
            Level.WARN,
            "unread records of partitions 1: ",
        ),
        (
            FakeCluster(offsets={1: Committed(10, ""), 3: Committed(11, "")}, bound=(5, 10)),
            "offsets",
            Level.WARN,
            "partitions 3 are after the end of the log",
        ),
        (
            FakeCluster(offsets={2: Committed(3, "octane1;3-3;elsewhere;id;")}),
            "offsets",
            Level.WARN,
            "committed for another cluster",
        ),
        (
            FakeCluster(offsets={2: Committed(3, "octane1;3-7;cluster;id;")}),
            "offsets",
            Level.OK,
            "a batch is pending for partitions 2",
        ),
        (FakeCluster(newest_at=NOW + 90), "clock and kafka", Level.WARN, "90 s ahead"),
        (FakeCluster(bound=(7, 7)), "clock and kafka", Level.OK, "no record"),
    ],
)
def test_kafka_check(cluster: FakeCluster, subject: str, level: Level, expected: str) -> None:
    found = kafka(cluster)[subject]
    assert found.level is level
    assert expected in found.message


LIVE = LiveTable(
    "MergeTree",
    schema.SORTING_KEY,
    schema.PARTITION_KEY,
    schema.SHOWN_TTL,
    10_000,
    tuple(LiveColumn(c.name, c.type, schema.SHOWN_CODECS[c.codec]) for c in schema.COLUMNS),
)
TABLE = TableName("default", "ai_analytics_events")
GIB = 1 << 30


@dataclass
class FakeServer:
    live: LiveTable | OctaneError | None = LIVE
    rights: tuple[str, ...] = ("SELECT", "INSERT")
    is_read_only: bool = False
    ahead_seconds: float = 0.0
    disks: list[tuple[str, int, int]] | OctaneError = field(
        default_factory=lambda: [("default", 50 * GIB, 100 * GIB)]
    )
    away: OctaneError | None = None
    table: TableName = TABLE
    fired: list[View] = field(default_factory=list)

    def views(self) -> list[View]:
        return self.fired

    def select(self, sql: str, parameters: Mapping[str, object] | None = None) -> Result:
        if self.away:
            raise self.away
        if "version()" in sql:
            return Result((), [("26.9.1", int((NOW + self.ahead_seconds) * 1000))])
        if "system.projections" in sql or "system.parts" in sql:
            return Result((), [])
        if isinstance(self.disks, OctaneError):
            raise self.disks
        return Result((), list(self.disks))

    def describe(self) -> LiveTable | None:
        if isinstance(self.live, OctaneError):
            raise self.live
        return self.live

    def has_right(self, right: str) -> bool:
        return right in self.rights

    def check_profile(self) -> None:
        if self.is_read_only:
            raise NeedsOperator("the profile is read-only")


def clickhouse(server: FakeServer, settings: Settings = SETTINGS) -> list[Finding]:
    return list(check_clickhouse(server, "ch:9000", settings, lambda: NOW))


def test_clickhouse_in_order_yields_only_ok() -> None:
    found = clickhouse(FakeServer())
    assert {f.level for f in found} == {Level.OK}
    assert "83 minutes of this host's 2 inserts/s" in found[-2].message


TWO_HOSTS = replace(SETTINGS, clickhouse=ClickHouseSettings(host="ch1,ch2"))
HASTY = replace(SETTINGS, batch=BatchSettings(inserts_per_second=20.0))


@pytest.mark.parametrize(
    ("server", "settings", "level", "expected"),
    [
        (FakeServer(away=Unavailable("refused")), SETTINGS, Level.FAIL, "refused"),
        (
            FakeServer(away=StatementRejected(81, "UNKNOWN_DATABASE", "no database")),
            SETTINGS,
            Level.FAIL,
            "create the database",
        ),
        (FakeServer(live=None), SETTINGS, Level.FAIL, "schema apply"),
        (
            FakeServer(live=replace(LIVE, columns=LIVE.columns[1:])),
            SETTINGS,
            Level.FAIL,
            "lacks timestamp",
        ),
        (FakeServer(live=replace(LIVE, ttl="")), SETTINGS, Level.WARN, "TTL is not set"),
        (FakeServer(), TWO_HOSTS, Level.FAIL, "replicas of one table"),
        (
            FakeServer(live=replace(LIVE, window=0)),
            SETTINGS,
            Level.FAIL,
            "has no deduplication window, which exactly-once depends on",
        ),
        (FakeServer(), HASTY, Level.WARN, "--window 12001"),
        (FakeServer(rights=("SELECT",)), SETTINGS, Level.FAIL, "GRANT INSERT ON default"),
        (
            FakeServer(rights=("SELECT",), is_read_only=True),
            SETTINGS,
            Level.FAIL,
            "the profile is read-only",
        ),
        (FakeServer(ahead_seconds=60), SETTINGS, Level.WARN, "60 s fast"),
        (FakeServer(ahead_seconds=-60), SETTINGS, Level.WARN, "60 s slow"),
        (FakeServer(disks=[("d", GIB // 2, 100 * GIB)]), SETTINGS, Level.FAIL, "will stop"),
        (FakeServer(disks=[("d", 5 * GIB, 100 * GIB)]), SETTINGS, Level.WARN, "soon"),
        (
            FakeServer(disks=StatementRejected(497, "ACCESS_DENIED", "no")),
            SETTINGS,
            Level.WARN,
            "GRANT SELECT ON system.disks",
        ),
    ],
)
def test_clickhouse_check(
    server: FakeServer, settings: Settings, level: Level, expected: str
) -> None:
    (found,) = [f for f in clickhouse(server, settings) if f.level is not Level.OK]
    assert found.level is level
    assert expected in found.message


REPLICATED = replace(LIVE, engine="ReplicatedMergeTree")
LIVE_TABLES = st.builds(
    lambda types, engine, window, ttl: replace(
        LIVE,
        engine=engine,
        window=window,
        ttl=ttl,
        columns=tuple(
            replace(column, type=kind)
            for column, kind in zip(LIVE.columns, types, strict=True)
            if kind
        ),
    ),
    st.lists(
        st.sampled_from(
            ["String", "DateTime", "DateTime('UTC')", "Bool", "LowCardinality(String)", ""]
        ),
        min_size=5,
        max_size=5,
    ),
    st.sampled_from(["MergeTree", "ReplicatedMergeTree", "ReplacingMergeTree", "Log"]),
    st.sampled_from([0, 1, 10_000]),
    st.sampled_from(["", LIVE.ttl, "timestamp + toIntervalDay(1) GROUP BY app_id"]),
)


def test_plain_tables_of_several_shards_are_accepted() -> None:
    """Only the servers of one shard have to be replicas of one table."""
    shards = ClickHouseSettings(host="ch1;ch2", cluster="octane")
    found = clickhouse(FakeServer(), replace(SETTINGS, clickhouse=shards))
    assert worst(found) is worst(clickhouse(FakeServer(), SETTINGS)) is Level.OK


@given(LIVE_TABLES, st.sampled_from([SETTINGS, TWO_HOSTS]), st.booleans())
@example(replace(LIVE, columns=LIVE.columns[1:]), SETTINGS, True)
def test_check_fails_where_worker_refuses_the_table(
    live: LiveTable, settings: Settings, is_exactly_once: bool
) -> None:
    delivery = "exactly-once" if is_exactly_once else "at-least-once"
    settings = replace(settings, batch=BatchSettings(delivery=delivery))
    server = FakeServer(live=live, rights=("SELECT", "INSERT", "SYSTEM SYNC REPLICA"))
    is_failed = worst(clickhouse(server, settings)) is Level.FAIL
    expected = pytest.raises(ConfigError) if is_failed else contextlib.nullcontext()
    with expected:
        require_fit(
            TABLE,
            live,
            window_user=delivery if is_exactly_once else None,
            servers=len(settings.clickhouse.hosts()),
        )


def test_replicated_table_requires_sync_of_replicas() -> None:
    (found,) = [f for f in clickhouse(FakeServer(live=REPLICATED)) if f.level is Level.FAIL]
    assert "GRANT SYSTEM SYNC REPLICA ON default" in found.message
    rights = ("SELECT", "INSERT", "SYSTEM SYNC REPLICA")
    assert worst(clickhouse(FakeServer(live=REPLICATED, rights=rights))) is Level.OK


def test_window_is_not_needed_at_least_once() -> None:
    settings = replace(SETTINGS, batch=BatchSettings(delivery="at-least-once"))
    assert worst(clickhouse(FakeServer(live=replace(LIVE, window=0)), settings)) is Level.OK


def test_port_is_free_taken_or_ours() -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert check_port("API_PORT", "127.0.0.1", port).level is Level.OK
        listening.listen()
        answers = [
            b"HTTP/1.0 200 OK\r\n\r\n# HELP analytics_x_total\n",
            b'HTTP/1.0 401 No\r\nWWW-Authenticate: Bearer realm="octane-analytics"\r\n\r\n',
            b'HTTP/1.0 401 No\r\nWWW-Authenticate: Bearer realm="another"\r\n\r\n',
            b"SSH-2.0\r\n",
        ]

        def serve() -> None:
            for answer in answers:
                peer, _ = listening.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(2):
            assert "octane-analytics" in check_port("API_PORT", "127.0.0.1", port).message
        assert check_port("API_PORT", "127.0.0.1", port).level is Level.FAIL
        taken = check_port("API_PORT", "127.0.0.1", port)
        thread.join()
    assert taken.level is Level.FAIL
    assert "set another port" in taken.message
    assert check_port("API_PORT", "127.0.0.1", 0).level is Level.OK
    assert check_port("API_PORT", "192.0.2.1", 1).level is Level.FAIL


def test_few_descriptors_are_a_warning() -> None:
    assert check_descriptors(lambda: (256, 4096)).level is Level.WARN
    assert check_descriptors(lambda: (4096, 4096)).level is Level.OK
    assert check_descriptors(lambda: (-1, -1)).level is Level.OK


def test_checks_run_in_parallel_and_late_ones_fail() -> None:
    forever = threading.Event()

    def hanging() -> Iterator[Finding]:
        yield ok("early", "fine")
        forever.wait()

    found, have_ended = run_all(
        {"hangs": hanging, "works": lambda: iter([warn("works", "a bit")])}, 0.05
    )
    forever.set()
    assert [(f.subject, f.level) for f in found] == [
        ("early", Level.OK),
        ("hangs", Level.FAIL),
        ("works", Level.WARN),
    ]
    assert not have_ended


def test_fault_in_a_check_is_not_hidden() -> None:
    def faulty() -> Iterator[Finding]:
        yield ok("a", str(1 // 0))

    with pytest.raises(ZeroDivisionError):
        run_all({"faulty": faulty}, 1.0)


def test_unreachable_server_with_serving_replica_is_warning() -> None:
    away = Finding(Level.FAIL, "clickhouse a", "refused", may_pass=True)
    fine = ok("clickhouse b", "answers")
    assert (
        downgrade_redundant_failures([away, fine], ["clickhouse a", "clickhouse b"])[0].level
        is Level.WARN
    )
    assert downgrade_redundant_failures([away], ["clickhouse a"]) == [away]


@pytest.mark.parametrize(
    ("findings", "strict", "code"),
    [
        ([ok("a", "")], True, Exit.OK),
        ([warn("a", "")], False, Exit.OK),
        ([warn("a", "")], True, Exit.FAILED),
        ([warn("a", ""), Finding(Level.FAIL, "b", "", may_pass=True)], False, Exit.UNAVAILABLE),
        ([fail("a", ""), Finding(Level.FAIL, "b", "", may_pass=True)], False, Exit.CONFIG),
    ],
)
def test_exit_code_is_by_the_worst(findings: list[Finding], strict: bool, code: Exit) -> None:
    assert exit_code(findings, strict) is code
