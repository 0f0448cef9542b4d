"""Records of the brokers that were started in the background.

They are files in the cache, one for a broker or a cluster. Each names processes by id and start time,
so that another process with a recycled id is never taken for a broker.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from octane_analytics.runtime.process_start import start_ticks
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.cluster import KafkaCluster
from tests.tools.kafka.jars import CACHE

RECORDS = CACHE / "brokers"
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Started:
    processes: dict[int, int]
    """Start time, in ticks of the clock since boot, by process id."""
    address: str
    directory: str
    is_temporary: bool

    @classmethod
    def read(cls, record: Path) -> Self:
        saved = json.loads(record.read_text())
        processes = {int(pid): ticks for pid, ticks in saved.pop("processes").items()}
        return cls(processes, **saved)

    @property
    def ports(self) -> list[int]:
        return [int(each.rpartition(":")[2]) for each in self.address.split(",")]

    @property
    def running(self) -> list[int]:
        """Return the ids of the processes that still run."""
        return [pid for pid, ticks in self.processes.items() if start_ticks(pid) == ticks]

    @property
    def record(self) -> Path:
        return RECORDS / f"{self.ports[0]}.json"

    def __str__(self) -> str:
        return f"{self.address} (pid {', '.join(map(str, self.running))}; {self.directory})"

    def stop(self) -> None:
        """Stop the processes, with SIGKILL after STOP_SECONDS, and remove a temporary directory.

        They stop one after the other, in the order of the record: a broker needs its controller.
        """
        deadline = time.monotonic() + STOP_SECONDS
        for pid in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
                while pid in self.running:
                    if time.monotonic() > deadline:
                        os.kill(pid, signal.SIGKILL)
                    time.sleep(0.05)
        self.forget()

    def forget(self) -> None:
        self.record.unlink(missing_ok=True)
        if self.is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def record(kafka: ApacheKafka | KafkaCluster, *, is_temporary: bool) -> Started:
    """Write the record of a broker or a cluster that is running."""
    started = Started(
        dict(_identities(kafka)), kafka.bootstrap_servers, str(kafka.directory), is_temporary
    )
    RECORDS.mkdir(parents=True, exist_ok=True)
    unfinished = started.record.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(started)))
    unfinished.replace(started.record)
    return started


def running() -> list[Started]:
    """Return what is running, and remove the records of what is not."""
    found = []
    for path in sorted(RECORDS.glob("*.json")):
        started = Started.read(path)
        if started.running:
            found.append(started)
        else:
            started.forget()
    return found


def _identities(kafka: ApacheKafka | KafkaCluster) -> Iterator[tuple[int, int]]:
    for node in kafka.nodes:
        ticks = start_ticks(node.pid)
        if ticks is not None:
            yield node.pid, ticks
