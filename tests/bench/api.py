"""What the API adds to a report: POST /report against the same query through clickhouse-driver.

One ClickHouse, one API process, one client; the three ways take turns, so that the machine's moods meet
them alike. The direct way opens its connection once and reads all rows, as the API does.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from octane_analytics import schema
from octane_analytics.api.library import load
from octane_analytics.api.parameters import bind
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.decode import decode
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.sections import ClickHouseSettings

_BATCH = 100_000
_COMMAND = str(Path(sys.executable).with_name("octane-analytics"))


@click.command()
@click.option("--events", default=300_000, show_default=True, help="Events in the table.")
@click.option("--rounds", default=100, show_default=True, help="Requests of each kind.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    default=("overview_stats", "top_content", "events_over_time"),
    show_default=True,
    help="Which reports.",
)
@click.option("--port", default=18_771, show_default=True, help="Where the API is to listen.")
def api(events: int, rounds: int, reports: tuple[str, ...], port: int) -> None:
    """Measures reports through the API, uncached and cached, and through clickhouse-driver alone."""
    table = Table("report", "direct ms", "uncached ms", "ratio", "cached ms", "times faster")
    with (
        tempfile.TemporaryDirectory(prefix="octane-bench-") as directory,
        EmbeddedClickHouse(Path(directory)) as engine,
    ):
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(settings, client_name="bench") as clickhouse:
            _fill(clickhouse, events)
            environment = os.environ | {
                "CLICKHOUSE_HOST": engine.host,
                "CLICKHOUSE_PORT": str(engine.tcp_port),
                "API_PORT": str(port),
                "API_WORKERS": "1",
                "LOG_LEVEL": "warning",
            }
            with subprocess.Popen([_COMMAND, "api"], env=environment) as served:
                try:
                    client = _connected(port)
                    for name in reports:
                        table.add_row(name, *_row(_measure(name, clickhouse, client, rounds)))
                finally:
                    served.terminate()
    Console().print(f"{events:,} events, {rounds} rounds, medians", table)


def _fill(clickhouse: ClickHouseSink, events: int) -> None:
    clickhouse.execute(schema.create_table(clickhouse.table))
    until = datetime.now(UTC)
    rows = [
        decode(line) for line in generate(events, seed=1, until=until, span=timedelta(hours=20))
    ]
    for start in range(0, events, _BATCH):
        batch = rows[start : start + _BATCH]
        clickhouse.insert([list(column) for column in zip(*batch, strict=True)], None)
    clickhouse.execute(f"OPTIMIZE TABLE {clickhouse.table} FINAL")


def _connected(port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 30
    while True:
        client = http.client.HTTPConnection("127.0.0.1", port)
        try:
            client.request("GET", "/readyz")
            if client.getresponse().read() and time.monotonic() < deadline:
                return client
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _measure(
    name: str, clickhouse: ClickHouseSink, client: http.client.HTTPConnection, rounds: int
) -> list[float]:
    """Milliseconds: direct, uncached, cached."""
    template = load().templates[name]
    end = datetime.now(UTC).replace(microsecond=0)
    params = {"from": (end - timedelta(hours=24)).isoformat(), "to": end.isoformat()}
    target = {"database": clickhouse.table.database, "table": clickhouse.table.table}
    values = {**bind(template, params, end).values, **target}
    body = json.dumps({"template": name, "params": params})

    def direct() -> None:
        clickhouse.select(template.sql, values)

    def asked(**headers: str) -> Callable[[], None]:
        def ask() -> None:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            client.request("POST", "/report", body, {"Content-Type": "application/json", **named})
            answer = client.getresponse()
            answer.read()
            assert answer.status == 200

        return ask

    ways: list[Callable[[], None]] = [direct, asked(Cache_Control="no-cache"), asked()]
    took: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 3):
        for way, times in zip(ways, took, strict=True):
            started = time.perf_counter()
            way()
            if number >= 3:
                times.append((time.perf_counter() - started) * 1000)
    return [statistics.median(times) for times in took]


def _row(medians: list[float]) -> list[str]:
    direct, uncached, cached = medians
    return [
        f"{direct:.2f}",
        f"{uncached:.2f}",
        f"{uncached / direct:.2f}",
        f"{cached:.2f}",
        f"{uncached / cached:.0f}",
    ]
