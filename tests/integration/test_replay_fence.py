"""One replay at a time into a table of several servers, and what dead replays leave on each of them."""

import contextlib
import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from octane_analytics.cli.replay.fence import DRY, ENDED, PLAN, ReplayFence
from octane_analytics.cli.replay.owners import identity_of, process_identity
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_shard_months import ShardMonths
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.replay_survey import ReplayServers
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.replay.interfaces import Staged
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.replay.ranges import BadRange
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority
from octane_analytics.types import LogIdentity
from tests.support.crash_points import before_statements, kills
from tests.support.ports import free_port

NOW = int(time.time())
ALIVE = identity_of(os.getppid())
ELSEWHERE = ALIVE.replace('"host": "', '"host": "elsewhere.')
ORDERS = ("a;b", "b;a", "a,b", "b,a")
"""Lists of the two servers, as shards or as replicas."""


@pytest.fixture(scope="module")
def dead() -> str:
    """Return the identity of a process that has ended."""
    process = subprocess.Popen(["sleep", "60"])
    identity = identity_of(process.pid)
    process.kill()
    process.wait()
    return identity


class Servers:
    """Two servers, `a` and `b`, with a table each, and `gone`, which does not answer."""

    def __init__(self, engines: dict[str, EmbeddedClickHouse]) -> None:
        self._addresses = {
            name: authority(engine.host, engine.tcp_port) for name, engine in engines.items()
        } | {"gone": f"127.0.0.1:{free_port()}"}

    def settings(self, hosts: str) -> ClickHouseSettings:
        listed = re.sub(r"\w+", lambda name: self._addresses[name[0]], hosts)
        return ClickHouseSettings(host=listed, cluster="octane", timeout_seconds=10.0)

    def address(self, name: str) -> str:
        return self._addresses[name]

    def fence(self, hosts: str) -> ReplayFence:
        settings = self.settings(hosts)
        table = schema.TableName(settings.database, settings.table)
        return ReplayFence(ReplayServers(settings, client_name="tests"), table)

    def sink(self, name: str) -> ClickHouseSink:
        return ClickHouseSink(self.settings(name), client_name="tests")

    def tables(self) -> list[str]:
        """Return the tables of replays on both servers."""
        found = []
        for name in "ab":
            with ClickHouse(self.settings(name), client_name="tests") as server:
                query = "SELECT name FROM system.tables WHERE startsWith(name, 'octane_replay_')"
                found += [f"{name}:{table}" for (table,) in server.select(query).rows]
        return sorted(found)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmbeddedClickHouse]]:
    pytest.importorskip("chdb", reason="pip install 'octane-analytics[embedded]'")
    with (
        EmbeddedClickHouse(tmp_path_factory.mktemp("a")) as first,
        EmbeddedClickHouse(tmp_path_factory.mktemp("b")) as second,
    ):
        yield {"a": first, "b": second}


@pytest.fixture
def servers(engines: dict[str, EmbeddedClickHouse]) -> Iterator[Servers]:
    found = Servers(engines)
    for name in "ab":
        with found.sink(name) as sink:
            sink.execute(schema.create_table(sink.table))
    yield found
    for name in "ab":
        with found.sink(name) as sink:
            tables = "SELECT name FROM system.tables WHERE database = 'default'"
            for (table,) in sink.select(tables).rows:
                sink.execute(f"DROP TABLE IF EXISTS `{table}` SYNC")


def plan_of(replay_id: str, mode: Mode = Mode.FILL, table: str = "ai_analytics_events") -> str:
    log = LogIdentity("cluster", "topic", "")
    names = ("t", "g", log, "default", table)
    return ReplayPlan(replay_id, mode, Compare.LOG, *names, True, {}, {}).as_json()


def staging_on(sink: ClickHouseSink, replay_id: str) -> ReplayStaging:
    live = sink.describe()
    assert live is not None
    return ReplayStaging(sink, replay_id, live)


def begin(sink: ClickHouseSink, replay_id: str, owner: str, plan: str) -> ReplayStaging:
    staging = staging_on(sink, replay_id)
    staging.create(owner)
    staging.journal(PLAN, plan)
    return staging


@pytest.mark.parametrize("hosts", ORDERS)
@pytest.mark.parametrize("where", ["a", "b"])
def test_replay_on_any_server_is_seen(servers: Servers, hosts: str, where: str) -> None:
    with servers.sink(where) as sink:
        begin(sink, "1_a", ALIVE, plan_of("1_a"))
        before = servers.tables()
        with pytest.raises(ConfigError, match=f"replay 1_a works on .*: process {os.getppid()}"):
            servers.fence(hosts).clean_up()
        assert servers.tables() == before
        with pytest.raises(BadRange, match="replay 1_a is running"):
            servers.fence(hosts).load_interrupted("1_a", servers.address(where), is_live=True)


@pytest.mark.parametrize("hosts", ORDERS)
def test_replays_begun_at_once_are_not_both_alone(servers: Servers, hosts: str) -> None:
    """Whatever the order of their steps: each creates its journal, and then looks for others."""
    steps = set(itertools.permutations(["create a", "look a", "create b", "look b"]))
    for order in steps:
        if order.index("look a") < order.index("create a"):
            continue
        if order.index("look b") < order.index("create b"):
            continue
        alone = []
        with servers.sink("a") as a, servers.sink("b") as b:
            stagings = {"a": staging_on(a, "1_a"), "b": staging_on(b, "1_b")}
            for step in order:
                verb, _, name = step.partition(" ")
                if verb == "create":
                    # Only the comment names the owner, as before the first entry.
                    stagings[name].create(ALIVE)
                    continue
                try:
                    servers.fence(hosts).require_alone(f"1_{name}", is_resumed=False)
                except ConfigError:
                    continue
                alone.append(name)
            for staging in stagings.values():
                staging.drop()
        assert len(alone) < 2, order


def test_replay_of_another_table_is_left_alone(servers: Servers, dead: str) -> None:
    with servers.sink("b") as sink:
        begin(sink, "1_a", ALIVE, plan_of("1_a", table="another"))
        begin(sink, "1_b", dead, plan_of("1_b", Mode.APPEND, table="another"))
        before = servers.tables()
        servers.fence("a;b").clean_up()
        servers.fence("a;b").require_alone("1_c", is_resumed=False)
        assert servers.tables() == before


def test_interrupted_append_waits_on_its_server(
    servers: Servers, dead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with servers.sink("b") as sink:
        begin(sink, "1_a", dead, plan_of("1_a", Mode.APPEND))
    before = servers.tables()
    servers.fence("a;b").clean_up()
    assert "resume it with --resume 1_a" in capsys.readouterr().err
    assert servers.tables() == before
    fence = servers.fence("a;b")
    with pytest.raises(BadRange, match=f"journal on {servers.address('b')}, not on .* list that"):
        fence.load_interrupted("1_a", servers.address("a"), is_live=True)
    plan, ended = fence.load_interrupted("1_a", servers.address("b"), is_live=True)
    assert (plan.mode, ended) == (Mode.APPEND, None)


def test_replay_resumed_during_clean_up_keeps_its_journal(
    servers: Servers, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_staging = ReplayServers.drop_staging
    with servers.sink("b") as sink:
        staging = begin(sink, "1_a", dead, plan_of("1_a"))

        def resumed(found: ReplayServers, replay_id: str) -> None:
            drop_staging(found, replay_id)
            staging.journal("owner", ALIVE)

        monkeypatch.setattr(ReplayServers, "drop_staging", resumed)
        with pytest.raises(ConfigError, match=r"replay 1_a was resumed meanwhile: process"):
            servers.fence("a;b").clean_up()
    assert servers.tables() == ["b:octane_replay_1_a_journal"]


def test_unreachable_server_refuses_new_replays(servers: Servers) -> None:
    for hosts in ("a;gone", "gone,a"):
        with pytest.raises(Unavailable, match="leave it out of CLICKHOUSE_HOST if it is gone"):
            servers.fence(hosts).clean_up()
        with pytest.raises(Unavailable, match=r"and a replay into .* may run there"):
            servers.fence(hosts).require_alone("1_a", is_resumed=False)


@pytest.mark.parametrize("mode", [Mode.FILL, Mode.REBUILD, Mode.APPEND])
@pytest.mark.parametrize("is_of_this_machine", [True, False])
def test_resume_without_a_server_needs_known_processes(
    servers: Servers, dead: str, mode: Mode, is_of_this_machine: bool
) -> None:
    """Of another machine's process, an unreachable server may have the newest entries."""
    with servers.sink("a") as sink:
        owner = dead if is_of_this_machine else ELSEWHERE
        staging = begin(sink, "1_a", owner, plan_of("1_a", mode))
        staging.journal("stopped", "")
        fence = servers.fence("gone,a")
        if is_of_this_machine and mode is not Mode.APPEND:
            fence.load_interrupted("1_a", servers.address("a"), is_live=True)
            staging.journal("owner", process_identity())
            fence.require_alone("1_a", is_resumed=True)
        else:
            with pytest.raises(Unavailable, match="may run there"):
                fence.load_interrupted("1_a", servers.address("a"), is_live=True)
            with pytest.raises(Unavailable, match="may run there"):
                fence.require_alone("1_a", is_resumed=True)


@pytest.mark.parametrize("kind", [ENDED, DRY])
def test_done_replay_is_dropped_or_refused(servers: Servers, dead: str, kind: str) -> None:
    with servers.sink("b") as sink:
        staging = begin(sink, "1_a", dead, plan_of("1_a", Mode.APPEND))
        staging.journal(kind, "report")
        fence = servers.fence("a;b")
        if kind == ENDED:
            found = fence.load_interrupted("1_a", servers.address("b"), is_live=True)
            assert found[1] == "report"
        else:
            with pytest.raises(BadRange, match="was a dry run"):
                fence.load_interrupted("1_a", servers.address("b"), is_live=True)
            fence.clean_up()
        assert servers.tables() == []


def rebuild(servers: Servers, owner: str) -> None:
    """Run the statements of a rebuild of two shards, from the first to the last one."""
    with servers.sink("a") as sink:
        staging = begin(sink, "1_a", owner, plan_of("1_a", Mode.REBUILD))
        staged = Staged(columns=new_columns(), partitions=[0], offsets=[0], is_wanted=[1])
        for column, value in zip(staged.columns, (NOW, b"a", b"e", b"u", b"{}"), strict=True):
            column.extend([value])
        staging.stage(staged)
        with ShardMonths(staging, servers.settings("a;b"), client_name="tests") as months:
            months.build(staging.months()[0], {0: 1})
            staging.journal(ENDED, "report")
            months.drop()
        staging.drop()


def test_rebuild_killed_anywhere_is_cleaned_up(servers: Servers, dead: str) -> None:
    ends = 0
    for ends in kills(lambda: rebuild(servers, dead)):
        servers.fence("b;a").clean_up()
        assert servers.tables() == [], ends
    assert ends > 15
    assert servers.tables() == []


def test_living_rebuild_is_never_cleaned_up(servers: Servers) -> None:
    """Another replay begins between any two of its statements."""
    looks: list[bool] = []

    def begin_another() -> None:
        before = servers.tables()
        # There are no tables before its journal exists.
        with pytest.raises(ConfigError) if before else contextlib.nullcontext():
            servers.fence("b;a").clean_up()
        assert servers.tables() == before
        looks.append(bool(before))

    with before_statements(begin_another):
        rebuild(servers, ALIVE)
    assert looks == [False, *[True] * (len(looks) - 1)]
    assert len(looks) > 15


def test_clean_up_killed_anywhere_is_completed(servers: Servers, dead: str) -> None:
    def clean_up() -> None:
        with servers.sink("a") as a, servers.sink("b") as b:
            if not servers.tables():
                for sink in (a, b):
                    staging_on(sink, f"1_{sink is a}").create(dead)
        servers.fence("a;b").clean_up()

    for ends in kills(clean_up):
        servers.fence("b,a").clean_up()
        assert servers.tables() == [], ends


@pytest.mark.parametrize("owner", [ELSEWHERE, "a process of another form", '{"pid": "1"}', "[]"])
def test_creator_elsewhere_lives_for_two_minutes(servers: Servers, owner: str) -> None:
    """Its machine does not show whether it died before the first entry."""
    with servers.sink("a") as sink:
        for age_seconds, is_alive in ((100, True), (140, False)):
            comment = f"{(int(time.time()) - age_seconds) * 1000} {owner}"
            sink.execute(
                "CREATE TABLE octane_replay_1_a_journal (at DateTime64(3), kind String, body String) "
                f"ENGINE = MergeTree ORDER BY at COMMENT {schema.string_literal(comment)}"
            )
            before = servers.tables()
            with contextlib.ExitStack() as refusal:
                if is_alive:
                    refusal.enter_context(pytest.raises(ConfigError, match="replay 1_a works on"))
                servers.fence("b;a").clean_up()
            assert servers.tables() == (before if is_alive else [])
            sink.execute("DROP TABLE IF EXISTS octane_replay_1_a_journal SYNC")


@pytest.mark.parametrize("comment", ["", "text of another program", "12345"])
def test_empty_journal_of_earlier_release_is_dropped(servers: Servers, comment: str) -> None:
    with servers.sink("a") as sink:
        sink.execute(
            "CREATE TABLE octane_replay_1_a_journal (at DateTime64(3), kind String, body String) "
            f"ENGINE = MergeTree ORDER BY at COMMENT {schema.string_literal(comment)}"
        )
        servers.fence("b;a").clean_up()
        assert servers.tables() == []
