"""Reload by SIGHUP: check, rolling restart, rejection and rollback."""

import itertools

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.rolling_restart import SETTLE_SECONDS
from tests.fakes.system import ProcessBehaviour
from tests.support.supervisor_rig import HUP, KILL, POLICY, TERM, TTIN, SupervisorRig


def test_reload_with_failed_fork_is_rejected() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.change(rig.plan(1))
    rig.fail_forks(10.0, 50.0)
    rig.run((20.0, HUP), (100.0, TERM))
    assert rig.adopted == 0
    assert "refused" in rig.supervisor.status().last_reload
    assert rig.notifier.states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_reload_replaces_one_process_at_a_time() -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=3.0, assigned_after=2.0)] * 3)
    rig.change(rig.plan(3))
    assert rig.run((20.0, HUP), (100.0, TERM)) == Exit.OK
    processes = [rig.system.named(f"worker-{n}") for n in range(3)]
    assert [len(p) for p in processes] == [2, 2, 2]
    for (old, new), (next_old, _) in itertools.pairwise(processes):
        (term_at, number), *_ = old.signals
        assert number == TERM
        assert new.started_at >= term_at + 3.0, (
            "the successor started before its predecessor exited"
        )
        (next_term_at, _), *_ = next_old.signals
        assert next_term_at >= new.started_at + 2.0, (
            "the next slot rolled before this one had its assignment"
        )
    assert len(rig.system.named("metrics")) == 2
    assert rig.adopted == 1
    assert rig.notifier.states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_reload_notification_has_the_monotonic_time() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.change(rig.plan(1))
    rig.run((20.0, HUP), (100.0, TERM))
    (at,) = [at for at, sent in rig.notifier.sent if sent.startswith("RELOADING=1")]
    assert rig.notifier.times(f"RELOADING=1\nMONOTONIC_USEC={int(at * 1e6)}") == [at]


def test_roll_continues_after_settling_without_an_assignment() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(assigned_after=None), ProcessBehaviour(assigned_after=None)]
    )
    rig.change(rig.plan(2))
    rig.run((20.0, HUP), (100.0, TERM))
    (_, first), (_, second) = rig.system.named("worker-0"), rig.system.named("worker-1")
    assert SETTLE_SECONDS <= second.started_at - first.started_at <= SETTLE_SECONDS + 4.0


def test_reload_with_invalid_setting_changes_nothing() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    rig.changes.append(ConfigError("BATCH_SIZE is 'many'"))
    rig.run((20.0, HUP), (100.0, TERM))
    assert [len(rig.system.named(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert rig.adopted == 0
    assert rig.notifier.states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_reload_with_failed_check_changes_nothing() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    rig.change(rig.plan(2), code=int(Exit.CONFIG))
    rig.run((20.0, HUP), (100.0, TERM))
    assert rig.causes == [], "no slot's process has exited"
    assert [len(rig.system.named(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert "refused" in rig.supervisor.status().last_reload
    assert rig.notifier.states()[-2:] == ["READY=1", "STOPPING=1"]


def test_reload_check_past_its_deadline_is_killed() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.change(rig.plan(1), seconds=1000.0)
    rig.run((20.0, HUP), (200.0, TERM))
    assert rig.signals_of("check") == [KILL]
    assert len(rig.system.named("worker-0")) == 1


def test_reload_with_failing_worker_is_rolled_back() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    broken = ProcessBehaviour(starts_after=None, ends_after=0.3, code=70)
    rig.change(rig.plan(2, {1: broken}))
    rig.run((20.0, HUP), (200.0, TERM))
    first, second = rig.system.named("worker-0"), rig.system.named("worker-1")
    assert len(first) == 3, "the slot returned to the old settings"
    assert [p.behaviour is broken for p in second] == [False, True, True, True, False]
    assert rig.adopted == 0
    assert "failed" in rig.supervisor.status().last_reload


def test_single_worker_with_config_exit_is_rolled_back() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.change(rig.plan(1, {0: ProcessBehaviour(starts_after=None, ends_after=0.3, code=78)}))
    assert rig.run((20.0, HUP), (200.0, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == 3


def test_reload_restarts_a_fatal_slot() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(starts_after=None, ends_after=0.5, code=70), ProcessBehaviour()]
    )
    rig.change(rig.plan(2, {0: ProcessBehaviour()}))
    assert rig.run((100.0, HUP), (200.0, TERM)) == Exit.OK
    assert rig.system.named("worker-0")[-1].exit_code == 0
    assert len(rig.system.named("worker-0")) == POLICY.start_attempts + 1


def test_second_reload_restarts_the_roll() -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=5.0)] * 3)
    rig.change(rig.plan(3))
    rig.change(rig.plan(3))
    rig.run((20.0, HUP), (30.0, HUP), (200.0, TERM))
    assert len(rig.system.named("worker-2")) == 2
    assert len(rig.system.named("worker-0")) == 3
    assert rig.adopted == 1


@pytest.mark.parametrize("procs", [2, 4])
def test_reload_adjusts_the_number_of_workers(procs: int) -> None:
    rig = SupervisorRig([ProcessBehaviour()] * 3)
    rig.change(rig.plan(procs))
    rig.system.after(99.0, lambda: alive.extend(p.name for p in rig.system.alive("worker")))
    alive: list[str] = []
    rig.run((20.0, HUP), (100.0, TERM))
    assert sorted(alive) == [f"worker-{n}" for n in range(procs)]


def test_reload_keeps_workers_added_by_ttin() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.change(rig.plan(1))
    alive: list[str] = []
    rig.system.after(99.0, lambda: alive.extend(p.name for p in rig.system.alive("worker")))
    rig.run((10.0, TTIN), (20.0, HUP), (100.0, TERM))
    assert sorted(alive) == ["worker-0", "worker-1"]


def test_stop_cancels_a_roll() -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=5.0)] * 3)
    rig.change(rig.plan(3))
    assert rig.run((20.0, HUP), (23.0, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == 1
    assert rig.signals_of("worker-0") == [TERM]
