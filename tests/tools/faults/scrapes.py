"""Scrapes one after the other, each compared with the last.

`python -m tests.tools.faults.scrapes PORT PAUSE` runs in a process and a session of its own, so that its
measurements wait for the machine and not for the load. It scrapes until its standard input ends, then
prints what it has seen as JSON.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_ROOT = Path(__file__).resolve().parents[3]
_SOURCE_SUFFIXES = ("_total", "_count", "_sum", "_bucket")
COUNTERS = f"analytics_.+({'|'.join(_SOURCE_SUFFIXES)})"
"""Regular expression of the names of values that may never decrease."""


class Reader:
    """Child process that scrapes a local metrics port from `start` on."""

    def __init__(self, port: int, pause_seconds: float) -> None:
        self._port = port
        self._pause_seconds = pause_seconds
        self._child: subprocess.Popen[str] | None = None
        self.milliseconds: list[float] = []
        self.failures: list[str] = []

    def start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._port), str(self._pause_seconds)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # the kernel distributes CPU time by session
        )

    def stop(self) -> None:
        """Stop scraping; the results are in `milliseconds` and `failures`."""
        assert self._child is not None
        told, _ = self._child.communicate(timeout=30)
        self.milliseconds, self.failures = json.loads(told)


def scrape(port: int) -> tuple[str, float]:
    """Return the exposition and its milliseconds. Raise ValueError for any status but 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        started = time.perf_counter()
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        milliseconds = (time.perf_counter() - started) * 1000
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {text}")
    return text, milliseconds


def counters(text: str) -> dict[str, float]:
    """Return the values that may never decrease, by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        if family.type in ("counter", "histogram")
        for sample in family.samples
        if sample.name.endswith(_SOURCE_SUFFIXES)
    }


def read(port: int, pause_seconds: float, stop: threading.Event) -> tuple[list[float], list[str]]:
    """Return the milliseconds of each scrape, and the failures."""
    took: list[float] = []
    failures: list[str] = []
    before: dict[str, float] = {}
    while not stop.wait(pause_seconds):
        try:
            text, milliseconds = scrape(port)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{type(error).__name__}: {error}")
            continue
        took.append(milliseconds)
        now = counters(text)
        for name, value in before.items():
            if now.get(name, -1.0) < value:
                failures.append(f"{name} went from {value} to {now.get(name)}")
        before = now
    return took, failures


def main(arguments: Sequence[str]) -> int:
    port, pause_seconds = int(arguments[0]), float(arguments[1])
    stop = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=await_end, name="end", daemon=True).start()
    print(json.dumps(read(port, pause_seconds, stop)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
