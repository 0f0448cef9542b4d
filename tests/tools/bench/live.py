"""Listeners of one live report on loopback: what each receives, when, and how many queries run.

    python -m tests.tools.bench.live --listeners 2000 --seconds 20

Starts an embedded ClickHouse and one API process, inserts an event per interval, and prints one JSON
object. Exits with 1 if a listener missed an answer, received one late, or a refresh ran more than one
query.
"""

import argparse
import asyncio
import json
import os
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

_START_SECONDS = 60
_CONNECT_AT_ONCE = 100


class Listener:
    """One connection; `received` is the time of each answer by the number of events in it."""

    def __init__(self) -> None:
        self.received: dict[int, float] = {}
        self.is_open = False

    async def listen(self, port: int, path: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            self.is_open = head.startswith(b"HTTP/1.1 200")
        try:
            while self.is_open and (line := await reader.readline()):
                if line.startswith(b"data: "):
                    answer = json.loads(line[6:])
                    self.received[answer["rows"][0]["total_events"]] = time.monotonic()
        finally:
            writer.close()


async def _listen(
    arguments: argparse.Namespace, port: int, settings: ClickHouseSettings
) -> dict[str, object]:
    path = f"/live/overview_stats?interval={arguments.interval}&from=-1h"
    listeners = [Listener() for _ in range(arguments.listeners)]
    gate = asyncio.Semaphore(_CONNECT_AT_ONCE)
    started = time.monotonic()
    tasks = [asyncio.create_task(each.listen(port, path, gate)) for each in listeners]
    while not all(each.received for each in listeners):
        await asyncio.sleep(0.05)
        if time.monotonic() - started > _START_SECONDS:
            break
    connected = time.monotonic() - started
    inserted: dict[int, float] = {}
    with ClickHouseSink(settings, client_name="bench") as sink:
        before = _queries(sink)
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            await asyncio.to_thread(_insert, sink, len(inserted) + 1)
            inserted[len(inserted) + 2] = time.monotonic()
            await asyncio.sleep(arguments.interval)
        await asyncio.sleep(2 * arguments.interval)
        queries = _queries(sink) - before - 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    delays = sorted(
        each.received[number] - at
        for number, at in inserted.items()
        for each in listeners
        if number in each.received
    )
    missed = len(inserted) * len(listeners) - len(delays)
    seconds = len(inserted) * arguments.interval + 2 * arguments.interval
    return {
        "listeners": sum(each.is_open for each in listeners),
        "connected_seconds": round(connected, 2),
        "answers": len(delays),
        "missed": missed,
        "queries": queries,
        "refreshes_at_most": seconds // arguments.interval + 2,
        "delay_seconds_p50": round(delays[len(delays) // 2], 3) if delays else None,
        "delay_seconds_max": round(delays[-1], 3) if delays else None,
    }


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
            "API_WORKERS": "1",
            "API_MAX_CONNECTIONS": str(arguments.listeners + 100),
            "LOG_LEVEL": "WARNING",
            "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics"),
        }
        command = Path(sys.executable).with_name("octane-analytics")
        api = subprocess.Popen([str(command), "api"], env=environment, cwd=directory)
        try:
            _wait_until_ready(port)
            return asyncio.run(_listen(arguments, port, settings))
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
    arguments = parser.parse_args()
    _, ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))
    with tempfile.TemporaryDirectory() as directory:
        found = _run(arguments, Path(directory))
    print(json.dumps(found))
    delay, queries, most = (
        found[name] for name in ("delay_seconds_max", "queries", "refreshes_at_most")
    )
    # A refresh may begin just before an insert: its answer comes with the next one.
    is_good = (
        found["missed"] == 0
        and isinstance(delay, float)
        and delay <= 2 * arguments.interval
        and isinstance(queries, int)
        and isinstance(most, int)
        and queries <= most
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
