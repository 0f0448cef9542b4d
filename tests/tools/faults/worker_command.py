"""The installed command `octane-analytics worker`, which can be stopped, killed and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from octane_analytics.runtime.exit_codes import Exit
from tests.support.command import COMMAND, environment
from tests.support.leash import leashed
from tests.tools.faults.audit import wait_until

_START_SECONDS = 30.0
_GOOD_ENDS = (
    Exit.OK,
    Exit.TERMINATED,  # before its preflight checks had passed
    -signal.SIGTERM,  # before its imports were complete
)


class WorkerCommand:
    """One command of one host."""

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self._settings = dict(settings)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0
        self._slots: dict[str, int] = {}

    def start(self, procs: int) -> None:
        """Returns once its processes are about to start.

        Found something away, it ends with 69, and is started again, as systemd would.
        """
        assert self._child is None, "it runs already"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            begun_at = self.log.stat().st_size if self.log.exists() else 0
            child = self._spawn(procs)
            while child.poll() is None and time.monotonic() < deadline:
                if b'"starting"' in self.log.read_bytes()[begun_at:]:
                    break
                time.sleep(0.05)
            if child.poll() != Exit.UNAVAILABLE or time.monotonic() >= deadline:
                self._child = child
                return
            time.sleep(0.5)

    def _spawn(self, procs: int) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                leashed([sys.executable, COMMAND, "worker", "--procs", str(procs)]),
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, seconds: float = 60.0) -> int:
        """Send SIGTERM and return the exit code. Raise TimeoutExpired after killing everything."""
        child, self._child = self._running(), None
        workers = self.workers()
        child.terminate()
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in workers.values():
                _signal(pid, signal.SIGKILL)
            child.kill()
            child.wait()
            raise

    def kill(self) -> None:
        """Send SIGKILL to the supervisor, whose children end with it. Does nothing if it is down."""
        if self._child is None:
            return
        child, self._child = self._child, None
        workers = self.workers()
        child.kill()
        child.wait()
        for pid in workers.values():
            wait_until(lambda pid=pid: not _is_alive(pid), 10.0, "the worker's end")  # type: ignore[misc]

    def change(self, settings: Mapping[str, str]) -> None:
        """Use these settings in addition, from the next start on."""
        self._settings |= dict(settings)

    @contextlib.contextmanager
    def changed(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Use these settings in addition for starts within the block."""
        usual = self._settings
        self._settings = usual | dict(settings)
        try:
            yield
        finally:
            self._settings = usual

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def workers(self) -> dict[str, int]:
        """Return the process ids of running workers, by slot."""
        return {slot: pid for slot, pid in self._alive().items() if slot.startswith("worker-")}

    def pid_of(self, slot: str) -> int:
        """Return the pid of the process in the slot."""
        return self._alive()[slot]

    def _alive(self) -> dict[str, int]:
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            read = log.read()
        complete = read[: read.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        for line in complete.splitlines():
            if b'"process started"' in line:
                fields = json.loads(line)
                self._slots[fields["slot"]] = fields["pid"]
        return {slot: pid for slot, pid in self._slots.items() if _is_alive(pid)}

    def tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal_supervisor(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        _signal(self._running().pid, number)

    def signal_worker(self, slot: str, number: signal.Signals) -> None:
        """Send a signal to the slot's process. Does nothing if it has just ended by itself."""
        pid = self.workers().get(slot)
        if pid is not None:
            _signal(pid, number)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "it does not run"
        return self._child


def stop_cleanly(command: WorkerCommand) -> None:
    """Stop with SIGTERM. Raise RuntimeError for an exit code that reports a failure."""
    code = command.stop()
    if code not in _GOOD_ENDS:
        raise RuntimeError(f"the worker command ended with {code} after SIGTERM")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
