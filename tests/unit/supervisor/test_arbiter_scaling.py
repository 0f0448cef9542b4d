"""Scaling by SIGTTIN and SIGTTOU."""

from tests.fakes.system import ProcessBehaviour
from tests.support.supervisor_rig import HUP, TERM, TTIN, TTOU, SupervisorRig


def test_ttin_adds_and_ttou_stops_one_worker() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    rig.run((10.0, TTIN), (20.0, TTOU), (30.0, TTOU), (50.0, TERM))
    (third,) = rig.system.named("worker-2")
    assert third.started_at == 1010.0
    assert third.signals == [(1020.0, TERM)]
    (second,) = rig.system.named("worker-1")
    assert second.signals == [(1030.0, TERM)]
    assert rig.signals_of("worker-0") == [TERM]


def test_board_has_the_target_number_of_workers() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour(drains_in=5.0)])
    targets: list[int] = []
    for seconds in (5.0, 11.0, 21.0, 31.0, 45.0):
        rig.system.after(seconds, lambda: targets.append(rig.board.target_workers))
    rig.change(rig.plan(4))
    rig.run((10.0, TTIN), (20.0, TTOU), (30.0, TTOU), (40.0, HUP), (100.0, TERM))
    assert targets == [2, 3, 2, 1, 4]


def test_ttou_keeps_the_last_worker() -> None:
    rig = SupervisorRig([ProcessBehaviour()])
    rig.run((10.0, TTOU), (50.0, TERM))
    (only,) = rig.system.named("worker-0")
    assert only.signals == [(1050.0, TERM)]


def test_ttin_stops_at_the_capacity_of_board() -> None:
    rig = SupervisorRig([ProcessBehaviour()], capacity=3)
    rig.run((10.0, TTIN), (20.0, TTIN), (50.0, TERM))
    assert {p.name for p in rig.system.processes} == {"metrics", "worker-0", "worker-1"}


def test_number_of_retiring_worker_is_not_reused() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour(), ProcessBehaviour(drains_in=25.0)])
    alive: list[str] = []
    rig.system.after(59.0, lambda: alive.extend(p.name for p in rig.system.alive("worker")))
    rig.run((10.0, TTOU), (11.0, TTOU), (15.0, TTIN), (16.0, TTIN), (60.0, TERM))
    assert sorted(alive) == ["worker-0", "worker-1", "worker-2"]
    assert len(rig.system.named("worker-2")) == 2
