"""Fake of the supervisor's system calls: a process table, pending signals and a simulated clock."""

import heapq
import itertools
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from octane_analytics.errors import Unavailable
from octane_analytics.supervisor.process_plan import ChildProcess, Role
from octane_analytics.supervisor.status_board import SlotStatusWriter, StatusBoard

_STARTED_AT = 1000.0
_MAX_SECONDS = 10_000.0


@dataclass
class ProcessBehaviour:
    """Behaviour of the child processes of one name."""

    starts_after: float | None = 0.1
    """Seconds to the first heartbeat; later ones follow every second. None: no heartbeat."""
    ends_after: float | None = None
    code: int = 0
    """Exit code after `ends_after`."""
    drains_in: float | None = 0.5
    """Seconds from SIGTERM to the exit. None: SIGTERM is ignored."""
    hangs_after: float | None = None
    assigned_after: float | None = 0.2
    """Seconds to the assignment. None: no assignment."""


@dataclass
class FakeProcess:
    """Entry of the process table."""

    pid: int
    name: str
    started_at: float
    slot_status: SlotStatusWriter
    behaviour: ProcessBehaviour
    signals: list[tuple[float, int]] = field(default_factory=list)
    exit_code: int | None = None


class FakeSystem:
    """See `posix.System`. Pending signals of one number are merged, as in the kernel."""

    def __init__(self, behaviours: dict[str, ProcessBehaviour]) -> None:
        self.behaviours = behaviours
        self.processes: list[FakeProcess] = []
        self._now = _STARTED_AT
        self._schedule: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._pending: list[int] = []
        self._exited: list[FakeProcess] = []
        self._forked: tuple[SlotStatusWriter | None, ProcessBehaviour] | None = None
        self.is_fork_failing = False
        self.are_kills_ignored = False
        """Even SIGKILL has no effect, as on a process that hangs in the kernel."""

    def child(
        self, name: str, role: Role = Role.WORKER, behaviour: ProcessBehaviour | None = None
    ) -> ChildProcess:
        def run(slot_status: SlotStatusWriter) -> int:
            used = behaviour or self.behaviours.get(name) or ProcessBehaviour()
            self._forked = (slot_status, used)
            return 0

        return ChildProcess(name, role, run)

    def check(self, code: int, seconds: float) -> Callable[[], int]:
        """Return the preflight of a reload, which takes `seconds` and exits with the code."""

        def run() -> int:
            behaviour = ProcessBehaviour(starts_after=None, ends_after=seconds, code=code)
            self._forked = (None, behaviour)
            return code

        return run

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Schedule a call, in seconds from now."""
        heapq.heappush(self._schedule, (self._now + seconds, next(self._count), act))

    def send(self, seconds: float, number: int) -> None:
        """Schedule a signal to the supervisor."""
        self.after(seconds, lambda: self._raise(number))

    def alive(self, name_prefix: str = "") -> list[FakeProcess]:
        return [p for p in self.processes if p.exit_code is None and p.name.startswith(name_prefix)]

    def named(self, name: str) -> list[FakeProcess]:
        return [p for p in self.processes if p.name == name]

    def now(self) -> float:
        return self._now

    def pid(self) -> int:
        return 1

    def resident_bytes(self, pid: int) -> int | None:
        return 60_000_000

    def fork(self, name: str, run: Callable[[], int]) -> int:
        if self.is_fork_failing:
            raise Unavailable("cannot start a process: Resource temporarily unavailable")
        run()
        assert self._forked is not None
        slot_status, behaviour = self._forked
        if slot_status is None:
            slot_status = StatusBoard(1).writer(0)
        process = FakeProcess(100 + len(self.processes), name, self._now, slot_status, behaviour)
        self.processes.append(process)
        if behaviour.starts_after is not None:
            self.after(behaviour.starts_after, lambda: self._send_heartbeat(process))
        if behaviour.assigned_after is not None:
            self.after(behaviour.assigned_after, lambda: process.slot_status.assigned(2, self._now))
        if behaviour.ends_after is not None:
            self.after(behaviour.ends_after, lambda: self.end(process, behaviour.code))
        return process.pid

    def kill(self, pid: int, number: int) -> None:
        (process,) = (p for p in self.processes if p.pid == pid)
        if process.exit_code is not None or self.are_kills_ignored:
            return
        process.signals.append((self._now, number))
        drains_in = process.behaviour.drains_in
        if number == signal.SIGKILL:
            self.end(process, -signal.SIGKILL)
        elif drains_in is not None:
            self.after(drains_in, lambda: self.end(process, 0))

    def reap(self) -> Iterable[tuple[int, int]]:
        exited, self._exited = self._exited, []
        for process in exited:
            assert process.exit_code is not None
            yield process.pid, process.exit_code

    def wait_signal(
        self, timeout_seconds: float, descriptors: Sequence[tuple[int, int]] = ()
    ) -> int | None:
        deadline = self._now + max(0.0, timeout_seconds)
        assert deadline < _STARTED_AT + _MAX_SECONDS, "the supervisor does not stop"
        while not self._pending and self._schedule and self._schedule[0][0] <= deadline:
            self._now, _, act = heapq.heappop(self._schedule)
            act()
        if self._pending:
            return self._pending.pop(0)
        self._now = deadline
        return None

    def end(self, process: FakeProcess, code: int) -> None:
        if process.exit_code is None:
            process.exit_code = code
            self._exited.append(process)
            self._raise(signal.SIGCHLD)

    def _raise(self, number: int) -> None:
        if number not in self._pending:
            self._pending.append(number)

    def _send_heartbeat(self, process: FakeProcess) -> None:
        if process.exit_code is not None:
            return
        hangs_after = process.behaviour.hangs_after
        if hangs_after is None or self._now - process.started_at < hangs_after:
            process.slot_status.heartbeat(self._now)
            self.after(1.0, lambda: self._send_heartbeat(process))
