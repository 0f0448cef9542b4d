"""Files in which all processes keep their metrics, in one shared directory.

Each process keeps its values in files named by its role and slot, not by its process id: a worker
continues the counters of its predecessor in the slot, and the number of files is bounded. The format is
prometheus_client's multiprocess mode.
"""

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path

from prometheus_client import values

from octane_analytics.telemetry import inserted_counter, liveness
from octane_analytics.telemetry.multiprocess_reader import MultiprocessReader


class ProcessName:
    """Name of a process's files. Without underscores, at which the library splits file names."""

    def __init__(self, role: str, slot: int) -> None:
        if "_" in role:
            raise ValueError(f"role {role!r} contains an underscore, at which file names are split")
        self.name = f"{role}-{slot}"

    def __call__(self) -> str:
        return self.name


def open_directory(directory: Path, process_name: ProcessName) -> None:
    """Keep every metric that this process creates from now on in the directory.

    Call it once in each process, after the fork and before the first metric is created.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=process_name
    )
    for path in directory.glob(f"gauge_*_{process_name.name}.db"):
        path.unlink()  # gauges of the previous process in this slot
    liveness.lock(directory, process_name.name)


def remove_files(directory: Path, role: str) -> None:
    """Remove the files of the role's previous start, and all files from before the machine's boot.

    Other files stay. The counts of inserted events are reset to zero.
    """
    inserted_counter.reset_counts(directory, role)
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for path in (*directory.glob("*.db"), *directory.glob("*.alive")):
        name = path.stem.rpartition("_")[2]
        with contextlib.suppress(FileNotFoundError):
            if name.startswith(f"{role}-") or path.stat().st_mtime < booted_at:
                path.unlink()


def readiness_problems(directory: Path, names: Collection[str]) -> list[str]:
    """Return a line for each process that does not run and each unavailable dependency."""
    absent = sorted(set(names) - liveness.alive(directory))
    waiting = [f"waiting for {dependency}" for dependency in _unavailable_dependencies(directory)]
    return [f"{name} is not running" for name in absent] + waiting


def _unavailable_dependencies(directory: Path) -> list[str]:
    """Return the dependencies that a running process waits for."""
    reader = MultiprocessReader(directory)
    try:
        return sorted(
            dict(series.labels)["dependency"]
            for series, value in reader.read().items()
            if series.family == "analytics_outage" and value
        )
    finally:
        reader.close()
