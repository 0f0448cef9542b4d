"""Supervisor of workers and one service over a fake system, for the tests of its subjects."""

import signal
from collections.abc import Sequence

from octane_analytics.errors import ConfigError
from octane_analytics.supervisor.arbiter import Supervisor
from octane_analytics.supervisor.process_plan import PlanChange, ProcessPlan, Role
from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.supervisor.slot_state import RestartPolicy
from octane_analytics.supervisor.status_board import StatusBoard
from tests.fakes.system import FakeSystem, ProcessBehaviour

POLICY = RestartPolicy(
    first_backoff_seconds=1.0,
    cap_backoff_seconds=4.0,
    start_attempts=3,
    stable_seconds=10.0,
    heartbeat_seconds=60.0,
    drain_seconds=30.0,
)
TERM, INT, QUIT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL
HUP, TTIN, TTOU, USR1 = signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1


class FakeNotifier(Notifier):
    """Records notifications with their times instead of sending them."""

    def __init__(self, system: FakeSystem, watchdog_seconds: float | None) -> None:
        environ = {"NOTIFY_SOCKET": "@unused"}
        if watchdog_seconds is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
        super().__init__(environ, 1)
        self._system = system
        self.sent: list[tuple[float, str]] = []

    def _send(self, message: str) -> None:
        self.sent.append((self._system.now(), message))

    def times(self, message: str) -> list[float]:
        return [at for at, sent in self.sent if sent == message]

    def states(self) -> list[str]:
        """Return the first line of each notification, without status lines and watchdog pings."""
        lines = [sent.partition("\n")[0] for _, sent in self.sent]
        return [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG="))]


class SupervisorRig:
    """Supervisor with a worker per behaviour and the service `metrics`."""

    def __init__(
        self,
        workers: Sequence[ProcessBehaviour],
        service: ProcessBehaviour | None = None,
        *,
        watchdog_seconds: float | None = None,
        capacity: int = 10,
    ) -> None:
        behaviours = {f"worker-{number}": b for number, b in enumerate(workers)}
        behaviours["metrics"] = service or ProcessBehaviour()
        self.system = FakeSystem(behaviours)
        self.board = StatusBoard(capacity)
        self.notifier = FakeNotifier(self.system, watchdog_seconds)
        self.changes: list[PlanChange | ConfigError] = []
        """Results of the next reloads of the settings."""
        self.adopted = 0
        self.causes: list[str] = []
        """Causes of unexpected exits."""
        self.supervisor = Supervisor(
            self.system,
            self.plan(len(workers)),
            self.board,
            notifier=self.notifier,
            read_plan_change=self._read_plan_change,
            on_unexpected_exit=self.causes.append,
        )

    def plan(
        self, procs: int, behaviours: dict[int, ProcessBehaviour] | None = None
    ) -> ProcessPlan:
        """Return a plan; `behaviours` by slot override those of the constructor."""
        return ProcessPlan(
            [self.system.child("metrics", Role.SERVICE)],
            lambda slot: self.system.child(
                f"worker-{slot}", behaviour=(behaviours or {}).get(slot)
            ),
            procs,
            POLICY,
        )

    def change(self, plan: ProcessPlan, *, code: int = 0, seconds: float = 1.0) -> None:
        """Add the plan of the next reload, with the exit code and duration of its check."""

        def adopt() -> None:
            self.adopted += 1

        self.changes.append(PlanChange(plan, self.system.check(code, seconds), adopt))

    def fail_forks(self, first: float, end: float) -> None:
        """Let fork fail from `first` to `end` seconds from now."""
        for seconds, is_failing in ((first, True), (end, False)):
            self.system.after(seconds, lambda value=is_failing: self._set_fork_failing(value))  # type: ignore[misc]

    def _set_fork_failing(self, value: bool) -> None:
        self.system.is_fork_failing = value

    def _read_plan_change(self) -> PlanChange:
        change = self.changes.pop(0)
        if isinstance(change, ConfigError):
            raise change
        return change

    def run(self, *signals: tuple[float, int]) -> int:
        """Run the supervisor with the signals, each in seconds from now; return its exit code."""
        for seconds, number in signals:
            self.system.send(seconds, number)
        code = self.supervisor.run()
        assert self.system.alive() == [], "a child survived its supervisor"
        return code

    def signals_of(self, name: str) -> list[int]:
        return [number for p in self.system.named(name) for _, number in p.signals]
