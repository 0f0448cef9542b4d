"""One slot's life, event by event."""

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


def running(now: float = 0.0) -> SlotState:
    slot = SlotState("worker-0", POLICY)
    slot.started(100, now)
    slot.heartbeat_seen(now)
    return slot


def state_of(slot: SlotState) -> SlotPhase:
    """Anew: the type checker takes an attribute for what it was last found to be."""
    return slot.state


def test_slot_wants_to_start_once_at_first() -> None:
    slot = SlotState("worker-0", POLICY)
    assert slot.should_start(0.0)
    slot.started(100, 0.0)
    assert slot.state is SlotPhase.STARTING
    assert slot.pid == 100
    assert not slot.should_start(0.0)


def test_first_heartbeat_makes_it_run() -> None:
    assert running().state is SlotPhase.RUNNING


@pytest.mark.parametrize("code", [0, 1, 69, 70, -9, -11])
def test_exit_is_followed_by_a_start_after_a_pause(code: int) -> None:
    slot = running()
    slot.exited(code, 20.0)
    assert slot.state is SlotPhase.BACKOFF
    assert slot.pid is None
    assert slot.last_exit == code
    assert slot.wake_at is not None
    assert 20.5 <= slot.wake_at <= 21.0
    assert not slot.should_start(20.4)
    assert slot.should_start(21.0)


def test_slot_that_gets_no_process_waits_and_is_never_given_up() -> None:
    slot = SlotState("worker-0", POLICY)
    for now in range(0, 100, 10):
        assert slot.should_start(now)
        slot.spawn_failed(now)
        assert state_of(slot) is SlotPhase.BACKOFF
        assert not slot.should_start(now)
    slot.started(100, 100.0)
    assert state_of(slot) is SlotPhase.STARTING


def test_pauses_grow_while_it_does_not_last() -> None:
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


def test_pauses_begin_anew_after_it_has_lasted() -> None:
    slot = running()
    for _ in range(4):
        slot.exited(1, 0.0)
        slot.started(101, 0.0)
        slot.heartbeat_seen(1.0)
    slot.heartbeat_seen(10.0)
    slot.exited(1, 11.0)
    assert slot.wake_at is not None
    assert slot.wake_at - 11.0 <= 1.0


def test_exits_before_the_first_heartbeat_are_counted_until_it_is_given_up() -> None:
    slot = SlotState("worker-0", POLICY)
    for attempt in range(3):
        assert slot.state is not SlotPhase.FATAL
        slot.started(attempt, 0.0)
        slot.exited(1, 0.0)
    assert slot.state is SlotPhase.FATAL
    assert not slot.should_start(1e9)
    assert slot.wake_at is None


def test_heartbeat_forgives_the_starts_that_failed() -> None:
    slot = SlotState("worker-0", POLICY)
    for attempt in range(20):
        slot.started(attempt, 0.0)
        if attempt % 3 == 2:
            slot.heartbeat_seen(0.0)
        slot.exited(1, 0.0)
        assert slot.state is SlotPhase.BACKOFF


def test_wrong_configuration_is_given_up_at_once() -> None:
    slot = running()
    slot.exited(int(Exit.CONFIG), 20.0)
    assert slot.state is SlotPhase.FATAL


def test_silence_for_too_long_is_a_hang() -> None:
    slot = running(now=5.0)
    assert not slot.is_hung(last_heard_at=5.0, now=65.0)
    assert slot.is_hung(last_heard_at=5.0, now=65.1)
    assert not slot.is_hung(last_heard_at=6.0, now=65.1)


def test_silence_counts_from_the_start_whatever_the_one_before_has_said() -> None:
    slot = SlotState("worker-0", POLICY)
    slot.started(100, 1000.0)
    assert not slot.is_hung(last_heard_at=3.0, now=1060.0)
    assert slot.is_hung(last_heard_at=3.0, now=1060.1)


def test_stopped_slot_ends_with_its_child() -> None:
    slot = running()
    slot.stop(20.0)
    assert slot.state is SlotPhase.STOPPING
    assert not slot.should_be_killed(49.9)
    assert slot.should_be_killed(50.0)
    assert not slot.is_hung(last_heard_at=0.0, now=1e9)
    slot.exited(0, 21.0)
    assert state_of(slot) is SlotPhase.EXITED
    assert not slot.should_start(1e9)


def test_second_stop_does_not_put_the_deadline_off() -> None:
    slot = running()
    slot.stop(20.0)
    slot.stop(40.0)
    assert slot.should_be_killed(50.0)


def test_stopped_slot_that_waits_for_a_start_is_done_at_once() -> None:
    slot = running()
    slot.exited(1, 20.0)
    slot.stop(20.1)
    assert slot.state is SlotPhase.EXITED
    assert not slot.should_start(1e9)


def test_stopped_slot_that_never_started_never_does() -> None:
    slot = SlotState("worker-0", POLICY)
    slot.stop(0.0)
    assert not slot.should_start(1e9)


events = st.lists(
    st.tuples(st.sampled_from(["start", "heard", "exit", "config", "stop"]), st.floats(0.0, 100.0)),
    max_size=40,
)


@given(events)
def test_slot_is_never_in_two_minds(steps: list[tuple[str, float]]) -> None:
    slot, now, is_stopped = SlotState("worker-0", POLICY), 0.0, False
    for name, seconds in steps:
        now += seconds
        if name == "start" and slot.should_start(now):
            slot.started(100, now)
        elif name == "heard" and slot.pid is not None:
            slot.heartbeat_seen(now)
        elif name in ("exit", "config") and slot.pid is not None:
            slot.exited(int(Exit.CONFIG) if name == "config" else 1, now)
        elif name == "stop":
            slot.stop(now)
            is_stopped = True
        has_child = slot.state in (SlotPhase.STARTING, SlotPhase.RUNNING, SlotPhase.STOPPING)
        assert (slot.pid is not None) == has_child
        assert not (slot.should_start(1e12) and has_child)
        assert not (is_stopped and slot.should_start(1e12))
        assert (slot.wake_at is not None) == (slot.state in (SlotPhase.BACKOFF, SlotPhase.STOPPING))
