"""Many clients ask the API while ClickHouse is killed and started again (--help: how many, how long).

Each client asks again as soon as it is answered, over one connection that it keeps, for reports, some
with filters, comparison and totals or several at once, and for raw SQL. Requests bypass the cache.
Beside them some clients listen to a live report. What must hold: every request is answered, with 200, or
503 while ClickHouse is away, and never a 500; every listener has an answer of after its return;
afterwards all connections are gone but the pools'.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import COMMAND, environment, wait_until
from tests.support.ports import free_port

WORKERS, THREADS = 2, 4
CONNECTIONS = WORKERS * (THREADS + THREADS + 1)
"""Connections if all pools are full: each process has pools for reports, queries and readiness."""
HUNG_SECONDS = 60.0
"""Upper bound of a response: five seconds for a connection, and the query's limit."""
_AWAY_SHARE = 0.1
_HOST = "127.0.0.1"
LISTENERS = 10
_OVERVIEW = {"template": "overview_stats", "params": {"app_id": "openstream"}}
_FILTERED = {
    "template": "errors",
    "filters": [{"property": "device", "op": "ne", "value": "tv"}],
    "compare": "previous_period",
    "totals": True,
}
_COUNTED = {"sql": "SELECT event_name, count() AS n FROM ai_analytics_events GROUP BY event_name"}
_REQUESTS = tuple(
    (path, json.dumps(body).encode())
    for path, body in (
        *(("/report", _OVERVIEW), ("/query", _COUNTED)) * 3,
        ("/report", _FILTERED),
        ("/reports", {"reports": [_OVERVIEW, _FILTERED]}),
    )
)
_LIVE = "/live/overview_stats?interval=1&app_id=late"


@dataclass
class LoadResult:
    """Outcome of the load. `broken` counts connections that ended without a response."""

    statuses: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    """Responses to requests that were sent after ClickHouse was back."""
    listeners: int = 0
    """Listeners that have an answer of after the return of ClickHouse."""
    hung: int = 0
    broken: int = 0
    slowest_seconds: float = 0.0
    pool_connections: int = 0
    clients_left: int = 0
    lines: list[str] = field(default_factory=list)
    is_back: bool = False
    """Set once ClickHouse is back."""
    is_over: bool = False
    """Set when the clients have to stop."""

    def problems(self) -> list[str]:
        found = []
        for status, count in self.statuses.items():
            if status not in (200, 503):
                found.append(f"{count} answers with {status}")
        if self.hung:
            found.append(f"{self.hung} requests without an answer for {HUNG_SECONDS:g} s")
        if self.broken:
            found.append(f"{self.broken} connections that ended without an answer")
        if not self.statuses[200]:
            found.append("no answer with 200 at all")
        if not self.statuses[503]:
            found.append("ClickHouse was away and nobody noticed: no answer with 503")
        if not self.late[200]:
            found.append("no answer with 200 after ClickHouse came back")
        if self.listeners != LISTENERS:
            found.append(f"{self.listeners} of {LISTENERS} listeners had an answer afterwards")
        if self.pool_connections > CONNECTIONS:
            found.append(
                f"{self.pool_connections} connections to ClickHouse afterwards, of {CONNECTIONS}"
            )
        if self.clients_left:
            found.append(f"{self.clients_left} connections of clients that have gone")
        return found + self.lines


def run(clients: int, seconds: float, directory: Path) -> LoadResult:
    """Start ClickHouse and the API, run the clients, and evaluate the result."""
    _allow_descriptors(clients)
    with EmbeddedClickHouse(directory / "clickhouse") as engine:
        _fill(engine)
        log = directory / "api.log"
        with _api(engine, clients, log) as (process, port):
            crowd = LoadResult()
            asyncio.run(_let_loose(crowd, engine, port, clients, seconds))
            workers = _children(process.pid)
            _wait_for_quiet(crowd, workers, engine.tcp_port, port)
        crowd.lines += [
            line
            for line in log.read_text().splitlines()
            if "Traceback" in line or "request failed" in line or "not retrieved" in line
        ]
    return crowd


def _add_late_event(engine: EmbeddedClickHouse) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with ClickHouse(settings, client_name="tests") as connection:
        connection.execute(
            f"INSERT INTO {connection.table} SELECT now() - 10, 'late', 'e', 'u', '{{}}'"
        )


def _fill(engine: EmbeddedClickHouse) -> None:
    settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
    with ClickHouse(settings, client_name="tests") as connection:
        connection.execute(schema.create_table(connection.table))
        connection.execute(
            f"INSERT INTO {connection.table} SELECT now() - number % 3600, 'openstream', "
            "['video_start', 'video_heartbeat', 'search'][number % 3 + 1], "
            "toString(number % 100), '{\"watch_time\":10}' FROM numbers(20000)"
        )


@contextmanager
def _api(
    engine: EmbeddedClickHouse, clients: int, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    settings = {
        "API_PORT": str(port),
        "API_WORKERS": str(WORKERS),
        "API_THREADS": str(THREADS),
        # The kernel distributes connections unevenly: one process may get most of them.
        "API_MAX_CONNECTIONS": str(clients + 100),
        "CLICKHOUSE_HOST": engine.host,
        "CLICKHOUSE_PORT": str(engine.tcp_port),
        "LOG_LEVEL": "warning",
        "LOG_FORMAT": "json",
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [COMMAND, "api"], env=environment(settings), stdout=sink, stderr=sink
        )
    try:
        wait_until(lambda: asyncio.run(_is_ready(port)))
        wait_until(lambda: len(_children(process.pid)) == WORKERS)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _let_loose(
    crowd: LoadResult, engine: EmbeddedClickHouse, port: int, clients: int, seconds: float
) -> None:
    """Run each phase for its share of the seconds, and until its effect was observed."""
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(_client(crowd, port, number))
        for _ in range(LISTENERS):
            group.create_task(_listener(crowd, port))
        await _at_least(seconds * 0.5, lambda: crowd.statuses[200] >= clients)
        await asyncio.to_thread(engine.kill)
        await _at_least(seconds * _AWAY_SHARE, lambda: crowd.statuses[503] >= clients)
        await asyncio.to_thread(engine.start)
        await asyncio.to_thread(_add_late_event, engine)
        crowd.is_back = True
        await _at_least(
            seconds * 0.4,
            lambda: crowd.late[200] >= clients and crowd.listeners == LISTENERS,
        )
        crowd.is_over = True


async def _at_least(seconds: float, condition: Callable[[], bool]) -> None:
    """Stop waiting at a deadline: a missing outcome is a problem that the report lists."""
    await asyncio.sleep(seconds)
    deadline = time.monotonic() + HUNG_SECONDS
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


async def _client(crowd: LoadResult, port: int, number: int) -> None:
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    asked = number
    while not crowd.is_over:
        now, is_back = time.monotonic(), crowd.is_back
        try:
            async with asyncio.timeout(HUNG_SECONDS):
                if streams is None:
                    streams = await asyncio.open_connection(_HOST, port)
                status = await _ask(*streams, asked % len(_REQUESTS))
        except TimeoutError:
            crowd.hung += 1
            status = 0
        except (OSError, EOFError):
            crowd.broken += 1
            status = 0
        if status == 0 and streams is not None:
            streams[1].close()
            streams = None
        if status:
            crowd.statuses[status] += 1
            crowd.slowest_seconds = max(crowd.slowest_seconds, time.monotonic() - now)
            if is_back:
                crowd.late[status] += 1
        if status != 200:
            await asyncio.sleep(0.2)
        asked += 1
    if streams is not None:
        streams[1].close()


async def _listener(crowd: LoadResult, port: int) -> None:
    """Listen until an answer has the late event; connect again if the stream ends or is refused."""
    while not crowd.is_over:
        try:
            async with asyncio.timeout(HUNG_SECONDS):
                reader, writer = await asyncio.open_connection(_HOST, port)
        except (TimeoutError, OSError):
            await asyncio.sleep(0.2)
            continue
        try:
            writer.write(f"GET {_LIVE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            while not crowd.is_over:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):  # to see the end
                        line = await reader.readline()
                        if not line or line.startswith(b"HTTP/1.1 503"):
                            break
                        if b'"total_events":1' in line:
                            crowd.listeners += 1
                            return
        except OSError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(0.2)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, which: int) -> int:
    path, body = _REQUESTS[which]
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Cache-Control: no-cache\r\nContent-Length: %d\r\n\r\n%s"
        % (path.encode(), len(body), body)
    )
    await writer.drain()
    return await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
    await reader.readexactly(int(lengths[0]))
    return int(lines[0].split()[1])


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(_HOST, port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return await _answer(reader) == 200
    except (OSError, EOFError):
        return False
    finally:
        writer.close()


def _wait_for_quiet(crowd: LoadResult, workers: list[int], clickhouse_port: int, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        remote, local = _connections(workers)
        crowd.pool_connections = remote[clickhouse_port]
        crowd.clients_left = local[port]
        is_quiet = not crowd.clients_left and crowd.pool_connections <= CONNECTIONS
        if is_quiet or time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _connections(pids: list[int]) -> tuple[Counter[int], Counter[int]]:
    """Return the processes' open connections by remote port, and by local port."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            if name.startswith("socket:["):
                sockets.add(name[8:-1])
    remote: Counter[int] = Counter()
    local: Counter[int] = Counter()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in sockets and fields[3] != "0A":  # every socket that does not listen
            local[int(fields[1].rpartition(":")[2], 16)] += 1
            remote[int(fields[2].rpartition(":")[2], 16)] += 1
    return remote, local


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _allow_descriptors(clients: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=500, help="clients at once (default: 500)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octane-crowd-") as directory:
        crowd = run(chosen.clients, chosen.seconds, Path(directory))
    answered = sum(crowd.statuses.values())
    print(f"{answered:,} answers: " + ", ".join(f"{n:,} x {s}" for s, n in crowd.statuses.items()))
    print(f"to what was asked once ClickHouse was back: {dict(crowd.late)}")
    print(f"slowest answer {crowd.slowest_seconds:.1f} s, hung {crowd.hung}, broken {crowd.broken}")
    print(
        f"afterwards {crowd.pool_connections} connections to ClickHouse, "
        f"{crowd.clients_left} of clients"
    )
    problems = crowd.problems()
    print("\n".join(problems) if problems else "all of it held")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
