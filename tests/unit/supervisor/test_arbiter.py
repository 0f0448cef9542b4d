"""The supervisor over a fork table, a signal queue and a clock that only it moves."""

import heapq
import itertools
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.supervisor.arbiter import Supervisor
from octane_analytics.supervisor.process_plan import ChildProcess, PlanChange, ProcessPlan, Role
from octane_analytics.supervisor.rolling_restart import SETTLE_SECONDS
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import SlotStatusWriter, StatusBoard

POLICY = RestartPolicy(
    first_backoff_seconds=1.0,
    cap_backoff_seconds=4.0,
    start_attempts=3,
    stable_seconds=10.0,
    heartbeat_seconds=60.0,
    drain_seconds=30.0,
)
GIVE_UP = 10_000.0


@dataclass
class Process:
    """One entry of the fork table."""

    pid: int
    name: str
    started_at: float
    figures: SlotStatusWriter
    behaviour: "Behaviour"
    signals: list[tuple[float, int]] = field(default_factory=list)
    ended: int | None = None


@dataclass
class Behaviour:
    """What the children of one name do."""

    starts_after: float | None = 0.1
    """Seconds to the first heartbeat, one each second from then on; None: it stays silent."""
    ends_after: float | None = None
    code: int = 0
    """With which it ends after that."""
    drains_in: float | None = 0.5
    """Seconds from TERM to its end; None: it does not listen."""
    hangs_after: float | None = None
    assigned_after: float | None = 0.2
    """Seconds to its assignment; None: it gets none."""


class FakeSystem:
    """See `System`. Signals of one number that wait are one signal, as with the kernel."""

    def __init__(self, behaviours: dict[str, Behaviour]) -> None:
        self.behaviours = behaviours
        self.processes: list[Process] = []
        self._now = 1000.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._pending: list[int] = []
        self._ended: list[Process] = []
        self._forked: tuple[SlotStatusWriter | None, Behaviour] | None = None
        self.lacks_room = False
        """For a further process."""
        self.is_deaf = False
        """No process hears even SIGKILL, as where one hangs in the kernel."""

    def child(
        self, name: str, role: Role = Role.WORKER, behaviour: Behaviour | None = None
    ) -> ChildProcess:
        def run(figures: SlotStatusWriter) -> int:
            self._forked = (figures, behaviour or self.behaviours.get(name) or Behaviour())
            return 0

        return ChildProcess(name, role, run)

    def check(self, code: int, seconds: float) -> Callable[[], int]:
        """What looks at new settings: it takes so long and ends so."""

        def run() -> int:
            behaviour = Behaviour(starts_after=None, ends_after=seconds, code=code)
            self._forked = (None, behaviour)
            return code

        return run

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Has something happen so many seconds from now."""
        heapq.heappush(self._agenda, (self._now + seconds, next(self._count), act))

    def send(self, seconds: float, number: int) -> None:
        self.at(seconds, lambda: self._raise(number))

    def alive(self, name: str = "") -> list[Process]:
        return [p for p in self.processes if p.ended is None and p.name.startswith(name)]

    def of(self, name: str) -> list[Process]:
        return [p for p in self.processes if p.name == name]

    def now(self) -> float:
        return self._now

    def pid(self) -> int:
        return 1

    def resident_bytes(self, pid: int) -> int | None:
        return 60_000_000

    def fork(self, name: str, run: Callable[[], int]) -> int:
        if self.lacks_room:
            raise Unavailable("cannot start a process: Resource temporarily unavailable")
        run()
        assert self._forked is not None
        figures, behaviour = self._forked
        if figures is None:
            figures = StatusBoard(1).writer(0)
        process = Process(100 + len(self.processes), name, self._now, figures, behaviour)
        self.processes.append(process)
        if behaviour.starts_after is not None:
            self.at(behaviour.starts_after, lambda: self._go_on(process, behaviour))
        if behaviour.assigned_after is not None:
            self.at(behaviour.assigned_after, lambda: process.figures.assigned(2, self._now))
        if behaviour.ends_after is not None:
            self.at(behaviour.ends_after, lambda: self.end(process, behaviour.code))
        return process.pid

    def kill(self, pid: int, number: int) -> None:
        (process,) = (p for p in self.processes if p.pid == pid)
        if process.ended is not None or self.is_deaf:
            return
        process.signals.append((self._now, number))
        drains_in = process.behaviour.drains_in
        if number == signal.SIGKILL:
            self.end(process, -signal.SIGKILL)
        elif drains_in is not None:
            self.at(drains_in, lambda: self.end(process, 0))

    def reap(self) -> Iterable[tuple[int, int]]:
        ended, self._ended = self._ended, []
        for process in ended:
            assert process.ended is not None
            yield process.pid, process.ended

    def wait_signal(
        self, timeout_seconds: float, descriptors: Sequence[tuple[int, int]] = ()
    ) -> int | None:
        deadline = self._now + max(0.0, timeout_seconds)
        assert deadline < 1000.0 + GIVE_UP, "the supervisor does not come to an end"
        while not self._pending and self._agenda and self._agenda[0][0] <= deadline:
            self._now, _, act = heapq.heappop(self._agenda)
            act()
        if self._pending:
            return self._pending.pop(0)
        self._now = deadline
        return None

    def end(self, process: Process, code: int) -> None:
        if process.ended is None:
            process.ended = code
            self._ended.append(process)
            self._raise(signal.SIGCHLD)

    def _raise(self, number: int) -> None:
        if number not in self._pending:
            self._pending.append(number)

    def _go_on(self, process: Process, behaviour: Behaviour) -> None:
        age = self._now - process.started_at
        if process.ended is not None:
            return
        if behaviour.hangs_after is None or age < behaviour.hangs_after:
            process.figures.heartbeat(self._now)
            self.at(1.0, lambda: self._go_on(process, behaviour))


class FakeNotifier(Notifier):
    """Remembers what would be sent, and when."""

    def __init__(self, system: FakeSystem, watchdog_seconds: float | None) -> None:
        environ = {"NOTIFY_SOCKET": "@nobody"}
        if watchdog_seconds is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
        super().__init__(environ, 1)
        self._system = system
        self.sent: list[tuple[float, str]] = []

    def _send(self, message: str) -> None:
        self.sent.append((self._system.now(), message))

    def times(self, message: str) -> list[float]:
        return [at for at, sent in self.sent if sent == message]

    def kinds(self) -> list[str]:
        """In their order, without status lines and pings."""
        told = [sent.partition("\n")[0] for _, sent in self.sent]
        return [t for t in told if not t.startswith(("STATUS=", "WATCHDOG="))]


class Rig:
    """Two workers and a service, under one supervisor."""

    def __init__(
        self,
        workers: Sequence[Behaviour],
        service: Behaviour | None = None,
        *,
        watchdog_seconds: float | None = None,
        capacity: int = 10,
    ) -> None:
        behaviours = {f"worker-{number}": b for number, b in enumerate(workers)}
        behaviours["metrics"] = service or Behaviour()
        self.system = FakeSystem(behaviours)
        self.board = StatusBoard(capacity)
        self.notifier = FakeNotifier(self.system, watchdog_seconds)
        self.changes: list[PlanChange | ConfigError] = []
        """What the next re-reads of the settings come to."""
        self.adopted = 0
        self.causes: list[str] = []
        """Of the ends that nobody asked for."""
        self.arbiter = Supervisor(
            self.system,
            self.plan(len(workers)),
            self.board,
            notifier=self.notifier,
            reread=self._reread,
            on_end=self.causes.append,
        )

    def plan(self, procs: int, behaviours: dict[int, Behaviour] | None = None) -> ProcessPlan:
        """`behaviours` by slot, where they are not those that the rig was made with."""
        return ProcessPlan(
            [self.system.child("metrics", Role.SERVICE)],
            lambda slot: self.system.child(
                f"worker-{slot}", behaviour=(behaviours or {}).get(slot)
            ),
            procs,
            POLICY,
        )

    def change(self, plan: ProcessPlan, *, code: int = 0, seconds: float = 1.0) -> None:
        def adopt() -> None:
            self.adopted += 1

        self.changes.append(PlanChange(plan, self.system.check(code, seconds), adopt))

    def _reread(self) -> PlanChange:
        found = self.changes.pop(0)
        if isinstance(found, ConfigError):
            raise found
        return found

    def run(self, *signals: tuple[float, int]) -> int:
        for seconds, number in signals:
            self.system.send(seconds, number)
        code = self.arbiter.run()
        assert self.system.alive() == [], "a child outlives its supervisor"
        return code

    def signals_of(self, name: str) -> list[int]:
        return [number for p in self.system.of(name) for _, number in p.signals]


TERM, INT, QUIT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
HUP, TTIN, TTOU, USR1 = signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1


def test_arbiter_starts_each_child_once() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    assert rig.run((100.0, TERM)) == Exit.OK
    assert [p.name for p in rig.system.processes] == ["metrics", "worker-0", "worker-1"]


@pytest.mark.parametrize("number", [TERM, INT])
def test_arbiter_drains_the_workers_and_ends_the_service_last(number: int) -> None:
    rig = Rig([Behaviour(drains_in=0.5), Behaviour(drains_in=20.0)])
    assert rig.run((5.0, number)) == Exit.OK
    assert rig.signals_of("worker-0") == rig.signals_of("worker-1") == [TERM]
    (metrics,) = rig.system.of("metrics")
    assert metrics.signals == [(1025.0, TERM)]


@pytest.mark.parametrize("code", [0, 1, 69, -9])
def test_arbiter_replaces_a_worker_that_ends(code: int) -> None:
    rig = Rig([Behaviour(ends_after=20.0, code=code), Behaviour()])
    rig.run((100.0, TERM))
    starts = [p.started_at for p in rig.system.of("worker-0")]
    assert len(starts) == 5
    assert all(20.5 <= b - a <= 21.2 for a, b in itertools.pairwise(starts))
    assert len(rig.system.of("worker-1")) == 1


@pytest.mark.parametrize(
    ("code", "cause"), [(69, "unavailable"), (78, "config"), (70, "fault"), (-9, "signal")]
)
def test_unasked_ends_are_told_by_cause(code: int, cause: str) -> None:
    rig = Rig([Behaviour(ends_after=50.0, code=code), Behaviour()])
    rig.run((60.0, TERM))
    assert rig.causes == [cause]


def test_end_of_a_hung_worker_is_told_as_a_hang() -> None:
    rig = Rig([Behaviour(hangs_after=20.0), Behaviour()])
    rig.run((100.0, TERM))
    assert rig.causes == ["hang"]


def _without_room(rig: Rig, begin: float, end: float) -> None:
    for at, lacks in ((begin, True), (end, False)):
        rig.system.at(at, lambda lacks=lacks: setattr(rig.system, "lacks_room", lacks))  # type: ignore[misc]


def test_arbiter_outlives_a_machine_without_room_for_a_process() -> None:
    rig = Rig([Behaviour(ends_after=20.0, code=1), Behaviour()])
    _without_room(rig, 10.0, 50.0)
    assert rig.run((60.0, TERM)) == Exit.OK
    first, second = rig.system.of("worker-0")
    assert second.started_at >= first.started_at + 30.0
    assert len(rig.system.of("worker-1")) == 1, "the other one works on"


def test_reload_for_which_there_is_no_room_is_refused() -> None:
    rig = Rig([Behaviour()])
    rig.change(rig.plan(1))
    _without_room(rig, 10.0, 50.0)
    rig.run((20.0, HUP), (100.0, TERM))
    assert rig.adopted == 0
    assert "refused" in rig.arbiter.status().last_reload
    assert rig.notifier.kinds() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_arbiter_replaces_its_service_too() -> None:
    rig = Rig([Behaviour()], Behaviour(ends_after=20.0, code=1))
    rig.run((50.0, TERM))
    assert len(rig.system.of("metrics")) == 3


def test_arbiter_waits_longer_and_longer_for_a_worker_that_does_not_last() -> None:
    rig = Rig([Behaviour(ends_after=1.0, code=1), Behaviour()])
    rig.run((40.0, TERM))
    pauses = [
        b.started_at - a.started_at - 1.0 for a, b in itertools.pairwise(rig.system.of("worker-0"))
    ]
    assert 0.5 <= pauses[0] <= 1.1
    assert 1.0 <= pauses[1] <= 2.1
    assert all(2.0 <= pause <= 4.1 for pause in pauses[3:])


def test_arbiter_gives_one_worker_up_and_goes_on_with_the_other() -> None:
    rig = Rig([Behaviour(starts_after=None, ends_after=0.5, code=70), Behaviour()])
    assert rig.run((500.0, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == POLICY.start_attempts
    assert len(rig.system.of("worker-1")) == 1


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
def test_arbiter_gives_up_with_a_code_of_its_own_when_no_worker_gets_going(
    codes: tuple[int, int], exit_code: Exit
) -> None:
    rig = Rig([Behaviour(starts_after=None, ends_after=0.5, code=code) for code in codes])
    assert rig.run() == exit_code
    for number, code in enumerate(codes):
        starts = 1 if code == Exit.CONFIG else POLICY.start_attempts
        assert len(rig.system.of(f"worker-{number}")) == starts
    assert rig.signals_of("metrics") == [TERM]


def test_systemd_is_told_last_why_the_service_gave_up() -> None:
    rig = Rig([Behaviour(starts_after=None, ends_after=0.5, code=code) for code in (70, -11)])
    rig.run()
    lines = [sent for _, sent in rig.notifier.sent if sent.startswith("STATUS=")]
    assert lines[-1] == (
        "STATUS=gave up: no worker can start, the last ends: worker-0 with 70, worker-1 with SIGSEGV"
    )


def test_end_by_a_signal_without_a_name_is_an_end_like_others() -> None:
    rig = Rig([Behaviour(ends_after=20.0, code=-40), Behaviour()])
    assert rig.run((30.0, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == 2


def test_arbiter_ends_at_once_with_78_when_the_configuration_is_wrong() -> None:
    wrong = Behaviour(starts_after=None, ends_after=0.5, code=int(Exit.CONFIG))
    rig = Rig([wrong, wrong])
    assert rig.run() == Exit.CONFIG
    assert [len(rig.system.of(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert rig.system.now() < 1005.0


def test_arbiter_goes_on_when_only_one_worker_finds_its_configuration_wrong() -> None:
    rig = Rig([Behaviour(ends_after=5.0, code=int(Exit.CONFIG)), Behaviour()])
    assert rig.run((200.0, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == 1


def test_service_that_cannot_run_does_not_end_the_workers() -> None:
    rig = Rig([Behaviour()], Behaviour(ends_after=0.2, code=int(Exit.CONFIG)))
    assert rig.run((200.0, TERM)) == Exit.OK
    assert rig.signals_of("worker-0") == [TERM]


@pytest.mark.parametrize("second", [TERM, INT, QUIT])
def test_second_signal_kills_what_is_left(second: int) -> None:
    rig = Rig([Behaviour(drains_in=0.5), Behaviour(drains_in=None)])
    assert rig.run((5.0, TERM), (10.0, second)) == 128 + second
    assert rig.signals_of("worker-0") == [TERM]
    assert rig.signals_of("worker-1") == [TERM, KILL]
    assert rig.signals_of("metrics") == [KILL]
    assert rig.system.now() < 1012.0


def test_quit_kills_at_once() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    assert rig.run((5.0, QUIT)) == 128 + QUIT
    for name in ("worker-0", "worker-1", "metrics"):
        assert rig.signals_of(name) == [KILL]


def test_worker_that_does_not_drain_in_time_is_killed() -> None:
    rig = Rig([Behaviour(drains_in=None), Behaviour(drains_in=29.0)])
    assert rig.run((5.0, TERM)) == Exit.OK
    (process,) = rig.system.of("worker-0")
    (told_at, _), (killed_at, number) = process.signals
    assert number == KILL
    assert 30.0 <= killed_at - told_at <= 31.1
    assert rig.signals_of("worker-1") == [TERM]
    assert rig.signals_of("metrics") == [TERM]


def test_service_that_does_not_end_is_killed_too() -> None:
    rig = Rig([Behaviour()], Behaviour(drains_in=None))
    assert rig.run((5.0, TERM)) == Exit.OK
    assert rig.signals_of("metrics") == [TERM, KILL]


def test_worker_that_hangs_is_killed_and_replaced() -> None:
    rig = Rig([Behaviour(hangs_after=20.0), Behaviour()])
    rig.run((200.0, TERM))
    first, second, *_ = rig.system.of("worker-0")
    ((killed_at, number),) = first.signals
    assert number == KILL
    assert 79.0 <= killed_at - 1000.0 <= 82.0
    assert second.started_at - killed_at <= 1.2
    assert rig.signals_of("worker-1") == [TERM]


def test_worker_that_never_says_anything_is_killed_and_given_up() -> None:
    silent = Behaviour(starts_after=None)
    rig = Rig([silent])
    assert rig.run() == Exit.UNAVAILABLE
    assert rig.signals_of("worker-0") == [KILL] * POLICY.start_attempts


def test_children_that_end_together_are_all_replaced_on_one_signal() -> None:
    rig = Rig([Behaviour(), Behaviour(), Behaviour()])

    def end_all() -> None:
        for process in rig.system.alive("worker"):
            rig.system.end(process, 1)

    rig.system.at(30.0, end_all)
    rig.run((60.0, TERM))
    for number in range(3):
        first, second = rig.system.of(f"worker-{number}")
        assert first.ended == 1
        assert second.ended == 0


def test_worker_that_waits_for_its_start_is_not_started_any_more_once_stopping() -> None:
    rig = Rig([Behaviour(ends_after=5.0, code=1), Behaviour(drains_in=20.0)])
    assert rig.run((5.1, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == 1


def test_signal_during_the_start_ends_what_has_started() -> None:
    rig = Rig([Behaviour(starts_after=5.0), Behaviour(starts_after=5.0)])
    assert rig.run((0.0, TERM)) == Exit.OK
    assert rig.signals_of("worker-0") == [TERM]


def test_arbiter_touches_nothing_before_it_runs() -> None:
    assert Rig([Behaviour()]).system.processes == []


def test_hup_replaces_one_process_after_the_other() -> None:
    rig = Rig([Behaviour(drains_in=3.0, assigned_after=2.0)] * 3)
    rig.change(rig.plan(3))
    assert rig.run((20.0, HUP), (100.0, TERM)) == Exit.OK
    processes = [rig.system.of(f"worker-{n}") for n in range(3)]
    assert [len(p) for p in processes] == [2, 2, 2]
    for (old, new), (following, _) in itertools.pairwise(processes):
        (told_at, number), *_ = old.signals
        assert number == TERM
        assert new.started_at >= told_at + 3.0, "a successor before its predecessor has ended"
        (told_next_at, _), *_ = following.signals
        assert told_next_at >= new.started_at + 2.0, "the next before this one has its assignment"
    assert len(rig.system.of("metrics")) == 2
    assert rig.adopted == 1
    assert rig.notifier.kinds() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_reload_tells_the_monotonic_time() -> None:
    rig = Rig([Behaviour()])
    rig.change(rig.plan(1))
    rig.run((20.0, HUP), (100.0, TERM))
    (at,) = [at for at, sent in rig.notifier.sent if sent.startswith("RELOADING=1")]
    assert rig.notifier.times(f"RELOADING=1\nMONOTONIC_USEC={int(at * 1e6)}") == [at]


def test_successor_without_an_assignment_is_not_waited_for_for_ever() -> None:
    rig = Rig([Behaviour(assigned_after=None), Behaviour(assigned_after=None)])
    rig.change(rig.plan(2))
    rig.run((20.0, HUP), (100.0, TERM))
    (_, first), (_, second) = rig.system.of("worker-0"), rig.system.of("worker-1")
    assert SETTLE_SECONDS <= second.started_at - first.started_at <= SETTLE_SECONDS + 4.0


def test_setting_that_is_wrong_changes_nothing() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    rig.changes.append(ConfigError("BATCH_SIZE is 'many'"))
    rig.run((20.0, HUP), (100.0, TERM))
    assert [len(rig.system.of(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert rig.adopted == 0
    assert rig.notifier.kinds() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_settings_that_do_not_work_change_nothing() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    rig.change(rig.plan(2), code=int(Exit.CONFIG))
    rig.run((20.0, HUP), (100.0, TERM))
    assert rig.causes == [], "no process of a slot has ended"
    assert [len(rig.system.of(f"worker-{n}")) for n in (0, 1)] == [1, 1]
    assert "refused" in rig.arbiter.status().last_reload
    assert rig.notifier.kinds()[-2:] == ["READY=1", "STOPPING=1"]


def test_look_at_settings_that_takes_too_long_is_ended() -> None:
    rig = Rig([Behaviour()])
    rig.change(rig.plan(1), seconds=1000.0)
    rig.run((20.0, HUP), (200.0, TERM))
    assert rig.signals_of("check") == [KILL]
    assert len(rig.system.of("worker-0")) == 1


def test_settings_with_which_no_process_starts_are_taken_back() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    broken = Behaviour(starts_after=None, ends_after=0.3, code=70)
    rig.change(rig.plan(2, {1: broken}))
    rig.run((20.0, HUP), (200.0, TERM))
    first, second = rig.system.of("worker-0"), rig.system.of("worker-1")
    assert len(first) == 3, "it goes back to the old settings too"
    assert [p.behaviour is broken for p in second] == [False, True, True, True, False]
    assert rig.adopted == 0
    assert "failed" in rig.arbiter.status().last_reload


def test_only_worker_that_finds_the_new_configuration_wrong_gets_the_old_one_back() -> None:
    rig = Rig([Behaviour()])
    rig.change(rig.plan(1, {0: Behaviour(starts_after=None, ends_after=0.3, code=78)}))
    assert rig.run((20.0, HUP), (200.0, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == 3


def test_hup_brings_a_slot_back_that_was_given_up() -> None:
    rig = Rig([Behaviour(starts_after=None, ends_after=0.5, code=70), Behaviour()])
    rig.change(rig.plan(2, {0: Behaviour()}))
    assert rig.run((100.0, HUP), (200.0, TERM)) == Exit.OK
    assert rig.system.of("worker-0")[-1].ended == 0
    assert len(rig.system.of("worker-0")) == POLICY.start_attempts + 1


def test_second_hup_reads_again_and_begins_anew() -> None:
    rig = Rig([Behaviour(drains_in=5.0)] * 3)
    rig.change(rig.plan(3))
    rig.change(rig.plan(3))
    rig.run((20.0, HUP), (30.0, HUP), (200.0, TERM))
    assert len(rig.system.of("worker-2")) == 2
    assert len(rig.system.of("worker-0")) == 3
    assert rig.adopted == 1


@pytest.mark.parametrize("procs", [2, 4])
def test_hup_follows_a_changed_number_of_processes(procs: int) -> None:
    rig = Rig([Behaviour()] * 3)
    rig.change(rig.plan(procs))
    rig.system.at(99.0, lambda: seen.extend(p.name for p in rig.system.alive("worker")))
    seen: list[str] = []
    rig.run((20.0, HUP), (100.0, TERM))
    assert sorted(seen) == [f"worker-{n}" for n in range(procs)]


def test_hup_leaves_the_number_that_ttin_has_made() -> None:
    rig = Rig([Behaviour()])
    rig.change(rig.plan(1))
    seen: list[str] = []
    rig.system.at(99.0, lambda: seen.extend(p.name for p in rig.system.alive("worker")))
    rig.run((10.0, TTIN), (20.0, HUP), (100.0, TERM))
    assert sorted(seen) == ["worker-0", "worker-1"]


def test_ttin_and_ttou_start_and_end_one_worker() -> None:
    rig = Rig([Behaviour(), Behaviour()])
    rig.run((10.0, TTIN), (20.0, TTOU), (30.0, TTOU), (50.0, TERM))
    (third,) = rig.system.of("worker-2")
    assert third.started_at == 1010.0
    assert third.signals == [(1020.0, TERM)]
    (second,) = rig.system.of("worker-1")
    assert second.signals == [(1030.0, TERM)]
    assert rig.signals_of("worker-0") == [TERM]


def test_board_has_the_number_of_workers_that_are_to_be() -> None:
    rig = Rig([Behaviour(), Behaviour(drains_in=5.0)])
    seen: list[int] = []
    for seconds in (5.0, 11.0, 21.0, 31.0, 45.0):
        rig.system.at(seconds, lambda: seen.append(rig.board.workers))
    rig.change(rig.plan(4))
    rig.run((10.0, TTIN), (20.0, TTOU), (30.0, TTOU), (40.0, HUP), (100.0, TERM))
    assert seen == [2, 3, 2, 1, 4]


def test_last_worker_stays() -> None:
    rig = Rig([Behaviour()])
    rig.run((10.0, TTOU), (50.0, TERM))
    (only,) = rig.system.of("worker-0")
    assert only.signals == [(1050.0, TERM)]


def test_no_more_workers_than_there_is_room_for() -> None:
    rig = Rig([Behaviour()], capacity=3)
    rig.run((10.0, TTIN), (20.0, TTIN), (50.0, TERM))
    assert {p.name for p in rig.system.processes} == {"metrics", "worker-0", "worker-1"}


def test_worker_that_leaves_keeps_its_number_from_being_given_twice() -> None:
    rig = Rig([Behaviour(), Behaviour(), Behaviour(drains_in=25.0)])
    seen: list[str] = []
    rig.system.at(59.0, lambda: seen.extend(p.name for p in rig.system.alive("worker")))
    rig.run((10.0, TTOU), (11.0, TTOU), (15.0, TTIN), (16.0, TTIN), (60.0, TERM))
    assert sorted(seen) == ["worker-0", "worker-1", "worker-2"]
    assert len(rig.system.of("worker-2")) == 2


def test_signals_that_change_something_come_too_late_while_stopping() -> None:
    rig = Rig([Behaviour(drains_in=20.0)])
    rig.run((10.0, TERM), (12.0, HUP), (13.0, TTIN), (14.0, TTOU), (15.0, USR1))
    assert {p.name for p in rig.system.processes} == {"metrics", "worker-0"}


def test_term_ends_a_roll() -> None:
    rig = Rig([Behaviour(drains_in=5.0)] * 3)
    rig.change(rig.plan(3))
    assert rig.run((20.0, HUP), (23.0, TERM)) == Exit.OK
    assert len(rig.system.of("worker-0")) == 1
    assert rig.signals_of("worker-0") == [TERM]


def test_usr1_says_how_every_slot_does(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig([Behaviour(), Behaviour()])
    with caplog.at_level("INFO"):
        rig.run((10.0, USR1), (20.0, TERM))
    told = [r for r in caplog.records if r.getMessage() == "status of a slot"]
    assert [r.octane_fields["slot"] for r in told] == ["metrics", "worker-0", "worker-1"]  # type: ignore[attr-defined]


def test_ready_once_every_worker_runs() -> None:
    rig = Rig([Behaviour(), Behaviour(starts_after=7.0)])
    rig.run((50.0, TERM))
    (ready_at,) = rig.notifier.times("READY=1")
    assert 1007.0 <= ready_at <= 1008.1


def test_not_ready_when_no_worker_starts() -> None:
    rig = Rig([Behaviour(starts_after=None, ends_after=0.5, code=70)])
    rig.run()
    assert rig.notifier.kinds() == ["STOPPING=1"]


def test_pings_come_often_enough_and_end_when_killing_does_not_help() -> None:
    rig = Rig([Behaviour(hangs_after=100.0), Behaviour()], watchdog_seconds=30.0)
    rig.run((400.0, TERM))
    pings = rig.notifier.times("WATCHDOG=1")
    assert max(b - a for a, b in itertools.pairwise(pings)) < 15.0, "a replaced one is no reason"
    stuck = Rig([Behaviour(hangs_after=100.0, drains_in=None), Behaviour()], watchdog_seconds=30.0)
    stuck.system.is_deaf = True
    stuck.system.at(400.0, lambda: setattr(stuck.system, "is_deaf", False))
    stuck.run((500.0, TERM))
    pings = stuck.notifier.times("WATCHDOG=1")
    pauses = [(a, b) for a, b in itertools.pairwise(pings) if b - a > 30.0]
    ((begun, ended),) = pauses
    assert 1160.0 <= begun <= 1172.0
    assert ended >= 1400.0


def test_status_tells_what_the_workers_report() -> None:
    rig = Rig([Behaviour(), Behaviour()])

    def work() -> None:
        for number, process in enumerate(rig.system.alive("worker")):
            process.figures.flushed(1000 * (number + 1), rig.system.now())
            process.figures.set_lag(7)
        (metrics,) = rig.system.alive("metrics")
        metrics.figures.set_lag(20, 3)
        rig.system.alive("worker")[0].figures.failed("kafka", OSError("no broker"), 1015.0)

    rig.system.at(15.0, work)
    seen = []
    rig.system.at(19.5, lambda: seen.append(rig.arbiter.status()))
    rig.run((20.0, TERM))
    (status,) = seen
    first, second = status.workers
    assert (first.partitions, first.is_waiting, first.last_error) == (2, True, "kafka: no broker")
    assert second.events_per_second > first.events_per_second > 0.0
    assert second.last_flush_seconds == 4.5
    assert (first.lag, second.lag) == (7, 7)
    assert (status.lag, status.held_back) == (20, 3)
    assert "lag 20 (3 held back by an open transaction)" in status.line()
    assert not status.is_healthy
    assert status.line().startswith("running: 2 of 2 workers up, ")
    assert "1 waiting for a dependency" in status.line()
