"""Restarts: unexpected exits, hangs, failed starts and the exit code after giving up."""

import itertools

import pytest

from octane_analytics.runtime.exit_codes import Exit
from tests.fakes.system import ProcessBehaviour
from tests.support.supervisor_rig import KILL, POLICY, TERM, SupervisorRig


@pytest.mark.parametrize("code", [0, 1, 69, -9])
def test_worker_that_exits_is_replaced(code: int) -> None:
    rig = SupervisorRig([ProcessBehaviour(ends_after=20.0, code=code), ProcessBehaviour()])
    rig.run((100.0, TERM))
    starts = [p.started_at for p in rig.system.named("worker-0")]
    assert len(starts) == 5
    assert all(20.5 <= b - a <= 21.2 for a, b in itertools.pairwise(starts))
    assert len(rig.system.named("worker-1")) == 1


@pytest.mark.parametrize(
    ("code", "cause"), [(69, "unavailable"), (78, "config"), (70, "fault"), (-9, "signal")]
)
def test_unexpected_exit_is_reported_with_its_cause(code: int, cause: str) -> None:
    rig = SupervisorRig([ProcessBehaviour(ends_after=50.0, code=code), ProcessBehaviour()])
    rig.run((60.0, TERM))
    assert rig.causes == [cause]


def test_killed_hung_worker_is_reported_as_hang() -> None:
    rig = SupervisorRig([ProcessBehaviour(hangs_after=20.0), ProcessBehaviour()])
    rig.run((100.0, TERM))
    assert rig.causes == ["hang"]


def test_failed_fork_is_retried_until_it_succeeds() -> None:
    rig = SupervisorRig([ProcessBehaviour(ends_after=20.0, code=1), ProcessBehaviour()])
    rig.fail_forks(10.0, 50.0)
    assert rig.run((60.0, TERM)) == Exit.OK
    first, second = rig.system.named("worker-0")
    assert second.started_at >= first.started_at + 30.0
    assert len(rig.system.named("worker-1")) == 1, "the other worker was not affected"


def test_service_that_exits_is_replaced() -> None:
    rig = SupervisorRig([ProcessBehaviour()], ProcessBehaviour(ends_after=20.0, code=1))
    rig.run((50.0, TERM))
    assert len(rig.system.named("metrics")) == 3


def test_restart_delay_grows_for_unstable_worker() -> None:
    rig = SupervisorRig([ProcessBehaviour(ends_after=1.0, code=1), ProcessBehaviour()])
    rig.run((40.0, TERM))
    pauses = [
        b.started_at - a.started_at - 1.0
        for a, b in itertools.pairwise(rig.system.named("worker-0"))
    ]
    assert 0.5 <= pauses[0] <= 1.1
    assert 1.0 <= pauses[1] <= 2.1
    assert all(2.0 <= pause <= 4.1 for pause in pauses[3:])


def test_fatal_worker_does_not_stop_the_others() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(starts_after=None, ends_after=0.5, code=70), ProcessBehaviour()]
    )
    assert rig.run((500.0, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == POLICY.start_attempts
    assert len(rig.system.named("worker-1")) == 1


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [
        ((70, 70), Exit.NOT_RUNNING),
        ((70, 78), Exit.NOT_RUNNING),
        ((-11, 70), Exit.NOT_RUNNING),
        ((69, 70), Exit.UNAVAILABLE),
        ((-9, -9), Exit.UNAVAILABLE),
    ],
)
def test_exit_code_without_workers_depends_on_last_exits(
    codes: tuple[int, int], exit_code: Exit
) -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(starts_after=None, ends_after=0.5, code=code) for code in codes]
    )
    assert rig.run() == exit_code
    for number, code in enumerate(codes):
        starts = 1 if code == Exit.CONFIG else POLICY.start_attempts
        assert len(rig.system.named(f"worker-{number}")) == starts
    assert rig.signals_of("metrics") == [TERM]


def test_exit_by_unnamed_signal_is_handled() -> None:
    rig = SupervisorRig([ProcessBehaviour(ends_after=20.0, code=-40), ProcessBehaviour()])
    assert rig.run((30.0, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == 2


def test_config_exit_of_all_workers_stops_supervisor() -> None:
    invalid = ProcessBehaviour(starts_after=None, ends_after=0.5, code=int(Exit.CONFIG))
    rig = SupervisorRig([invalid, invalid])
    assert rig.run() == Exit.CONFIG
    assert [len(rig.system.named(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert rig.system.now() < 1005.0


def test_config_exit_of_one_worker_keeps_others() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(ends_after=5.0, code=int(Exit.CONFIG)), ProcessBehaviour()]
    )
    assert rig.run((200.0, TERM)) == Exit.OK
    assert len(rig.system.named("worker-0")) == 1


def test_fatal_service_does_not_stop_the_workers() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour()], ProcessBehaviour(ends_after=0.2, code=int(Exit.CONFIG))
    )
    assert rig.run((200.0, TERM)) == Exit.OK
    assert rig.signals_of("worker-0") == [TERM]


def test_hung_worker_is_killed_and_replaced() -> None:
    rig = SupervisorRig([ProcessBehaviour(hangs_after=20.0), ProcessBehaviour()])
    rig.run((200.0, TERM))
    first, second, *_ = rig.system.named("worker-0")
    ((killed_at, number),) = first.signals
    assert number == KILL
    assert 79.0 <= killed_at - 1000.0 <= 82.0
    assert second.started_at - killed_at <= 1.2
    assert rig.signals_of("worker-1") == [TERM]


def test_worker_without_heartbeats_becomes_fatal() -> None:
    silent = ProcessBehaviour(starts_after=None)
    rig = SupervisorRig([silent])
    assert rig.run() == Exit.UNAVAILABLE
    assert rig.signals_of("worker-0") == [KILL] * POLICY.start_attempts


def test_simultaneous_exits_are_all_reaped_and_replaced() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour(), ProcessBehaviour()])

    def end_all() -> None:
        for process in rig.system.alive("worker"):
            rig.system.end(process, 1)

    rig.system.after(30.0, end_all)
    rig.run((60.0, TERM))
    for number in range(3):
        first, second = rig.system.named(f"worker-{number}")
        assert first.exit_code == 1
        assert second.exit_code == 0
