"""Metrics of every process: resident memory, sampled every five seconds."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

_SAMPLE_SECONDS = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessMetrics:
    """Metrics of every process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.resident_bytes = Gauge(
            "analytics_process_resident_bytes",
            "Resident memory of a process, by role and slot.",
            ["process"],
            multiprocess_mode="sum",
            registry=registry,
        )


class ProcessSampler:
    """Sampler for a loop that calls it in every iteration; returns at once between samples."""

    def __init__(
        self,
        metrics: ProcessMetrics,
        name: str,
        *callbacks: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`callbacks` are called at each sample."""
        self._resident_bytes = metrics.resident_bytes.labels(name)
        self._callbacks = callbacks
        self._now = now
        self._next_at = 0.0

    def __call__(self) -> None:
        now = self._now()
        if now >= self._next_at:
            self._next_at = now + _SAMPLE_SECONDS
            self._resident_bytes.set(resident_bytes())
            for callback in self._callbacks:
                callback()


def resident_bytes() -> int:
    """Return the resident memory of this process, from proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
