"""Installed command `replay` on Apache Kafka and a real ClickHouse; rows are compared as multisets."""

import functools
import importlib.util
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.cli.commands import replay
from octane_analytics.cli.replay import owners
from octane_analytics.cli.replay.report import ReplayReport
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.errors import Unavailable
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.pipeline.intents import Intent as BatchIntent
from octane_analytics.pipeline.intents import completed
from octane_analytics.replay.interfaces import Counts
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.types import LogIdentity, OffsetRange, PartitionRange
from tests.support.command import call, run, wait_until
from tests.support.replay_runs import Scene, kill, pool
from tests.support.version_1 import Intent
from tests.tools.kafka.apache import ApacheKafka

EVENTS = 6_000
READER, WRITER, READONLY, NO_ENGINE = "reader", "writer", "readonly", "noengine"
REPLAYER, REBUILDER = "replayer", "rebuilder"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    users = [
        User(READER, grants=["GRANT SELECT, INSERT ON *.*"]),
        User(WRITER, grants=["GRANT INSERT ON *.*"]),
        User(READONLY, grants=["GRANT SELECT, INSERT ON *.*"], settings={"readonly": 1}),
        User(NO_ENGINE, grants=["GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON *.*"]),
        User(
            REBUILDER,
            grants=[
                "GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE, ALTER DELETE, TRUNCATE ON *.*",
                "GRANT TABLE ENGINE ON MergeTree",
            ],
        ),
        User(
            REPLAYER,
            grants=[
                "GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON *.*",
                "GRANT TABLE ENGINE ON MergeTree",
            ],
        ),
    ]
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"), users=users) as started:
        yield started


@pytest.fixture
def scene(kafka: ApacheKafka, engine: EmbeddedClickHouse, tmp_path: Path) -> Iterator[Scene]:
    with Scene(kafka, engine, tmp_path) as scene:
        yield scene


def random_events(events: int, seed: int = 1) -> list[bytes]:
    """Return random events, many of them identical."""
    chance = random.Random(seed)
    different = pool(events // 3, seed)
    return [chance.choice(different) for _ in range(events)]


def test_fill_equals_the_log_and_is_idempotent(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.produce([b"nonsense", b"[]"])
    scene.store()
    lost = scene.lose()
    dry = scene.replay("--from-offset", "0", "--dry-run")
    assert dry["inserted"] == lost
    assert scene.rows() == EVENTS - lost

    report = scene.replay("--from-offset", "0", "--procs", "2")

    assert scene.table() == scene.log()
    assert report["read"] == EVENTS + 2
    assert report["valid"] == EVENTS
    assert report["already_present"] == EVENTS - lost
    assert report["inserted"] == lost
    assert report["dead_lettered"] == 2
    assert scene.replay("--from-offset", "beginning")["inserted"] == 0
    assert scene.left_behind() == []


def test_fill_counts_equal_events_outside_the_range(scene: Scene) -> None:
    (event,) = pool(1, 7)
    scene.produce([event], partition=0)
    scene.produce(random_events(300))
    scene.produce([event], partition=1)
    scene.store()
    scene.clickhouse.execute(f"TRUNCATE TABLE {scene.clickhouse.table}")
    assert scene.replay("--from-offset", "0:0", "--to-offset", "0:1")["inserted"] == 2
    # The rest of the log, then ranges that overlap.
    scene.replay("--from-offset", "0:0,1:0", "--to-offset", "0:50,1:76")
    scene.replay("--from-offset", "20")
    scene.replay("--from-offset", "0")
    assert scene.table() == scene.log()


def test_fill_comparing_range_never_inserts_too_much(scene: Scene) -> None:
    scene.produce(random_events(600))
    scene.store()
    scene.clickhouse.execute(f"TRUNCATE TABLE {scene.clickhouse.table}")
    ends = dict.fromkeys(range(scene.partitions), (0, 50))
    scene.replay("--from-offset", "0", "--to-offset", "50", "--compare", "range")
    assert scene.table() == scene.log(ends)
    assert scene.replay("--from-offset", "0")["inserted"] == 400
    assert scene.table() == scene.log()


def test_fill_during_live_inserts_is_exact(scene: Scene) -> None:
    events = random_events(EVENTS)
    scene.produce(events)
    scene.store()
    scene.lose()
    # The workers insert equal events meanwhile.
    with scene.working(), scene.producing(events, rate=1500):
        wait_until(lambda: scene.rows() > EVENTS)
        scene.replay("--from-offset", "0")
        wait_until(lambda: scene.lag() == 0 and sum(scene.log().values()) == 2 * EVENTS, 60)
    assert scene.table() == scene.log()


def test_announced_range_is_left_to_the_workers(scene: Scene) -> None:
    scene.produce(random_events(400), partition=0)
    scene.store({0: 300})
    identity = LogIdentity("c", "t", "")
    scene.commit({0: 300}, Intent(OffsetRange(300, 400), identity).metadata())
    scene.lose()
    report = scene.replay("--from-offset", "0", "--partition", "0", code=Exit.FAILED)
    assert report["read"] == 300
    # Among events equal to announced ones, the number of missing rows is unknown.
    assert report["undecided"] > 0
    table, log = scene.table(), scene.log({0: (0, 300)})
    assert table <= log + scene.log({0: (300, 400)})
    assert log - table == Counter()


@pytest.mark.parametrize("is_inserted", [False, True])
def test_fill_beside_batch_of_several_partitions(scene: Scene, *, is_inserted: bool) -> None:
    """Where it is inserted, the owner of partition 1 has completed its range already."""
    events = random_events(EVENTS)
    scene.produce(events)
    ends = {p: len(events) // scene.partitions for p in range(scene.partitions)}
    log = scene.identity()
    ranges = (PartitionRange(0, 300, 500), PartitionRange(1, 200, 350), PartitionRange(2, 10, 400))
    batch = BatchIntent(scene.topic, log, ranges)
    scene.store({0: 300, 1: 200, 2: 10, 3: ends[3]})
    for item in ranges:
        scene.commit({item.partition: item.first}, batch.metadata())
    if is_inserted:
        rows = scene.log({r.partition: (r.first, r.end) for r in ranges})
        scene.clickhouse.insert_block(list(zip(*rows.elements(), strict=True)), batch.token(), None)
        scene.commit({1: 350}, completed(scene.topic, log))
    scene.lose()
    table = scene.table()

    report = scene.replay("--from-offset", "0", code=None)

    known = {0: (0, 300), 1: (0, 350 if is_inserted else 200), 2: (0, 10), 3: (0, ends[3])}
    pending = scene.log({r.partition: (r.first, r.end) for r in ranges})
    assert report["inserted"] == sum((scene.table() - table).values()) > 0
    assert scene.table() <= scene.log(known) + pending
    if not is_inserted:
        assert scene.log(known) - scene.table() == Counter()
    with scene.working():
        wait_until(lambda: scene.lag() == 0, 60)
    assert scene.table() <= scene.log()
    # Equal rows stand in for each other in a repeated insert of the batch; now all are counted.
    scene.replay("--from-offset", "0")
    assert scene.table() == scene.log()
    assert scene.replay("--from-offset", "0")["inserted"] == 0


def test_unreadable_intent_stops_replay_in_one_line(scene: Scene) -> None:
    scene.produce(random_events(400))
    scene.store()
    scene.commit({1: 100}, "octane3;what;ever;it;is")
    table = scene.table()
    done = run("replay", "--yes", "--from-offset", "0", settings=scene.settings)
    assert done.returncode == Exit.CONFIG
    assert "written by a newer version, or damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert scene.table() == table


def test_killed_fill_is_resumed_until_it_is_exact(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.store()
    scene.lose()
    process = scene.start("--from-offset", "0", "--rate", "2000")
    for pause in (0.3, 0.5, 0.2):
        wait_until(functools.partial(scene.has_begun, process))
        time.sleep(pause)
        kill(process)
        replay_id = scene.unfinished()
        assert replay_id is not None
        process = scene.start("--resume", replay_id, "--rate", "2000")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert scene.table() == scene.log()
    assert scene.left_behind() == []


def test_next_replay_drops_tables_of_killed_one(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.store()
    process = scene.start("--from-offset", "0", "--rate", "200")
    wait_until(lambda: scene.has_begun(process))
    running = run("replay", "--from-offset", "0", settings=scene.settings)
    assert running.returncode == Exit.CONFIG
    assert f"process {process.pid}" in running.stderr
    kill(process)
    left = scene.unfinished()
    assert scene.replay("--from-offset", "0")["inserted"] == 0
    assert scene.left_behind() == []
    gone = run("replay", "--resume", str(left), settings=scene.settings)
    assert gone.returncode == Exit.USAGE
    assert "start a new one" in gone.stderr


def test_replay_that_began_meanwhile_is_seen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one begins between the look for running replays and the first entry in the journal."""
    scene.produce(random_events(100))
    scene.store()
    scene.lose()
    live = scene.clickhouse.describe()
    assert live is not None
    other = ReplayStaging(scene.clickhouse, "20260101000000_aaaa", live)
    owner = owners.identity_of(os.getppid())
    monkeypatch.setattr(replay, "print_plan", lambda *_, **__: other.create(owner))
    refused = call("replay", "--from-offset", "0", settings=scene.settings)
    assert refused.returncode == Exit.CONFIG
    assert f"replay 20260101000000_aaaa works on {scene.clickhouse.table}" in refused.stderr
    assert scene.unfinished() == "20260101000000_aaaa"
    other.drop()


def test_interrupt_prints_the_command_to_resume(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.store()
    lost = scene.lose()
    process = scene.start("--from-offset", "0", "--rate", "2000")
    wait_until(lambda: scene.has_begun(process))
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED
    replay_id = scene.unfinished()
    assert f"octane-analytics replay --resume {replay_id}".encode() in errors
    assert scene.replay("--resume", str(replay_id))["inserted"] == lost
    assert scene.table() == scene.log()


def test_resumed_append_inserts_each_event_once_more(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.store()
    process = scene.start("--from-offset", "0", "--mode", "append", "--rate", "6000")
    for pause in (0.4, 0.6):
        wait_until(functools.partial(scene.has_begun, process))
        time.sleep(pause)
        kill(process)
        replay_id = scene.unfinished()
        assert replay_id is not None
        process = scene.start("--resume", replay_id, "--rate", "6000")
    out, _ = process.communicate(timeout=60)
    log = scene.log()
    assert scene.table() == log + log
    assert json.loads(out)["inserted"] == EVENTS


def test_append_into_another_table(scene: Scene) -> None:
    scene.produce(random_events(600))
    other = f"{scene.name}.elsewhere"
    scene.clickhouse.execute(f"CREATE TABLE {other} AS {scene.clickhouse.table}")
    # It is not the workers' table, so their committed offsets do not limit the range.
    report = scene.replay(
        "--from-offset", "0", "--to-offset", "end", "--mode", "append", "--target", "elsewhere"
    )
    assert report["inserted"] == 600
    assert scene.table(other) == scene.log()
    scene.replay("--from-offset", "0", "--target", other)
    assert scene.table(other) == scene.log()


def test_rebuild_is_exact_and_never_shows_partial_month(scene: Scene) -> None:
    scene.produce(random_events(EVENTS))
    scene.store()
    scene.lose()
    # Excess rows are removed as well.
    scene.clickhouse.insert_block(list(zip(*scene.log().keys(), strict=True)), None, None)
    before = scene.months(scene.clickhouse)
    observed: set[tuple[int, int]] = set()
    is_done = threading.Event()

    def watch() -> None:
        with scene.connection() as clickhouse:
            while not is_done.is_set():
                observed.update(scene.months(clickhouse).items())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        report = scene.replay("--from-offset", "0", "--mode", "rebuild")
    finally:
        is_done.set()
        watcher.join()
    assert report["inserted"] == EVENTS
    assert scene.table() == scene.log()
    assert observed == set(before.items()) | set(scene.months(scene.clickhouse).items())
    assert scene.left_behind() == []


def test_rebuild_waits_for_a_stalled_insert(scene: Scene) -> None:
    """Its batch is in the table already; the replaced month does not know the token any more."""
    scene.produce(random_events(300))
    scene.store()

    def stall() -> None:
        with scene.connection() as clickhouse:
            clickhouse.select(
                f"INSERT INTO {clickhouse.table} SELECT * FROM {clickhouse.table} "
                "WHERE NOT sleepEachRow(0.02) SETTINGS max_threads = 1",
                settings={"function_sleep_max_microseconds_per_block": 60_000_000},
                query_id="octane-insert-stalled",
            )

    query = "SELECT count() FROM system.processes WHERE query_id = 'octane-insert-stalled'"
    stalled = threading.Thread(target=stall)
    stalled.start()
    try:
        wait_until(lambda: not stalled.is_alive() or scene.clickhouse.select(query).rows == [(1,)])
        scene.replay("--from-offset", "0", "--mode", "rebuild")
    finally:
        stalled.join()
    assert scene.table() == scene.log()


def test_rebuild_during_idle_workers_loses_nothing(scene: Scene) -> None:
    events = random_events(EVENTS)
    scene.produce(events)
    scene.store()
    scene.lose()
    with scene.working():
        scene.produce(events)
        wait_until(lambda: scene.lag() == 0, 60)
        assert scene.replay("--from-offset", "0", "--mode", "rebuild")["inserted"] == 2 * EVENTS
        scene.produce(events)
        wait_until(lambda: scene.lag() == 0, 60)
    assert scene.table() == scene.log()


def test_rebuild_refuses_range_missing_events_of_month(scene: Scene) -> None:
    scene.produce(random_events(400))
    scene.store()
    table = scene.table()
    for part in (["--from-offset", "10"], ["--from-offset", "0", "--to-offset", "50"]):
        done = run("replay", "--yes", "--mode", "rebuild", *part, settings=scene.settings)
        assert done.returncode == Exit.FAILED
        assert "the range leaves out" in done.stderr
        assert "--resume" not in done.stderr
        assert scene.left_behind() == []
    assert scene.table() == table


def test_rebuild_refuses_month_removed_by_retention(scene: Scene) -> None:
    scene.produce(random_events(400))
    scene.store()
    scene.trim({0: 60})
    table = scene.table()
    for extra in ("--yes", "--dry-run"):
        done = run(
            "replay",
            "--from-offset",
            "beginning",
            "--mode",
            "rebuild",
            extra,
            settings=scene.settings,
        )
        assert done.returncode == Exit.FAILED
        assert "are not in Kafka" in done.stderr
    assert scene.table() == table
    assert scene.left_behind() == []


def test_range_by_time(scene: Scene) -> None:
    now = time.time()
    early, late = random_events(200, 2), random_events(200, 3)
    scene.produce(early, at=now - 7200)
    scene.produce(late, at=now - 60)
    scene.store()
    scene.clickhouse.execute(f"TRUNCATE TABLE {scene.clickhouse.table}")
    assert scene.replay("--from-time", "-1h")["inserted"] == 200
    assert scene.table() == scene.log(dict.fromkeys(range(4), (50, 100)))
    assert scene.replay("--from-time", "-3h", "--to-time", "-1h")["inserted"] == 200
    assert scene.table() == scene.log()


def test_removed_offsets_are_an_error_unless_clamped(scene: Scene) -> None:
    scene.produce(random_events(400))
    scene.store()
    scene.trim({0: 10, 2: 30})
    done = run("replay", "--from-offset", "0", settings=scene.settings)
    assert done.returncode == Exit.USAGE
    assert "earliest offsets are 0:10,2:30" in done.stderr
    assert scene.replay("--from-offset", "0", "--clamp")["read"] == 360


def test_wrong_arguments_of_replay_are_one_line(scene: Scene) -> None:
    scene.produce(random_events(400))
    nowhere = "127.0.0.1:1"
    _assert_refused(scene, ["--from-offset", "0"], Exit.USAGE, "has committed nothing")
    scene.store(dict.fromkeys(range(scene.partitions), 90))
    scene.trim({0: 10})
    table = scene.table()
    cases = [
        ([], Exit.USAGE, "the start is missing"),
        (["--from-offset", "20", "--partition", "9"], Exit.USAGE, "partition 9 does not exist"),
        (["--from-offset", "7:0"], Exit.USAGE, "partition 7"),
        (["--from-offset", "0"], Exit.USAGE, "earliest offsets are 0:10"),
        (["--from-offset", "90"], Exit.USAGE, "range is empty"),
        (["--from-offset", "20", "--to-offset", "20"], Exit.USAGE, "range is empty"),
        (["--from-time", "-1h", "--to-time", "-2h"], Exit.USAGE, "range is empty"),
        (["--from-time", "2100-01-01"], Exit.USAGE, "range is empty"),
        (["--from-offset", "5000"], Exit.USAGE, "after the end"),
        (["--from-offset", "20", "--to-offset", "5000"], Exit.USAGE, "after the end"),
        (["--from-offset", "20", "--to-offset", "0:5000"], Exit.USAGE, "after the end"),
        (["--from-offset", "20", "--to-offset", "end"], Exit.USAGE, "will insert the events"),
        (["--from-offset", "x"], Exit.USAGE, "write an offset"),
        (["--from-time", "yesterday"], Exit.USAGE, "is not a time"),
        (["--from-offset", "20", "--from-time", "-6h"], Exit.USAGE, "not both"),
        (["--from-offset", "20", "--rate", "0"], Exit.USAGE, "--rate"),
        (["--from-offset", "20", "--target", "nowhere"], Exit.CONFIG, "nowhere does not exist"),
        (["--from-offset", "20", "--target", "no.where"], Exit.CONFIG, "create the database"),
        (["--from-offset", "20", "--kafka-topic", "none"], Exit.CONFIG, "topic none"),
        (["--from-offset", "20", "--kafka-group-id", "none"], Exit.USAGE, "KAFKA_GROUP_ID"),
        (["--resume", "20200101000000_0000"], Exit.USAGE, "interrupted replay"),
        (["--resume", "x", "--from-offset", "20"], Exit.USAGE, "omit the options of a range"),
        (["--from-offset", "20", "--month", "202601"], Exit.USAGE, "--mode rebuild"),
        (["--from-offset", "20", "--clickhouse-user", "nobody"], Exit.CONFIG, "CLICKHOUSE_USER"),
        (["--from-offset", "20", "--clickhouse-port", "1"], Exit.UNAVAILABLE, "CLICKHOUSE_HOST"),
        (
            ["--from-offset", "20", "--kafka-bootstrap-servers", nowhere],
            Exit.UNAVAILABLE,
            "KAFKA_BOOTSTRAP_SERVERS",
        ),
    ]
    for arguments, code, expected in cases:
        _assert_refused(scene, arguments, code, expected)
    # The same with the installed command.
    done = run("replay", "--from-offset", "90", settings=scene.settings)
    assert (done.returncode, done.stderr.count("\n")) == (Exit.USAGE, 1)
    assert scene.left_behind() == []
    assert scene.table() == table


def test_missing_rights_of_the_user_are_listed(scene: Scene) -> None:
    scene.produce(random_events(40))
    scene.store()
    lost = scene.lose()
    arguments = ["--from-offset", "0", "--clickhouse-user"]
    staging_tables = f"ON {scene.name}.*"
    for user, missing in {
        READER: f"lacks CREATE TABLE {staging_tables}, DROP TABLE {staging_tables}, TABLE ENGINE ON "
        "MergeTree:",
        WRITER: f"lacks SELECT ON {scene.clickhouse.table}",
        READONLY: "read-only",
        NO_ENGINE: "lacks TABLE ENGINE ON MergeTree:",
    }.items():
        _assert_refused(scene, [*arguments, user], Exit.CONFIG, missing)
    assert scene.left_behind() == []
    assert scene.replay(*arguments, REPLAYER)["inserted"] == lost
    assert scene.table() == scene.log()
    scene.lose()
    rebuild = ["--mode", "rebuild", "--yes"]
    missing = f"lacks ALTER DELETE ON {scene.clickhouse.table}, TRUNCATE {staging_tables}:"
    _assert_refused(scene, [*arguments, REPLAYER, *rebuild], Exit.CONFIG, missing)
    scene.replay(*arguments, REBUILDER, *rebuild)
    assert scene.table() == scene.log()


def test_resumed_replay_that_was_done_is_not_repeated(
    scene: Scene, engine: EmbeddedClickHouse
) -> None:
    """The replay was killed while it dropped its tables, or was the dry run of an append."""
    scene.produce(random_events(40))
    scene.store()
    spans = {0: OffsetRange(0, 10)}
    identity = LogIdentity("c", "t", "")
    plan = ReplayPlan(
        "20261128000000_beef",
        Mode.APPEND,
        Compare.LOG,
        scene.topic,
        scene.settings["KAFKA_GROUP_ID"],
        identity,
        scene.name,
        scene.clickhouse.table.table,
        is_live=True,
        wanted=spans,
        reading=spans,
    )
    live = scene.clickhouse.describe()
    assert live is not None
    report = ReplayReport(plan, is_dry=False, counts=Counts(read=10, valid=10), inserted=10)
    entries = {"ended": report.as_json(), "dry": ""}
    for kind, body in entries.items():
        staging = ReplayStaging(scene.clickhouse, plan.id, live)
        staging.create(
            json.dumps({"host": socket.gethostname(), "pid": 0, "ticks": -1})
        )  # has exited
        staging.journal("plan", plan.as_json())
        staging.journal(kind, body)
        scene.clickhouse.execute(f"DROP TABLE {scene.name}.octane_replay_{plan.id}_log")
        resumed = call("replay", "--resume", plan.id, settings=scene.settings)
        if kind == "ended":
            assert (resumed.returncode, resumed.stderr) == (0, "")
            assert "10 inserted" in resumed.stdout
        else:
            assert resumed.returncode == Exit.USAGE
            assert "was a dry run" in resumed.stderr
            assert scene.replay("--from-offset", "0")["inserted"] == 0
        assert scene.left_behind() == []
    assert scene.table() == scene.log()


def test_resume_without_kafka_keeps_the_append(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.produce(random_events(40))
    scene.store()
    spans = {0: OffsetRange(0, 10)}
    plan = ReplayPlan(
        "20261128000000_feed",
        Mode.APPEND,
        Compare.LOG,
        scene.topic,
        scene.settings["KAFKA_GROUP_ID"],
        scene.identity(),
        scene.name,
        scene.clickhouse.table.table,
        is_live=True,
        wanted=spans,
        reading=spans,
    )
    live = scene.clickhouse.describe()
    assert live is not None
    staging = ReplayStaging(scene.clickhouse, plan.id, live)
    staging.create(json.dumps({"host": socket.gethostname(), "pid": 0, "ticks": -1}))
    staging.journal("plan", plan.as_json())

    def fail(reader: TopicReader) -> LogIdentity:
        raise Unavailable("the broker is away")

    with monkeypatch.context() as patched:
        patched.setattr(TopicReader, "identity", fail)
        away = call("replay", "--resume", plan.id, settings=scene.settings)
    assert away.returncode == Exit.UNAVAILABLE
    assert f"--resume {plan.id}" in away.stderr
    assert scene.replay("--resume", plan.id)["inserted"] == 10
    assert scene.left_behind() == []


def _assert_refused(scene: Scene, arguments: list[str], code: Exit, expected: str) -> None:
    done = call("replay", *arguments, settings=scene.settings)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), (arguments, done.stderr)
    assert expected in done.stderr
    assert done.stdout == ""
