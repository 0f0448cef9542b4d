"""What every process says of itself, every few seconds: its memory."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from octane_analytics.telemetry.worker_metrics import ProcessMetrics

_EVERY_SECONDS = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessSampler:
    """For a loop to call at every turn: does something only when it is time."""

    def __init__(
        self,
        metrics: ProcessMetrics,
        name: str,
        *also: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`also` is called at each sample."""
        self._resident_bytes = metrics.resident_bytes.labels(name)
        self._also = also
        self._now = now
        self._next_at = 0.0

    def __call__(self) -> None:
        now = self._now()
        if now >= self._next_at:
            self._next_at = now + _EVERY_SECONDS
            self._resident_bytes.set(resident_bytes())
            for call in self._also:
                call()


def resident_bytes() -> int:
    """Of this process, from proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
