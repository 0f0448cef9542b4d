"""Conditions of an unhealthy service: numbers, limits, and sections that the manual has."""

import re
from pathlib import Path

import pytest

import octane_analytics
from octane_analytics.supervisor.slot_state import SlotPhase
from octane_analytics.supervisor.status import ServiceStatus, SlotStatus
from octane_analytics.telemetry.conditions import MAX_LAG_AGE_SECONDS, Condition, conditions
from octane_analytics.telemetry.samples import MetricSample

NOW = 1_800_000_000.0
MANUAL = Path(octane_analytics.__file__).parent / "manual"
LAG_TIME = "analytics_lag_updated_timestamp_seconds"


def sample(name: str, value: float, **labels: str) -> MetricSample:
    return MetricSample(name, labels, value)


def slot(
    name: str, state: SlotPhase = SlotPhase.RUNNING, *, is_waiting: bool = False
) -> SlotStatus:
    return SlotStatus(
        slot=name,
        is_worker=name.startswith("worker"),
        pid=1,
        state=state.value,
        uptime_seconds=1.0,
        restarts=1_234,
        partitions=1,
        events_per_second=0.0,
        lag=0,
        held_back=0,
        last_flush_seconds=None,
        is_waiting=is_waiting,
        last_error="",
        last_error_seconds=None,
        last_exit=-9,
        memory_bytes=None,
    )


def service(*slots: SlotStatus, state: str = "running") -> ServiceStatus:
    return ServiceStatus(1, state, 1.0, slots, 0, "")


UNHEALTHY = (
    *conditions([sample("analytics_outage", 1, dependency="clickhouse")], NOW),
    *conditions([sample("analytics_outage", 1, dependency="dead_letters")], NOW),
    *conditions([sample(LAG_TIME, NOW - MAX_LAG_AGE_SECONDS - 1)], NOW),
    *conditions([sample("analytics_batches_waiting", 3)], NOW),
    *service(slot("worker-0", SlotPhase.BACKOFF)).problems(),
    *service(slot("worker-0", is_waiting=True)).problems(),
    *service(slot("metrics"), state="stopping").problems(),
)


@pytest.mark.parametrize("found", UNHEALTHY, ids=lambda found: found.section)
def test_condition_names_a_section_of_the_manual(found: Condition) -> None:
    headings = re.findall(r"^### (.*)$", (MANUAL / f"{found.page}.md").read_text(), re.MULTILINE)
    assert found.section in headings
    assert re.search(r"\d", found.text)


def test_every_condition_has_its_number() -> None:
    assert [found.text for found in UNHEALTHY] == [
        "workers that wait for clickhouse: 1 (limit 0)",
        "workers that wait for dead_letters: 1 (limit 0)",
        "seconds since lag was measured: 121 (limit 120)",
        "pending batches that cannot be inserted: 3 (limit 0)",
        "worker-0 is in the state backoff (healthy: running), restarts: 1,234, last exit code: -9",
        "workers that wait for a dependency: 1 (limit 0): worker-0",
        "the service is stopping: 1 of 1 processes run",
    ]


def test_healthy_service_has_no_condition() -> None:
    healthy = [
        sample("analytics_outage", 0, dependency="kafka"),
        sample("analytics_batches_waiting", 0),
        sample(LAG_TIME, NOW - MAX_LAG_AGE_SECONDS),
    ]
    assert conditions(healthy, NOW) == conditions([], NOW) == []
    assert service(slot("metrics"), slot("worker-0")).is_healthy
    replaced = service(slot("worker-0", SlotPhase.STARTING), state="reloading")
    assert replaced.problems() == []
