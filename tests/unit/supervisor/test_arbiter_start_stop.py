"""Start and stop: order of the processes, drain, second signals and kills."""

import pytest

from octane_analytics.runtime.exit_codes import Exit
from tests.fakes.system import ProcessBehaviour
from tests.support.supervisor_rig import HUP, INT, KILL, QUIT, TERM, TTIN, TTOU, USR1, SupervisorRig


def test_supervisor_starts_each_child_once() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    assert rig.run((100.0, TERM)) == Exit.OK
    assert [p.name for p in rig.system.processes] == ["metrics", "worker-0", "worker-1"]


def test_constructor_starts_no_process() -> None:
    assert SupervisorRig([ProcessBehaviour()]).system.processes == []


@pytest.mark.parametrize("number", [TERM, INT])
def test_stop_drains_workers_before_the_service(number: int) -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=0.5), ProcessBehaviour(drains_in=20.0)])
    assert rig.run((5.0, number)) == Exit.OK
    assert rig.signals_of("worker-0") == rig.signals_of("worker-1") == [TERM]
    (metrics,) = rig.system.named("metrics")
    assert metrics.signals == [(1025.0, TERM)]


@pytest.mark.parametrize("second", [TERM, INT, QUIT])
def test_second_stop_signal_kills_remaining_children(second: int) -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=0.5), ProcessBehaviour(drains_in=None)])
    assert rig.run((5.0, TERM), (10.0, second)) == 128 + second
    assert rig.signals_of("worker-0") == [TERM]
    assert rig.signals_of("worker-1") == [TERM, KILL]
    assert rig.signals_of("metrics") == [KILL]
    assert rig.system.now() < 1012.0


def test_quit_kills_all_children_at_once() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    assert rig.run((5.0, QUIT)) == 128 + QUIT
    for name in ("worker-0", "worker-1", "metrics"):
        assert rig.signals_of(name) == [KILL]


def test_worker_past_its_drain_deadline_is_killed() -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=None), ProcessBehaviour(drains_in=29.0)])
    assert rig.run((5.0, TERM)) == Exit.OK
    (process,) = rig.system.named("worker-0")
    (term_at, _), (killed_at, number) = process.signals
    assert number == KILL
    assert 30.0 <= killed_at - term_at <= 31.1
    assert rig.signals_of("worker-1") == [TERM]
    assert rig.signals_of("metrics") == [TERM]


def test_service_past_its_drain_deadline_is_killed() -> None:
    rig = SupervisorRig([ProcessBehaviour()], ProcessBehaviour(drains_in=None))
    assert rig.run((5.0, TERM)) == Exit.OK
    assert rig.signals_of("metrics") == [TERM, KILL]


def test_worker_in_backoff_is_not_started_while_stopping() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(ends_after=5.0, code=1), ProcessBehaviour(drains_in=20.0)]
    )
    assert rig.run((5.1, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == 1


def test_stop_during_start_stops_started_workers() -> None:
    rig = SupervisorRig([ProcessBehaviour(starts_after=5.0), ProcessBehaviour(starts_after=5.0)])
    assert rig.run((0.0, TERM)) == Exit.OK
    assert rig.signals_of("worker-0") == [TERM]


def test_reload_and_scaling_signals_are_ignored_while_stopping() -> None:
    rig = SupervisorRig([ProcessBehaviour(drains_in=20.0)])
    rig.run((10.0, TERM), (12.0, HUP), (13.0, TTIN), (14.0, TTOU), (15.0, USR1))
    assert {p.name for p in rig.system.processes} == {"metrics", "worker-0"}
