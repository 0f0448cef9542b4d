"""The supervisor over a fork table, a signal queue and a clock that only it moves."""

import heapq
import itertools
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from octane_analytics.exits import Exit
from octane_analytics.supervisor.arbiter import Arbiter, Child, Role
from octane_analytics.supervisor.states import Policy

POLICY = Policy(
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
    beat: Callable[[], None]
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
        self._forked: tuple[str, Callable[[], None]] | None = None

    def child(self, name: str, role: Role = Role.WORKER) -> Child:
        def run(beat: Callable[[], None]) -> int:
            self._forked = (name, beat)
            return 0

        return Child(name, role, run)

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

    def fork(self, run: Callable[[], int]) -> int:
        run()
        assert self._forked is not None
        name, beat = self._forked
        process = Process(100 + len(self.processes), name, self._now, beat)
        self.processes.append(process)
        behaviour = self.behaviours[name]
        if behaviour.starts_after is not None:
            self.at(behaviour.starts_after, lambda: self._go_on(process, behaviour))
        if behaviour.ends_after is not None:
            self.at(behaviour.ends_after, lambda: self.end(process, behaviour.code))
        return process.pid

    def kill(self, pid: int, number: int) -> None:
        (process,) = (p for p in self.processes if p.pid == pid)
        if process.ended is not None:
            return
        process.signals.append((self._now, number))
        drains_in = self.behaviours[process.name].drains_in
        if number == signal.SIGKILL:
            self.end(process, -signal.SIGKILL)
        elif drains_in is not None:
            self.at(drains_in, lambda: self.end(process, 0))

    def reap(self) -> Iterable[tuple[int, int]]:
        ended, self._ended = self._ended, []
        for process in ended:
            assert process.ended is not None
            yield process.pid, process.ended

    def wait_signal(self, timeout_seconds: float) -> int | None:
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
            process.beat()
            self.at(1.0, lambda: self._go_on(process, behaviour))


class Rig:
    """Two workers and a service, under one supervisor."""

    def __init__(self, workers: Sequence[Behaviour], service: Behaviour | None = None) -> None:
        behaviours = {f"worker-{number}": b for number, b in enumerate(workers)}
        behaviours["metrics"] = service or Behaviour()
        self.system = FakeSystem(behaviours)
        children = [
            self.system.child("metrics", Role.SERVICE),
            *(self.system.child(f"worker-{number}") for number in range(len(workers))),
        ]
        self.arbiter = Arbiter(self.system, children, POLICY)

    def run(self, *signals: tuple[float, int]) -> int:
        for seconds, number in signals:
            self.system.send(seconds, number)
        code = self.arbiter.run()
        assert self.system.alive() == [], "a child outlives its supervisor"
        return code

    def signals_of(self, name: str) -> list[int]:
        return [number for p in self.system.of(name) for _, number in p.signals]


TERM, INT, QUIT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL


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


def test_arbiter_ends_as_unavailable_when_no_worker_gets_going() -> None:
    failing = Behaviour(starts_after=None, ends_after=0.5, code=70)
    rig = Rig([failing, failing])
    assert rig.run() == Exit.UNAVAILABLE
    assert rig.signals_of("metrics") == [TERM]


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
