"""State machine of a slot, event by event."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.slot_state import RestartPolicy, SlotPhase, SlotState

POLICY = RestartPolicy(
    first_backoff_seconds=1.0,
    cap_backoff_seconds=8.0,
    start_attempts=3,
    stable_seconds=10.0,
    heartbeat_seconds=60.0,
    drain_seconds=30.0,
)


def running_slot(now: float = 0.0) -> SlotState:
    slot = SlotState("worker-0", POLICY)
    slot.started(100, now)
    slot.heartbeat_seen(now)
    return slot


def phase_of(slot: SlotState) -> SlotPhase:
    """Return the phase; mypy assumes that an attribute keeps the value of the last assertion."""
    return slot.phase


def test_new_slot_should_start_once() -> None:
    slot = SlotState("worker-0", POLICY)
    assert slot.should_start(0.0)
    slot.started(100, 0.0)
    assert slot.phase is SlotPhase.STARTING
    assert slot.pid == 100
    assert not slot.should_start(0.0)


def test_first_heartbeat_enters_running() -> None:
    assert running_slot().phase is SlotPhase.RUNNING


@pytest.mark.parametrize("code", [0, 1, 69, 70, -9, -11])
def test_exit_is_followed_by_backoff_and_start(code: int) -> None:
    slot = running_slot()
    slot.exited(code, 20.0)
    assert slot.phase is SlotPhase.BACKOFF
    assert slot.pid is None
    assert slot.last_exit == code
    assert slot.wake_at is not None
    assert 20.5 <= slot.wake_at <= 21.0
    assert not slot.should_start(20.4)
    assert slot.should_start(21.0)


def test_failed_spawns_never_make_a_slot_fatal() -> None:
    slot = SlotState("worker-0", POLICY)
    for now in range(0, 100, 10):
        assert slot.should_start(now)
        slot.spawn_failed(now)
        assert phase_of(slot) is SlotPhase.BACKOFF
        assert not slot.should_start(now)
    slot.started(100, 100.0)
    assert phase_of(slot) is SlotPhase.STARTING


def test_backoff_grows_while_exits_repeat() -> None:
    slot = SlotState("worker-0", POLICY)
    now, pauses = 0.0, []
    for pid in range(5):
        slot.started(pid, now)
        slot.heartbeat_seen(now)
        slot.exited(1, now)
        assert slot.wake_at is not None
        pauses.append(slot.wake_at - now)
        now = slot.wake_at
    assert [low <= pause <= 2 * low for low, pause in zip([0.5, 1, 2, 4, 4], pauses, strict=True)]
    assert pauses[3] >= 4.0
    assert pauses[4] <= 8.0


def test_backoff_is_reset_after_stable_uptime() -> None:
    slot = running_slot()
    for _ in range(4):
        slot.exited(1, 0.0)
        slot.started(101, 0.0)
        slot.heartbeat_seen(1.0)
    slot.heartbeat_seen(10.0)
    slot.exited(1, 11.0)
    assert slot.wake_at is not None
    assert slot.wake_at - 11.0 <= 1.0


def test_failed_starts_make_the_slot_fatal() -> None:
    slot = SlotState("worker-0", POLICY)
    for attempt in range(3):
        assert slot.phase is not SlotPhase.FATAL
        slot.started(attempt, 0.0)
        slot.exited(1, 0.0)
    assert slot.phase is SlotPhase.FATAL
    assert not slot.should_start(1e9)
    assert slot.wake_at is None


def test_heartbeat_resets_failed_starts() -> None:
    slot = SlotState("worker-0", POLICY)
    for attempt in range(20):
        slot.started(attempt, 0.0)
        if attempt % 3 == 2:
            slot.heartbeat_seen(0.0)
        slot.exited(1, 0.0)
        assert slot.phase is SlotPhase.BACKOFF


def test_config_exit_makes_the_slot_fatal() -> None:
    slot = running_slot()
    slot.exited(int(Exit.CONFIG), 20.0)
    assert slot.phase is SlotPhase.FATAL


def test_missing_heartbeats_are_a_hang() -> None:
    slot = running_slot(now=5.0)
    assert not slot.is_hung(last_heartbeat_at=5.0, now=65.0)
    assert slot.is_hung(last_heartbeat_at=5.0, now=65.1)
    assert not slot.is_hung(last_heartbeat_at=6.0, now=65.1)


def test_hang_is_measured_from_the_start() -> None:
    slot = SlotState("worker-0", POLICY)
    slot.started(100, 1000.0)
    assert not slot.is_hung(last_heartbeat_at=3.0, now=1060.0)
    assert slot.is_hung(last_heartbeat_at=3.0, now=1060.1)


def test_stopped_slot_exits_with_its_child() -> None:
    slot = running_slot()
    slot.stop(20.0)
    assert slot.phase is SlotPhase.STOPPING
    assert not slot.should_be_killed(49.9)
    assert slot.should_be_killed(50.0)
    assert not slot.is_hung(last_heartbeat_at=0.0, now=1e9)
    slot.exited(0, 21.0)
    assert phase_of(slot) is SlotPhase.EXITED
    assert not slot.should_start(1e9)


def test_second_stop_keeps_the_drain_deadline() -> None:
    slot = running_slot()
    slot.stop(20.0)
    slot.stop(40.0)
    assert slot.should_be_killed(50.0)


def test_stop_during_backoff_exits_at_once() -> None:
    slot = running_slot()
    slot.exited(1, 20.0)
    slot.stop(20.1)
    assert slot.phase is SlotPhase.EXITED
    assert not slot.should_start(1e9)


def test_stop_before_start_prevents_the_start() -> None:
    slot = SlotState("worker-0", POLICY)
    slot.stop(0.0)
    assert not slot.should_start(1e9)


events = st.lists(
    st.tuples(
        st.sampled_from(["start", "heartbeat", "exit", "config", "stop"]), st.floats(0.0, 100.0)
    ),
    max_size=40,
)


@given(events)
def test_slot_invariants_hold_for_any_events(steps: list[tuple[str, float]]) -> None:
    slot, now, is_stopped = SlotState("worker-0", POLICY), 0.0, False
    for name, seconds in steps:
        now += seconds
        if name == "start" and slot.should_start(now):
            slot.started(100, now)
        elif name == "heartbeat" and slot.pid is not None:
            slot.heartbeat_seen(now)
        elif name in ("exit", "config") and slot.pid is not None:
            slot.exited(int(Exit.CONFIG) if name == "config" else 1, now)
        elif name == "stop":
            slot.stop(now)
            is_stopped = True
        has_child = slot.phase in (SlotPhase.STARTING, SlotPhase.RUNNING, SlotPhase.STOPPING)
        assert (slot.pid is not None) == has_child
        assert not (slot.should_start(1e12) and has_child)
        assert not (is_stopped and slot.should_start(1e12))
        assert (slot.wake_at is not None) == (slot.phase in (SlotPhase.BACKOFF, SlotPhase.STOPPING))
