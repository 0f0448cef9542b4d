"""The directory through which all processes share their metrics.

Each process keeps its values in files named by its role and slot, not by its process id: a worker
that takes over a slot goes on counting where its predecessor stopped, and the number of files is
bounded. The format is prometheus_client's multiprocess mode.
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
    """Names this process's files. No underscore: the library takes file names apart at those."""

    def __init__(self, role: str, slot: int) -> None:
        if "_" in role:
            raise ValueError(f"{role!r} would not be found again in a file's name")
        self.name = f"{role}-{slot}"

    def __call__(self) -> str:
        return self.name


def open_directory(directory: Path, identity: ProcessName) -> None:
    """Has every metric that this process makes from now on kept in the directory.

    To be called once in each process, after the fork and before the first metric is made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=identity
    )
    for path in directory.glob(f"gauge_*_{identity.name}.db"):
        path.unlink()  # the last process's of this name say nothing of this one
    liveness.lock(directory, identity.name)


def remove_files(directory: Path, role: str) -> None:
    """Removes what an earlier boot of this role left behind, and any role's from before the machine's.

    The other roles' files stay. Inserted events count from zero again.
    """
    inserted_counter.reset_counts(directory, role)
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for path in (*directory.glob("*.db"), *directory.glob("*.alive")):
        name = path.stem.rpartition("_")[2]
        with contextlib.suppress(FileNotFoundError):
            if name.startswith(f"{role}-") or path.stat().st_mtime < booted_at:
                path.unlink()


def unready(directory: Path, names: Collection[str]) -> list[str]:
    """What keeps these processes from serving, a line each; empty when they do."""
    absent = sorted(set(names) - liveness.alive(directory))
    waits = [f"waiting for {dependency}" for dependency in outages(directory)]
    return [f"{name} is not running" for name in absent] + waits


def outages(directory: Path) -> list[str]:
    """The dependencies that some living process waits for."""
    sums = MultiprocessReader(directory)
    try:
        return sorted(
            dict(cell.labels)["dependency"]
            for cell, value in sums.read().items()
            if cell.family == "analytics_outage" and value
        )
    finally:
        sums.close()
