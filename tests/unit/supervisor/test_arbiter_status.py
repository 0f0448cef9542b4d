"""Status: notifications to systemd, watchdog pings, log and status values."""

import itertools

import pytest

from tests.fakes.system import ProcessBehaviour
from tests.support.supervisor_rig import TERM, USR1, SupervisorRig


def test_last_status_line_has_reason_for_giving_up() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(starts_after=None, ends_after=0.5, code=code) for code in (70, -11)]
    )
    rig.run()
    lines = [sent for _, sent in rig.notifier.sent if sent.startswith("STATUS=")]
    assert lines[-1] == (
        "STATUS=gave up: no worker can start, last exits: worker-0 with 70, worker-1 with SIGSEGV"
    )


def test_usr1_logs_the_status_of_every_slot(caplog: pytest.LogCaptureFixture) -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])
    with caplog.at_level("INFO"):
        rig.run((10.0, USR1), (20.0, TERM))
    lines = [r for r in caplog.records if r.getMessage() == "status of a slot"]
    assert [r.octane_fields["slot"] for r in lines] == ["metrics", "worker-0", "worker-1"]  # type: ignore[attr-defined]


def test_ready_is_sent_once_all_workers_run() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour(starts_after=7.0)])
    rig.run((50.0, TERM))
    (ready_at,) = rig.notifier.times("READY=1")
    assert 1007.0 <= ready_at <= 1008.1


def test_ready_is_not_sent_without_a_worker() -> None:
    rig = SupervisorRig([ProcessBehaviour(starts_after=None, ends_after=0.5, code=70)])
    rig.run()
    assert rig.notifier.states() == ["STOPPING=1"]


def test_watchdog_pings_stop_if_sigkill_has_no_effect() -> None:
    rig = SupervisorRig(
        [ProcessBehaviour(hangs_after=100.0), ProcessBehaviour()], watchdog_seconds=30.0
    )
    rig.run((400.0, TERM))
    pings = rig.notifier.times("WATCHDOG=1")
    assert max(b - a for a, b in itertools.pairwise(pings)) < 15.0, (
        "replacing a hung worker interrupted the pings"
    )
    stuck = SupervisorRig(
        [ProcessBehaviour(hangs_after=100.0, drains_in=None), ProcessBehaviour()],
        watchdog_seconds=30.0,
    )
    stuck.system.are_kills_ignored = True
    stuck.system.after(400.0, lambda: setattr(stuck.system, "are_kills_ignored", False))
    stuck.run((500.0, TERM))
    pings = stuck.notifier.times("WATCHDOG=1")
    pauses = [(a, b) for a, b in itertools.pairwise(pings) if b - a > 30.0]
    ((begun, ended),) = pauses
    assert 1160.0 <= begun <= 1172.0
    assert ended >= 1400.0


def test_status_has_what_the_workers_reported() -> None:
    rig = SupervisorRig([ProcessBehaviour(), ProcessBehaviour()])

    def work() -> None:
        for number, process in enumerate(rig.system.alive("worker")):
            process.slot_status.flushed(1000 * (number + 1), rig.system.now())
            process.slot_status.set_lag(7)
        (metrics,) = rig.system.alive("metrics")
        metrics.slot_status.set_lag(20, 3)
        rig.system.alive("worker")[0].slot_status.failed("kafka", OSError("no broker"), 1015.0)

    rig.system.after(15.0, work)
    statuses = []
    rig.system.after(19.5, lambda: statuses.append(rig.supervisor.status()))
    rig.run((20.0, TERM))
    (status,) = statuses
    first, second = status.workers
    assert (first.partitions, first.is_waiting, first.last_error) == (2, True, "kafka: no broker")
    assert second.events_per_second > first.events_per_second > 0.0
    assert second.last_flush_seconds == 4.5
    assert (first.lag, second.lag) == (7, 7)
    assert (status.lag, status.held_back) == (20, 3)
    assert "lag 20 (3 held back by an open transaction)" in status.summary()
    assert not status.is_healthy
    assert status.summary().startswith("running: 2 of 2 workers up, ")
    assert "1 waiting for a dependency" in status.summary()
