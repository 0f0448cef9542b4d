"""Listeners of one live report on loopback: what each receives, when, and how many queries run.

    python -m tests.tools.bench.live --listeners 10000 --seconds 20

Starts an embedded ClickHouse and an API, inserts an event per interval, and prints one JSON object:
`…_cpu_us` is CPU of the API's processes for each new listener and for each answer, `client_…` that of
this process, which shares the cores. Exits with 1 if a listener missed an answer, received one late, or
a refresh ran more than one query in a process.
"""

import argparse
import asyncio
import functools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.event import Row
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.engine import free_port
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench.measure import cpu_seconds

_START_SECONDS = 180
_CONNECT_AT_ONCE = 100
_EVENTS = re.compile(rb'"total_events":(\d+)')


class Listener(asyncio.Protocol):
    """One connection; `received` is the time of each answer by the number of events in it.

    Looks for that number only: to parse each answer would cost more than the API takes to send it.
    """

    def __init__(self, path: str) -> None:
        self.received: dict[int, float] = {}
        self.is_open = False
        self._path = path
        self._transport: asyncio.Transport | None = None
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self.is_open:
            self.is_open = self._unread.startswith(b"HTTP/1.1 200")
        *events, self._unread = self._unread.split(b"\n\n")
        for event in events:
            if found := _EVENTS.search(event):
                self.received[int(found[1])] = time.monotonic()

    def received_at_least(self, number: int) -> float | None:
        """Return when the answer or a newer one, which replaces it, was received."""
        return min((at for each, at in self.received.items() if each >= number), default=None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _itself(listener: Listener) -> Listener:
    return listener


async def _connect(arguments: argparse.Namespace, port: int) -> list[Listener]:
    """Return the listeners once each has an answer, or after the time for it."""
    path = f"/live/overview_stats?interval={arguments.interval}&from=-1h"
    listeners = [Listener(path) for _ in range(arguments.listeners)]
    loop = asyncio.get_running_loop()
    deadline = time.monotonic() + _START_SECONDS
    for start in range(0, len(listeners), _CONNECT_AT_ONCE):
        some = listeners[start : start + _CONNECT_AT_ONCE]
        for each in some:
            await loop.create_connection(functools.partial(_itself, each), "127.0.0.1", port)
        while not all(each.received for each in some) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
    return listeners


async def _listen(
    arguments: argparse.Namespace, port: int, settings: ClickHouseSettings, pid: int
) -> dict[str, object]:
    loop_started, cpu_started = time.monotonic(), _worker_cpu(pid)
    own_started = time.process_time()
    idle_kib = _worker_kib(pid)
    listeners = await _connect(arguments, port)
    connected, cpu_connected = time.monotonic() - loop_started, _worker_cpu(pid)
    own_connected = time.process_time()
    inserted: dict[int, float] = {}
    with ClickHouseSink(settings, client_name="bench") as sink:
        before = _queries(sink)
        began = time.monotonic()
        while time.monotonic() - began < arguments.seconds:
            await asyncio.to_thread(_insert, sink, len(inserted) + 1)
            inserted[len(inserted) + 2] = time.monotonic()
            await asyncio.sleep(arguments.interval)
        await asyncio.sleep(2 * arguments.interval)
        seconds = time.monotonic() - began
        queries = _queries(sink) - before - 1
    cpu, own = _worker_cpu(pid) - cpu_connected, time.process_time() - own_connected
    kib = _worker_kib(pid) - idle_kib
    open_listeners = sum(each.is_open for each in listeners)
    for each in listeners:
        each.close()
    delays = sorted(
        at - inserted_at
        for number, inserted_at in inserted.items()
        for at in (each.received_at_least(number) for each in listeners)
        if at is not None
    )
    return {
        "listeners": open_listeners,
        "connected_seconds": round(connected, 2),
        "connect_cpu_us": round((cpu_connected - cpu_started) / len(listeners) * 1e6),
        "client_connect_cpu_us": round((own_connected - own_started) / len(listeners) * 1e6),
        "answers": len(delays),
        "missed": len(inserted) * len(listeners) - len(delays),
        "answer_cpu_us": round(cpu / len(delays) * 1e6) if delays else None,
        "client_answer_cpu_us": round(own / len(delays) * 1e6) if delays else None,
        "kib_per_listener": round(kib / len(listeners), 1),
        "queries": queries,
        "refreshes_at_most": arguments.workers * (int(seconds // arguments.interval) + 2),
        "delay_seconds_p50": round(delays[len(delays) // 2], 3) if delays else None,
        "delay_seconds_max": round(delays[-1], 3) if delays else None,
    }


def _workers(pid: int) -> list[int]:
    """Return the processes that serve; the first one only accepts signals."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _worker_cpu(pid: int) -> float:
    return sum(map(cpu_seconds, _workers(pid)))


def _worker_kib(pid: int) -> int:
    lines = [
        line
        for each in _workers(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return sum(int(line.split()[1]) for line in lines)


def _insert(sink: ClickHouseSink, number: int) -> None:
    row = Row(int(time.time()), "app", "event", f"u{number}", b"{}")
    sink.insert_block([[value] for value in row], None, None)


def _queries(connection: ClickHouse) -> int:
    rows = connection.select("SELECT value FROM system.events WHERE event = 'SelectQuery'").rows
    return int(rows[0][0]) if rows else 0


def _run(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    with EmbeddedClickHouse(directory / "clickhouse") as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(settings, client_name="bench") as sink:
            sink.execute(schema.create_table(sink.table))
            _insert(sink, 0)
        port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "CLICKHOUSE_HOST": engine.host,
            "CLICKHOUSE_PORT": str(engine.tcp_port),
            "API_HOST": "127.0.0.1",
            "API_PORT": str(port),
            "API_WORKERS": str(arguments.workers),
            # A tenth, at most 100, is left to other requests.
            "API_MAX_CONNECTIONS": str(2 * arguments.listeners + 100),
            "LOG_LEVEL": "WARNING",
            "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics"),
        }
        command = Path(sys.executable).with_name("octane-analytics")
        api = subprocess.Popen([str(command), "api"], env=environment, cwd=directory)
        try:
            _wait_until_ready(port)
            return asyncio.run(_listen(arguments, port, settings, api.pid))
        finally:
            api.terminate()
            try:
                api.wait(60)
            except subprocess.TimeoutExpired:
                api.kill()


def _wait_until_ready(port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("the API did not start")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listeners", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes of the API")
    arguments = parser.parse_args()
    _, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))
    with tempfile.TemporaryDirectory() as directory:
        found = _run(arguments, Path(directory))
    print(json.dumps(found))
    delay, queries, refreshes = (
        found[name] for name in ("delay_seconds_max", "queries", "refreshes_at_most")
    )
    # A refresh may begin just before an insert: its answer comes with the next one.
    is_good = (
        found["missed"] == 0
        and isinstance(delay, float)
        and delay <= 2 * arguments.interval
        and isinstance(queries, int)
        and isinstance(refreshes, int)
        and queries <= refreshes
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
