"""Tables and remarks of the benchmark at steady rates."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.support.table_cells import headed
from tests.tools.bench.cost_goals import backlog_goals, steady_goals
from tests.tools.bench.file_system import searches_deleted_files
from tests.tools.bench.measure import Run, cpu_seconds
from tests.tools.bench.part_times import SeenInserts, inserted_parts, rows_of
from tests.tools.bench.reports.goals import Goal
from tests.tools.bench.steady import grouped, rate_remarks, steady_svg, steady_table
from tests.tools.bench.steady_run import SteadyLoad, SteadyRun

LOAD = SteadyLoad(rate=1_000, partitions=32, processes=2, seconds=7)
RUN = SteadyRun(
    contender="exactly-once",
    load=LOAD,
    sent_per_second=1_000.0,
    is_rate_held=True,
    elapsed_seconds=12.5,
    client_cpu_seconds=0.5,
    clickhouse_cpu_seconds=0.5,
    inserts=100,
    parts=9,
    p50_seconds=0.5,
    p99_seconds=1.0,
    peak_client_mib=100,
)
ENGINE = replace(
    RUN, contender="kafka-engine", client_cpu_seconds=0.0, clickhouse_cpu_seconds=0.4, inserts=4
)


def test_costs_count_every_event_that_was_sent() -> None:
    assert RUN.events == 10_000
    assert (RUN.client_cpu_us, RUN.clickhouse_cpu_us, RUN.cpu_us) == (50.0, 50.0, 100.0)
    assert RUN.cpu_share == 0.08
    assert (RUN.inserts_per_second, RUN.rows_per_insert) == (8.0, 100.0)


def test_table_compares_contenders_under_the_same_load() -> None:
    other = replace(LOAD, rate=50_000)
    table = steady_table([RUN, ENGINE, replace(RUN, load=other)])
    lines = headed(table)
    assert [line["events/CPU s x"] for line in lines] == ["0.40", "1.00", ""]
    assert [line["rows an insert"] for line in lines] == ["100", "2,500", "5,000"]


def test_rounds_of_one_load_share_a_line() -> None:
    runs = [RUN, replace(RUN, client_cpu_seconds=1.5), replace(RUN, client_cpu_seconds=1.0)]
    assert len(grouped(runs)) == 1
    (line,) = headed(steady_table(runs))
    assert line["client µs"] == "100.0 (50.0 to 150.0)"


def test_rate_that_was_not_held_is_remarked() -> None:
    assert rate_remarks([RUN, ENGINE]) == []
    (remark,) = rate_remarks([RUN, replace(RUN, is_rate_held=False, sent_per_second=812.0)])
    assert "not held in 1 of 2 runs (812/s at the least)" in remark


def test_picture_has_a_bar_for_each_contender() -> None:
    svg = steady_svg([RUN, ENGINE])
    assert "exactly-once" in svg
    assert "kafka-engine" in svg
    assert "1,000 events/s, 32 partitions, x2" in svg
    assert "100.0 µs, readable after 0.50 s (p99 1.00 s)" in svg


def test_latency_and_parts_are_in_the_table() -> None:
    (line,) = headed(steady_table([RUN, replace(RUN, p99_seconds=2.0)]))
    assert (line["p50 s"], line["p99 s"]) == ("0.50 (0.50 to 0.50)", "1.50 (1.00 to 2.00)")
    assert (line["parts"], line["MiB"]) == ("9", "100")


def goal(goals: list[Goal], start: str) -> Goal:
    (found,) = [each for each in goals if each.goal.startswith(start)]
    return found


@pytest.mark.parametrize(
    ("rate", "engine_seconds", "is_reached"), [(10_000, 2.0, True), (50_000, 1.9, False)]
)
def test_goal_compares_medians_with_the_engine(
    rate: int, engine_seconds: float, is_reached: bool
) -> None:
    load = replace(LOAD, rate=rate)
    ours = [replace(RUN, load=load, client_cpu_seconds=seconds) for seconds in (0.1, 0.5, 9.0)]
    engine = replace(ENGINE, load=load, clickhouse_cpu_seconds=engine_seconds)
    found = goal(steady_goals([*ours, engine]), f"{rate:,} events/s, 32 partitions")
    assert found.measured == f"{engine_seconds:.2f} x"
    assert found.is_reached == is_reached


def test_goals_without_their_load_are_not_measured() -> None:
    other = replace(RUN, load=replace(LOAD, rate=7, partitions=3), contender="at-least-once")
    assert {each.measured for each in steady_goals([other])} == {""}
    assert {each.measured for each in backlog_goals([])} == {""}


def test_goals_show_the_worst_load() -> None:
    cheap = replace(RUN, load=replace(LOAD, rate=10_000, partitions=8, flush_seconds=1))
    dear = replace(
        cheap, load=replace(cheap.load, partitions=128), client_cpu_seconds=0.7, p99_seconds=1.6
    )
    loose = replace(dear, contender="at-least-once", client_cpu_seconds=0.6)
    goals = steady_goals([cheap, dear, loose])
    found = goal(goals, "an event with 128 partitions")
    assert (found.measured, found.is_reached) == ("1.20 x", False)
    found = goal(goals, "p99 from produced to readable")
    assert found.measured == "1.60 s (10,000/s, 128 partitions x2)"
    assert not found.is_reached
    found = goal(goals, "exactly-once at least")
    assert (found.measured, found.is_reached) == ("0.92 x", False)
    found = goal(goals, "memory")
    assert (found.measured, found.is_reached) == ("105 MB", True)


def test_goal_of_rollups_compares_them_alone() -> None:
    rolled_up = replace(ENGINE, contender="with-rollups", clickhouse_cpu_seconds=0.5)
    found = goal(steady_goals([RUN, rolled_up, ENGINE]), "with the default rollups")
    assert (found.measured, found.is_reached) == ("0.80 x", False)


def test_few_events_may_cost_a_share_of_cpu() -> None:
    load = replace(LOAD, rate=100)
    ours = replace(RUN, load=load, client_cpu_seconds=0.05, clickhouse_cpu_seconds=0.05)
    engine = replace(ENGINE, load=load, clickhouse_cpu_seconds=0.05)
    found = goal(steady_goals([ours, engine]), "100 events/s")
    assert (found.measured, found.is_reached) == ("0.40 %", True)
    found = goal(steady_goals([replace(RUN, client_cpu_seconds=0.6)]), "1,000 events/s: a worker")
    assert (found.measured, found.is_reached) == ("2.40 %", False)


def test_backlog_goals_judge_one_process_and_largest_batches() -> None:
    run = Run("exactly-once", 50_000, 1, 8, None, 1, 1.0, 1.5, 1.5, 120, 900, 4)
    engine = replace(run, contender="kafka-engine", client_cpu_us=0.0, clickhouse_cpu_us=5.7)
    ignored = replace(run, batch_size=1_000, client_cpu_us=90.0)
    goals = backlog_goals([run, engine, ignored, replace(run, processes=2, client_cpu_us=90.0)])
    assert [(each.measured, each.is_reached) for each in goals] == [
        ("1.90 x", False),
        ("", False),
        ("1.50 µs", True),
        ("126 MB", True),
    ]


def test_only_parts_as_inserted_are_seen(tmp_path: Path) -> None:
    for name in ("202611_7_7_0", "202611_1_6_1", "202611_7_7_0_9", "tmp_insert_202611_8_8_0"):
        (tmp_path / name).mkdir()
    (tmp_path / "all_12_12_0").mkdir()
    (tmp_path / "all_12_12_0" / "count.txt").write_text("250")
    found = dict(inserted_parts(tmp_path))
    assert sorted(found) == [7, 12]
    assert rows_of(found[12]) == 250


def test_wait_for_rows_refuses_more_rows() -> None:
    seen = SeenInserts(rows=300)
    seen.wait_for_rows(300)
    with pytest.raises(click.ClickException, match="300 rows of 299 events"):
        seen.wait_for_rows(299)


@pytest.mark.parametrize(
    ("kind", "journal", "is_searching"),
    [
        ("ext4", None, True),
        ("ext4", "disk1-8", False),
        ("ext4", "disk12-8", True),
        ("xfs", None, False),
    ],
)
def test_ext4_without_journal_is_recognised(
    tmp_path: Path, kind: str, journal: str | None, is_searching: bool
) -> None:
    number = tmp_path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    proc, sysfs = tmp_path / "proc", tmp_path / "sys"
    for made in (proc / "self", proc / "fs/jbd2", sysfs / "dev/block", sysfs / "disk1"):
        made.mkdir(parents=True)
    (proc / "self/mountinfo").write_text(
        "22 1 0:5 / /proc rw - proc proc rw\n"
        f"27 1 {device} / / rw,relatime shared:1 - {kind} /dev/disk1 rw\n"
    )
    (sysfs / "dev/block" / device).symlink_to(sysfs / "disk1")
    if journal:
        (proc / "fs/jbd2" / journal).mkdir()
    assert searches_deleted_files(tmp_path, proc, sysfs) == is_searching
    (proc / "self/mountinfo").unlink()
    assert not searches_deleted_files(tmp_path, proc, sysfs)


def test_cpu_time_is_the_clock_of_the_process() -> None:
    before = time.process_time()
    spinning = threading.Thread(target=lambda: sum(range(100_000)))
    spinning.start()
    spinning.join()  # an ended thread counts too
    counted = cpu_seconds(os.getpid())
    assert before < counted <= time.process_time()


def test_cpu_time_of_a_missing_process_is_refused() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    with pytest.raises(ProcessLookupError):
        cpu_seconds(child.pid)
