"""gunicorn's arbiter, adapted: signals, slots and systemd notifications.

A worker gets the lowest free slot. The slot names its metrics files and its log lines, so that their
number is bounded. Does not depend on the application.
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
"""Time that a reload waits for the new workers before it ends the old ones."""
_WATCHDOG_SECONDS = 1.0
_RETIRING_AGE = 0
"""Replaces the age (from 1 up) that gunicorn gives each worker, so that it is ended first."""

log = logging.getLogger(__name__)


class ApiArbiter(gunicorn.arbiter.Arbiter):  # type: ignore[misc]
    """Sends READY once every worker responds, and watchdog pings while its loop runs.

    gunicorn itself would send READY before the first fork if NOTIFY_SOCKET is in the environment, so
    the caller removes it.
    """

    def __init__(self, application: BaseApplication, notifier: Notifier) -> None:
        # gunicorn keeps both on the class.
        self.LISTENERS: list[Any] = []
        self.WORKERS: dict[int, Any] = {}
        self._notifier = notifier
        self._is_ready = self._is_stopping = False
        self._last_ping = float("-inf")
        self._spawn_error = ""
        """Error of the last failed spawn, so that it is logged once."""
        super().__init__(application)

    def handle_int(self) -> None:
        # gunicorn would send its workers SIGQUIT, which uvicorn's workers ignore, and wait in vain.
        self.handle_term()

    def handle_quit(self) -> None:
        self.kill_workers(signal.SIGKILL)
        raise StopIteration

    def handle_usr2(self) -> None:
        log.warning("SIGUSR2 not supported; restart the service to run another version")

    def reload(self) -> None:
        self._notifier.reloading(time.monotonic())
        super().reload()
        self._notifier.ready()

    def stop(self, graceful: bool = True) -> None:
        self._is_stopping = True
        self._notifier.stopping()
        # Else gunicorn would send SIGQUIT, which uvicorn's workers ignore: they would continue to
        # accept connections, and be killed when the time for a drain is over.
        super().stop(True)

    def spawn_worker(self) -> int:
        """Return the worker's process id; in the worker itself, do not return.

        Return 0 if the machine cannot start another process. gunicorn would end the whole service
        then; here the other workers continue, and the next iteration of the loop tries again.
        """
        # Until the worker installs its own handler it has gunicorn's, which only enqueues the signal.
        # No loop empties that queue in the worker: it would serve until it is killed.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            pid = int(super().spawn_worker())
            self._spawn_error = ""
            return pid
        except OSError as error:
            if self._spawn_error != str(error):
                self._spawn_error = str(error)
                log.error(
                    "worker not started; check TasksMax, MemoryMax and the free space in /dev/shm",
                    extra=fields(error=str(error)),
                )
            return 0
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def manage_workers(self) -> None:
        self._replace_retiring_workers()
        if len(self.WORKERS) > self.num_workers:
            self._wait_for_new_workers()
        super().manage_workers()

    def murder_workers(self) -> None:
        """Called once per iteration of the loop."""
        super().murder_workers()
        self._notify_systemd()

    def reap_workers(self) -> None:
        """Called ten times a second, in the loops inside `reload` and `stop` too."""
        super().reap_workers()
        self._notify_systemd()

    def _replace_retiring_workers(self) -> None:
        """Start successors of the workers that have reached API_MAX_REQUESTS."""
        for worker in self.WORKERS.values():
            if worker.reached_max_requests:
                # gunicorn ends the lowest ages when there are too many workers.
                worker.age = _RETIRING_AGE
        remaining = sum(worker.age != _RETIRING_AGE for worker in self.WORKERS.values())
        if remaining < len(self.WORKERS):
            for _ in range(self.num_workers - remaining):
                self.spawn_worker()

    def _wait_for_new_workers(self) -> None:
        """Block until the newest workers respond, for `_BOOT_SECONDS` at most.

        gunicorn would end the old workers as soon as the new ones are forked, which leaves a gap.
        """
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            by_age = sorted(self.WORKERS.values(), key=lambda worker: worker.age)
            if all(_has_responded(worker) for worker in by_age[-self.num_workers :]):
                return
            self.reap_workers()
            time.sleep(0.05)

    def _notify_systemd(self) -> None:
        if self._is_stopping:
            return
        count = sum(
            _has_responded(worker)
            for worker in self.WORKERS.values()
            if worker.age != _RETIRING_AGE
        )
        self._notifier.status(f"{count} of {self.num_workers} processes answer")
        if not self._is_ready and count >= self.num_workers:
            self._is_ready = True
            self._notifier.ready()
        now = time.monotonic()
        if (
            self._notifier.watchdog_seconds is not None
            and now - self._last_ping >= _WATCHDOG_SECONDS
        ):
            self._last_ping = now
            self._notifier.ping_watchdog()


def give_slot(arbiter: Any, worker: Any) -> None:
    """Assign the lowest free slot. gunicorn's hook `pre_fork`."""
    taken = {other.slot for other in arbiter.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)
    worker.initial_heartbeat = worker.tmp.last_update()


def restore_sigterm() -> None:
    """Restore the default action of SIGTERM, and deliver one that was received since the fork.

    Called first in gunicorn's hook `post_fork`.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _has_responded(worker: Any) -> bool:
    """Return whether the worker's loop has run once, upon which it updates its heartbeat file."""
    return bool(worker.tmp.last_update() != worker.initial_heartbeat)
