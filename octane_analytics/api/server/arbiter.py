"""gunicorn's arbiter as this service wants it: signals, slots, and what systemd is told.

A worker gets the lowest slot that is free, which names its metrics files and its log lines, so that
their number is bounded. Refuses to know the app.
"""

import itertools
import logging
import signal
import time
from typing import Any

import gunicorn.arbiter
from gunicorn.app.base import BaseApplication

from octane_analytics.supervisor.sd_notify import Notifier
from octane_analytics.telemetry.logging import fields

_BOOT_SECONDS = 10.0
"""How long a reload waits for the new workers before the old ones have to go."""
_ALIVE_SECONDS = 1.0
_LEAVING = 0
"""In place of the number, from 1 up, that gunicorn gives each worker."""

log = logging.getLogger(__name__)


class ApiArbiter(gunicorn.arbiter.Arbiter):  # type: ignore[misc]
    """Says READY once every worker answers, and pings while its loop turns.

    gunicorn itself would say READY before the first fork, where NOTIFY_SOCKET is in the environment;
    so the caller takes it out.
    """

    def __init__(self, application: BaseApplication, notifier: Notifier) -> None:
        # gunicorn keeps both on the class.
        self.LISTENERS: list[Any] = []
        self.WORKERS: dict[int, Any] = {}
        self._notifier = notifier
        self._is_ready = self._is_stopping = False
        self._last_ping = float("-inf")
        self._spawn_error = ""
        """Why the last worker could not be started, so that it is told once."""
        super().__init__(application)

    def handle_int(self) -> None:
        # gunicorn would send its workers SIGQUIT, and wait in vain for uvicorn's to act on it.
        self.handle_term()

    def handle_quit(self) -> None:
        self.kill_workers(signal.SIGKILL)
        raise StopIteration

    def handle_usr2(self) -> None:
        log.warning("SIGUSR2 is not served: restart the service to run another version")

    def reload(self) -> None:
        self._notifier.reloading(time.monotonic())
        super().reload()
        self._notifier.ready()

    def stop(self, graceful: bool = True) -> None:
        self._is_stopping = True
        self._notifier.stopping()
        # Else gunicorn would send SIGQUIT, which uvicorn's workers do not act on: they would go on
        # accepting, and be killed at the end of the time that they have for a drain.
        super().stop(True)

    def spawn_worker(self) -> int:
        """The worker's process id; in the worker itself it does not return.

        0 where the machine has no room for one. gunicorn would end the whole service then; so the
        others go on answering, and the next turn of the loop tries again.
        """
        # Until the worker has a handler of its own it has gunicorn's, which only puts the signal into
        # a queue that nobody empties there: it would serve on until it is killed.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            pid = int(super().spawn_worker())
            self._spawn_error = ""
            return pid
        except OSError as error:
            if self._spawn_error != str(error):
                self._spawn_error = str(error)
                log.error(
                    "cannot start a process: look at TasksMax, MemoryMax and the room in /dev/shm",
                    extra=fields(error=str(error)),
                )
            return 0
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def manage_workers(self) -> None:
        self._replace()
        if len(self.WORKERS) > self.num_workers:
            self._await_newest()
        super().manage_workers()

    def murder_workers(self) -> None:
        """Once in each turn of the loop."""
        super().murder_workers()
        self._tell()

    def reap_workers(self) -> None:
        """Ten times a second in the loops inside `reload` and `stop`, too."""
        super().reap_workers()
        self._tell()

    def _replace(self) -> None:
        """Starts successors of those that have had their share of requests."""
        for worker in self.WORKERS.values():
            if worker.reached_max_requests:
                worker.age = _LEAVING  # gunicorn ends the oldest of those that are too many
        staying = sum(worker.age != _LEAVING for worker in self.WORKERS.values())
        if staying < len(self.WORKERS):
            for _ in range(self.num_workers - staying):
                self.spawn_worker()

    def _await_newest(self) -> None:
        """gunicorn ends the old ones as soon as the new ones are forked; nobody would answer."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            by_age = sorted(self.WORKERS.values(), key=lambda worker: worker.age)
            if all(_has_answered(worker) for worker in by_age[-self.num_workers :]):
                return
            self.reap_workers()
            time.sleep(0.05)

    def _tell(self) -> None:
        if self._is_stopping:
            return
        count = sum(
            _has_answered(worker) for worker in self.WORKERS.values() if worker.age != _LEAVING
        )
        self._notifier.status(f"{count} of {self.num_workers} processes answer")
        if not self._is_ready and count >= self.num_workers:
            self._is_ready = True
            self._notifier.ready()
        now = time.monotonic()
        if self._notifier.watchdog_seconds is not None and now - self._last_ping >= _ALIVE_SECONDS:
            self._last_ping = now
            self._notifier.alive()


def give_slot(arbiter: Any, worker: Any) -> None:
    """gunicorn's hook `pre_fork`."""
    taken = {other.slot for other in arbiter.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)
    worker.made = worker.tmp.last_update()


def restore_sigterm() -> None:
    """To be called first in gunicorn's hook `post_fork`: SIGTERM ends this worker from now on, also one
    that came since the fork."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _has_answered(worker: Any) -> bool:
    """Whether its loop has turned once: it touches its file then."""
    return bool(worker.tmp.last_update() != worker.made)
