"""Rollups follow every change of the table: each equals a recount of the rows after any operations."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from octane_analytics.cli.commands import schema_rollups
from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_months import Months
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.rollup_table import RollupTable
from octane_analytics.clickhouse.rollups import ROLLUPS, Rollup
from octane_analytics.errors import NeedsOperator
from octane_analytics.operations.checks.clickhouse import check_clickhouse
from octane_analytics.pipeline.repeated_insert import insert_repeated
from octane_analytics.replay.interfaces import Staged
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.sandbox import clickhouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.sandbox.engine import EngineError
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from tests.support.command import running, wait_until
from tests.support.rollup_states import assert_equal_to_rows
from tests.tools import replica_child

NOW = int(time.time()) // 86_400 * 86_400
DAY = 86_400
Columns = list[list[object]]


def columns(*rows: tuple[int, str, str]) -> Columns:
    """Columns of events: days before now, name, user."""
    properties = [
        json.dumps(
            {
                "watch_time": 1.5 + n,
                "content_id": f"c{n % 3}",
                "session_id": user,
                "query": f"q{n % 2}",
                "buffer_duration_ms": 10 + n,
                "startup_ms": 7 + n,
                "results_count": n % 2,
                "network_type": "wifi",
                "beyond": 0,
            }
        ).replace('"beyond": 0', '"beyond": 1e400' if n % 2 else '"beyond": "1e400"')
        for n, (_, _, user) in enumerate(rows)
    ]
    return [
        [NOW - days * DAY - 60 * n for n, (days, _, _) in enumerate(rows)],
        ["app"] * len(rows),
        [name for _, name, _ in rows],
        [user for _, _, user in rows],
        list(properties),
    ]


BATCH = columns(
    *(
        (days, name, f"u{user}")
        for days in (1, 35)
        for name in ("video_heartbeat", "video_start", "video_buffering", "search", "login")
        for user in range(4)
    )
)


def build(table: ClickHouse, wanted: Sequence[Rollup] = ROLLUPS) -> None:
    with StopSignal() as stop:
        schema_rollups.build(RollupTable(table), wanted, yes=True, stop=stop)


def replace_month(sink: ClickHouseSink, users: Sequence[str]) -> None:
    """Rebuild the latest month as `replay --mode rebuild` does, from these users' events."""
    live = sink.describe()
    assert live is not None
    staging = ReplayStaging(sink, "id", live)
    staging.create("owner")
    rows = columns(*((1, "video_heartbeat", user) for user in users))
    count = len(users)
    staged = Staged(partitions=[0] * count, offsets=list(range(count)), is_wanted=[1] * count)
    for column, values in zip(staged.columns, rows, strict=True):
        column.extend(v if isinstance(v, int) else str(v).encode() for v in values)
    staging.stage(staged)
    (month,) = staging.months()
    months = Months(staging)
    months.build(month, {0: count})
    months.replace(month)
    staging.drop()


OPERATIONS = st.lists(
    st.sampled_from(
        [
            ("insert", "a"),
            ("insert", "b"),
            ("repeat", "a"),
            ("repeat", "b"),
            ("alter delete", "u1"),
            ("alter delete", "u2"),
            ("lightweight delete", "u0"),
            ("ttl", ""),
            ("merge", ""),
            ("replace month", ""),
            ("drop", ""),
            ("build", ""),
        ]
    ),
    max_size=8,
)


def perform(sink: ClickHouseSink, operation: str, argument: str) -> None:
    match operation:
        case "insert" | "repeat":
            if operation == "repeat":
                insert_repeated(sink, BATCH, argument)
            else:
                sink.insert_block(BATCH, argument, None)
        case "alter delete":
            sink.select(
                f"ALTER TABLE {sink.table} DELETE WHERE user_id = '{argument}'",
                settings={"mutations_sync": 1},
            )
        case "lightweight delete":
            sink.execute(f"DELETE FROM {sink.table} WHERE user_id = '{argument}'")
        case "ttl":
            sink.select(
                f"ALTER TABLE {sink.table} MODIFY TTL timestamp + INTERVAL 30 DAY",
                settings={"mutations_sync": 1},
            )
        case "merge":
            sink.execute(f"OPTIMIZE TABLE {sink.table} FINAL")
        case "replace month":
            replace_month(sink, ["u1", "u2", "u2"])
        case "drop":
            RollupTable(sink).drop([r.name for r in ROLLUPS[:2]])
        case "build":
            build(sink)


def create(sink: ClickHouse) -> None:
    sink.execute(f"DROP TABLE IF EXISTS {sink.table} SYNC")
    sink.execute(schema.create_table(sink.table))


@given(is_built_first=st.booleans(), operations=OPERATIONS)
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_rollups_equal_rows_after_any_operations(
    clickhouse_settings: ClickHouseSettings,
    is_built_first: bool,
    operations: list[tuple[str, str]],
) -> None:
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        create(sink)
        if is_built_first:
            build(sink)
        else:
            sink.insert_block(BATCH, "full before", None)
        for operation, argument in operations:
            perform(sink, operation, argument)
        build(sink)
        assert RollupTable(sink).state().differences() == []
        assert_equal_to_rows(sink)


def test_killed_clickhouse_keeps_rollups_equal(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path) as engine:
        target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(target, client_name="tests") as sink:
            create(sink)
            build(sink)
            sink.insert_block(BATCH, "a", None)
            engine.kill()
            engine.start()
        with ClickHouseSink(target, client_name="tests") as sink:
            for _ in range(2):
                insert_repeated(sink, BATCH, "a")
            assert sink.select(f"SELECT count() FROM {sink.table}").rows == [(40,)]
            assert_equal_to_rows(sink)


@contextmanager
def replicated(directory: Path) -> Iterator[ClickHouseSettings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clickhouse, "_CHILD", replica_child.__name__)
        engine = EmbeddedClickHouse(directory, has_keeper=True)
        try:
            engine.start()
        except EngineError as error:
            if replica_child.UNKNOWN_BUILD in str(error):
                pytest.skip(replica_child.UNKNOWN_BUILD)
            raise
    try:
        yield ClickHouseSettings(host=engine.host, port=engine.tcp_port, database="replicated")
    finally:
        engine.stop()


def test_replicated_table_keeps_rollups_equal(tmp_path: Path) -> None:
    with replicated(tmp_path) as target:
        system = replace(target, database="default")
        with ClickHouse(system, client_name="tests") as root:
            root.execute("CREATE DATABASE replicated ENGINE = Atomic")
        with ClickHouseSink(target, client_name="tests") as sink:
            statement = schema.create_table(sink.table).partition("\nSETTINGS")[0]
            sink.execute(statement.replace("MergeTree()", "ReplicatedMergeTree('/t/events', 'r1')"))
            sink.insert_block(BATCH, "full before", None)
            build(sink)
            for operation, argument in (
                ("insert", "a"),
                ("repeat", "a"),
                ("lightweight delete", "u0"),
                ("alter delete", "u1"),
                ("replace month", ""),
                ("merge", ""),
            ):
                perform(sink, operation, argument)
                assert_equal_to_rows(sink)
            assert RollupTable(sink).state().differences() == []


def test_rebuild_keeps_rollups_of_another_definition(
    clickhouse_settings: ClickHouseSettings,
) -> None:
    older = replace(ROLLUPS[0], states=("countState()",))
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        table = RollupTable(sink)
        table.add([older])
        sink.insert_block(BATCH, "a", None)
        replace_month(sink, ["u1"])
        assert_equal_to_rows(sink, [older])
        state = table.state()
        assert f"rollup {older.label} is of another definition" in state.differences()
        build(sink)
        assert older.name not in table.state().projections
        assert table.state().differences() == []
        assert_equal_to_rows(sink)


def test_partial_rollups_are_reported_by_month(clickhouse_settings: ClickHouseSettings) -> None:
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.insert_block(BATCH, "a", None)
        table = RollupTable(sink)
        table.add(ROLLUPS)
        sink.insert_block(BATCH, "b", None)
        months = sorted({time.strftime("%Y%m", time.gmtime(int(str(at)))) for at in BATCH[0]})
        (found, *_) = table.state().differences()
        assert found == f"rollup {ROLLUPS[0].label} lacks 40 rows of {', '.join(months[::-1])}"
        finding = next(
            finding
            for finding in check_clickhouse(sink, "here", load({}).settings, time.time)
            if finding.subject == "rollups at here"
        )
        assert found in finding.message
        table.materialize(ROLLUPS, months[0])
        while table.unfinished():
            time.sleep(0.05)
        assert table.state().lacking(ROLLUPS[0]) == {months[-1]: 20}
        assert_equal_to_rows(sink, ())
        build(sink)
        assert_equal_to_rows(sink)


def test_failing_mutation_is_cancelled_with_its_reason(
    clickhouse_settings: ClickHouseSettings,
) -> None:
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.insert_block(BATCH, "a", None)
        sink.select(
            f"ALTER TABLE {sink.table} UPDATE user_id = toString(throwIf(1, 'as the test wants')) "
            "WHERE 1 SETTINGS mutations_sync = 0, validate_mutation_query = 0"
        )
        with pytest.raises(NeedsOperator, match=r"cannot build the rollups: .*as the test wants"):
            build(sink)
        sink.execute(f"KILL MUTATION WHERE table = '{sink.table.table}' AND NOT is_done")
        build(sink)
        assert_equal_to_rows(sink)


def test_interrupted_build_continues(clickhouse_settings: ClickHouseSettings) -> None:
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.insert_block(BATCH, "a", None)
        sink.execute(f"SYSTEM STOP MERGES {sink.table}")
        with StopSignal() as stop:
            stop._record(2, None)
            with pytest.raises(schema_rollups.BuildInterrupted, match="repeat the command"):
                schema_rollups.build(RollupTable(sink), ROLLUPS, yes=True, stop=stop)
        sink.execute(f"SYSTEM START MERGES {sink.table}")
        assert RollupTable(sink).unfinished() == []
        build(sink)
        assert_equal_to_rows(sink)


def test_interrupted_apply_resumes_while_workers_insert(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    """Ctrl-C while the mutation of the first month runs; inserts and their repeats go on throughout."""
    target = {
        "CLICKHOUSE_HOST": clickhouse_settings.host,
        "CLICKHOUSE_PORT": str(clickhouse_settings.port),
        "CLICKHOUSE_DATABASE": clickhouse_settings.database,
        "CLICKHOUSE_TABLE": clickhouse_settings.table,
    }
    command = "schema", "apply", f"--rollups={','.join(rollups.SETS)}", "--yes"
    has_ended = threading.Event()
    inserted: list[int] = []

    def insert_until_the_end() -> None:
        with ClickHouseSink(clickhouse_settings, client_name="worker") as worker:
            while not has_ended.is_set():
                worker.insert_block(BATCH, f"live {len(inserted)}", None)
                insert_repeated(worker, BATCH, f"live {len(inserted)}")
                inserted.append(len(BATCH[0]))

    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        create(sink)
        sink.execute(f"ALTER TABLE {sink.table} REMOVE TTL")
        for number in range(3):
            sink.insert_block(BATCH, f"full before {number}", None)
        table = RollupTable(sink)
        live = threading.Thread(target=insert_until_the_end)
        live.start()
        try:
            wait_until(lambda: bool(inserted))
            # Mutations wait for a merge slot that is never given, as on a busy server.
            sink.execute(f"SYSTEM STOP MERGES {sink.table}")
            with running(tmp_path / "first", *command, settings=target) as first:
                wait_until(lambda: bool(table.unfinished()))
                first.interrupt()
                assert first.wait() == 130, first.output
                assert "repeat the command to continue" in first.output
            assert table.unfinished() == []
            sink.execute(f"SYSTEM START MERGES {sink.table}")
            with running(tmp_path / "second", *command, settings=target) as second:
                # 1: the table has no TTL, which the command reports.
                assert second.wait() == 1, second.output
                assert "built rollups for" in second.output
        finally:
            has_ended.set()
            live.join()
        assert table.state().differences() == []
        (count,) = sink.select(f"SELECT count() FROM {sink.table}").rows[0]
        assert count == 3 * len(BATCH[0]) + sum(inserted)
        assert_equal_to_rows(sink)


def test_full_disk_is_reported_and_build_resumes(tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "none", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk")
    try:
        with EmbeddedClickHouse(small / "engine") as engine:
            target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
            with ClickHouseSink(target, client_name="tests") as sink, StopSignal() as stop:
                create(sink)
                sink.execute(
                    f"INSERT INTO {sink.table} SELECT now() - number % 1000, 'a', 'e', 'u', "
                    "concat('{\"x\":\"', lower(hex(randomString(300))), '\"}') FROM numbers(100000)"
                )
                filler = small / "filler"
                free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
                filler.write_bytes(bytes(free - (12 << 20)))
                table = RollupTable(sink)
                for _ in range(2):
                    with pytest.raises(
                        NeedsOperator, match=r"MiB are free; free disk, then repeat"
                    ):
                        schema_rollups.build(table, ROLLUPS[:1], yes=True, stop=stop)
                    assert table.unfinished() == []
                # A mutation of an ended command, which ClickHouse would postpone for ever.
                (month,) = table.state().lacking(ROLLUPS[0])
                table.materialize(ROLLUPS[:1], month)
                with pytest.raises(NeedsOperator, match=r"MiB are free; free disk, then repeat"):
                    schema_rollups.build(table, ROLLUPS[:1], yes=True, stop=stop)
                assert table.unfinished() == []
                assert sink.select(f"SELECT count() FROM {sink.table}").rows == [(100_000,)]
                filler.unlink()
                schema_rollups.build(table, ROLLUPS[:1], yes=True, stop=stop)
                assert_equal_to_rows(sink, ROLLUPS[:1])
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_estimate_is_of_a_sample(clickhouse_settings: ClickHouseSettings) -> None:
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.insert_block(BATCH, "a", None)
        table = RollupTable(sink)
        month = max(table.state().lacking(ROLLUPS[0]))
        cost = table.sample_cost(ROLLUPS, month)
        assert cost is not None
        assert cost.bytes > 0
        assert table.sample_cost(ROLLUPS, "209901") is None


def test_lambda_free_definitions_only() -> None:
    assert all("->" not in rollup.select for rollup in ROLLUPS)


def test_worker_needs_no_right_for_rollups(tmp_path: Path) -> None:
    worker = User("worker", grants=["GRANT SELECT, INSERT ON default.ai_analytics_events"])
    with EmbeddedClickHouse(tmp_path, users=[worker]) as engine:
        target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(target, client_name="tests") as root:
            create(root)
            build(root)
            with ClickHouseSink(replace(target, user="worker"), client_name="tests") as sink:
                sink.insert_block(BATCH, "a", None)
                assert_equal_to_rows(sink)
                with pytest.raises(NeedsOperator, match="GRANT"):
                    RollupTable(sink).state()
            assert_equal_to_rows(root)


def test_names_recognise_versions() -> None:
    for rollup in ROLLUPS:
        assert rollups.label_of(rollup.name) == rollup.label
        other = replace(rollup, states=("countState()",))
        assert other.name != rollup.name
        assert rollups.label_of(other.name) == rollup.label
    assert rollups.label_of("by_hand") is None
