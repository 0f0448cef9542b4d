"""What the API adds to a report: POST /report against the same query through clickhouse-driver.

One ClickHouse, one API process, and more and more clients; the ways to ask take turns, so that the
machine's moods meet them alike. The direct way has a connection for each client and reads all rows, as
the API does.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from octane_analytics import schema
from octane_analytics.api.library import load
from octane_analytics.api.parameters import bind
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.decode import decode_all
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.sections import ClickHouseSettings
from tests.bench import options
from tests.bench.clients import Ask, Took, at_once
from tests.bench.plot import Bar, bars

_BATCH = 100_000
_COMMAND = str(Path(sys.executable).with_name("octane-analytics"))
_START_SECONDS = 30.0
WAYS = ("direct", "uncached", "cached", "coalesced")


@dataclass(frozen=True)
class Cell:
    """One report asked in one way by so many clients at once."""

    report: str
    clients: int
    way: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


@click.command()
@click.option("--events", default=300_000, show_default=True, help="Events in the table.")
@click.option("--requests", default=100, show_default=True, help="Of each kind, in each round.")
@click.option("--rounds", default=3, show_default=True, help="Turns that each kind has.")
@click.option(
    "--clients",
    "crowds",
    multiple=True,
    type=click.IntRange(1, 500),
    default=(1, 4, 16, 64),
    show_default=True,
    help="Clients at once; may be given several times.",
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    default=("overview_stats", "top_content", "events_over_time"),
    show_default=True,
    help="Which reports; may be given several times.",
)
@click.option("--port", default=18_771, show_default=True, help="Where the API is to listen.")
@options.json_file
@options.plot_file
def api(
    events: int,
    requests: int,
    rounds: int,
    crowds: Sequence[int],
    reports: Sequence[str],
    port: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measures reports through clickhouse-driver alone (direct) and through the API: uncached, cached,
    and coalesced (all clients ask the same new thing at the same moment, which is one query).
    """
    with _served(events, port) as settings:
        cells = [
            cell
            for report in reports
            for crowd in crowds
            for cell in _measure(report, settings, port, crowd, requests, rounds)
        ]
    if json_file is not None:
        json_file.write_text(json.dumps([vars(cell) for cell in cells], indent=1))
    if plot_file is not None:
        plot_file.write_text(_drawn(cells))
    told = f"{events:,} events, one API process, {rounds} x {requests:,} requests of each kind"
    Console(width=None if sys.stdout.isatty() else 120).print(told, api_table(cells))


def api_table(cells: Sequence[Cell]) -> Table:
    """One line for each cell; ratios are against the direct way of the same report and crowd."""
    table = Table("report", "clients", "way", "requests/s", "p50 ms", "x", "p99 ms", "x")
    for column in table.columns[3:]:
        column.justify = "right"
    directly = {(cell.report, cell.clients): cell for cell in cells if cell.way == "direct"}
    for cell in cells:
        direct = directly[cell.report, cell.clients]
        table.add_row(
            cell.report,
            f"{cell.clients}",
            cell.way,
            f"{cell.per_second:,.0f}",
            f"{cell.p50_ms:.2f}",
            f"{cell.p50_ms / direct.p50_ms:.2f}",
            f"{cell.p99_ms:.2f}",
            f"{cell.p99_ms / direct.p99_ms:.2f}",
            end_section=cell.way == WAYS[-1],
        )
    return table


def _drawn(cells: Sequence[Cell]) -> str:
    return bars(
        "Milliseconds until a report has been answered",
        [
            Bar(
                f"{cell.report}, {cell.way}, x{cell.clients}",
                (cell.p50_ms, max(cell.p99_ms - cell.p50_ms, 0.0)),
                f"{cell.p50_ms:.1f} and {cell.p99_ms:.1f} ms",
                is_first=cell.way == WAYS[0],
            )
            for cell in cells
        ],
        ("median", "99th percentile"),
    )


@contextmanager
def _served(events: int, port: int) -> Iterator[ClickHouseSettings]:
    """A table with events, and the API over it."""
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
                _wait_until_ready(served, port)
                yield settings
            finally:
                served.terminate()


def _fill(clickhouse: ClickHouseSink, events: int) -> None:
    clickhouse.execute(schema.create_table(clickhouse.table))
    lines = list(generate(events, seed=1, until=datetime.now(UTC), span=timedelta(hours=20)))
    for start in range(0, events, _BATCH):
        clickhouse.insert(decode_all(lines[start : start + _BATCH]).columns, None)
    clickhouse.execute(f"OPTIMIZE TABLE {clickhouse.table} FINAL")


def _wait_until_ready(served: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        client = http.client.HTTPConnection("127.0.0.1", port)
        try:
            client.request("GET", "/readyz")
            if client.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            client.close()
        if served.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException(
                f"the API does not answer on port {port}: give another --port"
            )
        time.sleep(0.1)


def _measure(
    report: str, settings: ClickHouseSettings, port: int, crowd: int, requests: int, rounds: int
) -> list[Cell]:
    now = datetime.now(UTC).replace(microsecond=0)
    usual = _params(now - timedelta(hours=24), now)
    turn = 0

    def fresh(number: int) -> dict[str, str]:
        """Another span for each step of each turn of each crowd: nothing of it is cached."""
        end = now - timedelta(hours=turn, seconds=number)
        return _params(end - timedelta(hours=24, seconds=crowd), end)

    with ExitStack() as stack:
        direct = [stack.enter_context(_directly(report, settings, usual)) for _ in range(crowd)]
        ways: dict[str, list[Ask]] = {
            "direct": direct,
            "uncached": [_asking(stack, port, report, lambda _: usual, fresh=True) for _ in direct],
            "cached": [_asking(stack, port, report, lambda _: usual) for _ in direct],
            "coalesced": [_asking(stack, port, report, fresh) for _ in direct],
        }
        took = {way: Took() for way in ways}
        for asks in ways.values():
            at_once(asks, crowd, Took())  # connections and caches are warm from here on
        for turn in range(1, rounds + 1):  # noqa: B007  # `fresh` reads it
            for way, asks in ways.items():
                at_once(asks, requests, took[way], in_step=way == "coalesced")
    return [
        Cell(
            report,
            crowd,
            way,
            len(of.milliseconds),
            of.per_second,
            of.quantile(0.5),
            of.quantile(0.99),
        )
        for way, of in took.items()
    ]


def _params(begin: datetime, end: datetime) -> dict[str, str]:
    return {"from": begin.isoformat(), "to": end.isoformat()}


@contextmanager
def _directly(
    report: str, settings: ClickHouseSettings, params: Mapping[str, str]
) -> Iterator[Ask]:
    template = load().templates[report]
    with ClickHouse(settings, client_name="bench") as clickhouse:
        target = {"database": clickhouse.table.database, "table": clickhouse.table.table}
        values = {**bind(template, params, datetime.now(UTC)).values, **target}

        def ask(_: int) -> None:
            clickhouse.select(template.sql, values)

        yield ask


def _asking(
    stack: ExitStack,
    port: int,
    report: str,
    params: Callable[[int], Mapping[str, str]],
    *,
    fresh: bool = False,
) -> Ask:
    """`fresh` has the API pass over its cache."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    stack.callback(client.close)
    headers = {"Content-Type": "application/json"} | (
        {"Cache-Control": "no-cache"} if fresh else {}
    )

    def ask(number: int) -> None:
        body = json.dumps({"template": report, "params": params(number)})
        client.request("POST", "/report", body, headers)
        answer = client.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise click.ClickException(f"{report}: {answer.status} {told.decode()[:200]}")

    return ask
