"""Short form of bin/faults: each fault lasts some seconds, then every event is counted."""

import uuid
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from tests.tools.faults.command import Result, run_at_random, run_scenario
from tests.tools.faults.engines import APACHE, Engines
from tests.tools.faults.load import Load
from tests.tools.faults.rolling import roll
from tests.tools.faults.scenarios import SCENARIOS, Scenario
from tests.tools.faults.stack import AT_LEAST_ONCE, Shape, Stack

BREAK_SECONDS = 1.0
SETTLE_SECONDS = 75.0
"""Exceeds the 30 s after which a stalled partition is read again, plus a rebalance."""
_LOG_LINES = 200
SHAPE = Shape(rate=800.0, batch_size=100, session_seconds=2.5, clickhouse_seconds=2.0)

ON_EMBEDDED = (
    *("kill-worker", "cut-answer", "recreate-topic", "move-leaders", "brokers-down"),
    *("leader-away", "spread-recovery", "trimmed-batch"),
)
ON_CLUSTER = ("brokers-in-turn", "controller-away")
ON_SHARDS = ("relist-shards", "kill-shards", "kill-worker", "cut-answer")
ON_REPLICAS = (("one-of-each", 3), ("grow-shards", 1))
"""Scenarios with their numbers of hosts."""
AT_LEAST_ONCE_TOO = ("kill-worker", "cut-answer")


def carry_out(engines: Engines, name: str, logs: Path, shape: Shape = SHAPE) -> Result:
    result = run_scenario(
        engines,
        SCENARIOS[name],
        shape,
        seed=20_261,
        break_seconds=BREAK_SECONDS,
        settle_seconds=SETTLE_SECONDS,
        logs=logs,
    )
    for log in sorted(logs.glob("*.log")):
        lines = [line for line in log.read_text().splitlines() if '"librdkafka"' not in line]
        print(log.name, *lines[-_LOG_LINES:], sep="\n")  # shown if the test fails
    assert result.breaks > 0
    assert result.report.produced > 0
    assert not result.report.problems, "\n".join(result.report.problems)
    return result


@pytest.mark.parametrize(
    "name", [name for name, scenario in SCENARIOS.items() if scenario.fits(APACHE, shards=1)]
)
def test_every_event_arrives_once_with_apache(apache: Engines, name: str, tmp_path: Path) -> None:
    carry_out(apache, name, tmp_path)


@pytest.mark.parametrize("name", AT_LEAST_ONCE_TOO)
def test_no_event_is_lost_at_least_once(apache: Engines, name: str, tmp_path: Path) -> None:
    carry_out(apache, name, tmp_path, replace(SHAPE, delivery=AT_LEAST_ONCE))


@pytest.mark.parametrize("name", ON_EMBEDDED)
def test_every_event_arrives_once_embedded(embedded: Engines, name: str, tmp_path: Path) -> None:
    carry_out(embedded, name, tmp_path)


@pytest.mark.parametrize("name", ON_CLUSTER)
def test_every_event_arrives_once_on_cluster(cluster: Engines, name: str, tmp_path: Path) -> None:
    carry_out(cluster, name, tmp_path)


@pytest.mark.parametrize("name", ON_SHARDS)
def test_every_event_arrives_once_on_shards(sharded: Engines, name: str, tmp_path: Path) -> None:
    carry_out(sharded, name, tmp_path)


@pytest.mark.parametrize(("name", "hosts"), ON_REPLICAS)
def test_every_event_arrives_once_on_replicas(
    replicated: Engines, name: str, hosts: int, tmp_path: Path
) -> None:
    shape = replace(SHAPE, hosts=hosts, procs=1, rate=400.0, session_seconds=None)
    result = carry_out(replicated, name, tmp_path, shape)
    assert len(result.report.by_server) == (3 if name == "grow-shards" else 2)
    for first, second in result.report.by_server:
        assert first == second
        assert first.rows == first.unique > 0


def test_random_run_counts_despite_a_failed_scenario(embedded: Engines, tmp_path: Path) -> None:
    def fall_over(stack: Stack, rng: Random, deadline: float) -> int:
        stack.engines.clickhouse.kill()
        stack.command.kill()
        stack.load.pause()
        raise LookupError("fell over")

    result = run_at_random(
        embedded,
        [Scenario("fall-over", "leaves everything broken", fall_over)],
        SHAPE,
        seed=1,
        seconds=1.0,
        settle_seconds=SETTLE_SECONDS,
        logs=tmp_path,
        say=Console(quiet=True),
    )
    problems = set(result.report.problems)
    assert problems == {"fall-over: LookupError: fell over"}
    assert result.report.count == result.report.produced > 0


def test_reload_under_load_keeps_events_without_session_timeout(
    apache: Engines, tmp_path: Path
) -> None:
    shape = replace(SHAPE, procs=2, rate=2500.0, batch_size=500, session_seconds=45.0)
    rolled = roll(apache, shape, tmp_path, rolls=1, seed=3, rest_seconds=0.2)
    assert not rolled.report.problems, "\n".join(rolled.report.problems)
    assert rolled.slot_pause_seconds < 20.0


def test_audit_reports_missing_and_duplicate_events(embedded: Engines, tmp_path: Path) -> None:
    with Stack(embedded, Shape(partitions=2), seed=1, directory=tmp_path) as stack:
        stack.load.burst(10)
        embedded.execute(
            f"INSERT INTO {stack.table} (timestamp, app_id, event_name, user_id, properties) "
            "SELECT now(), 'a', 'e', 'u', format('{{\"event_id\":\"{}\"}}', toString(number)) "
            "FROM (SELECT arrayJoin([0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 11]) AS number)"
        )
        load = stack.load
        report = stack.audit.report(load.is_poison, load.is_acknowledged, may_repeat=False)
        lenient = stack.audit.report(load.is_poison, load.is_acknowledged, may_repeat=True)
    assert (report.produced, report.count, report.unique) == (10, 11, 10)
    assert (report.missing, report.duplicates) == (1, 1)
    assert report.problems == [
        "missing: 1: 9 (1@4)",
        "in the table and not in the log, or no events: 1: 11 (-1@-1)",
        "more than once: 1: 1 (1@0)",
    ]
    assert lenient.problems == report.problems[:2]


def test_audit_counts_records_once_that_come_back(embedded: Engines, tmp_path: Path) -> None:
    """A broker that was killed may not know any more that it had removed records."""
    with Stack(embedded, Shape(partitions=2), seed=1, directory=tmp_path) as stack:
        stack.load.burst(10)
        removed = stack.audit.keep_before({0: 2})
        kept = stack.audit.keep()
        assert [place.number for place in removed] == [0, 2]
        assert bytes(kept.times) == bytes([1] * 10)


def test_records_removed_from_mock_cluster_stay_removed(embedded: Engines) -> None:
    topic = f"trimmed-{uuid.uuid4().hex[:8]}"
    embedded.create_topic(topic, 1)
    load = Load(embedded.kafka.bootstrap_servers, topic, partitions=1, rate=1.0, seed=1)
    load.burst(20)
    embedded.delete_records(topic, 0, 12)
    embedded.delete_records(topic, 0, 5)
    assert embedded.first_offset(topic, 0) == 12


def test_audit_counts_removed_and_refused_events(embedded: Engines, tmp_path: Path) -> None:
    with Stack(embedded, Shape(partitions=2), seed=1, directory=tmp_path) as stack:
        stack.load.burst(10)
        removed = stack.audit.keep_before({0: 2})
        embedded.delete_records(stack.topic, 0, 2)
        stack.audit.excuse([2])
        stack.audit.allow_refused([1, 3])
        embedded.execute(
            f"INSERT INTO {stack.table} (timestamp, app_id, event_name, user_id, properties) "
            "SELECT now(), 'a', 'e', 'u', format('{{\"event_id\":\"{}\"}}', toString(number)) "
            "FROM (SELECT arrayJoin([1, 4, 5, 6, 7, 8, 9]) AS number)"
        )
        load = stack.load
        report = stack.audit.report(load.is_poison, load.is_acknowledged, may_repeat=False)
    assert [place.number for place in removed] == [0, 2]
    assert report.problems == [
        "missing: 1: 0 (0@0)",
        "neither in the table nor in the dead-letter topic: 1: 3 (1@1)",
    ]
