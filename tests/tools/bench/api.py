"""Cost of the API for a report: POST /report against the same query through clickhouse-driver.

One ClickHouse, one API process, and a growing number of clients. The ways alternate, so that noise of
the machine affects them equally. The direct way has a connection for each client and reads all rows, as
the API does.
"""

import http.client
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.table import Table

from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.parameters import bind
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench import options
from tests.tools.bench.api_process import served
from tests.tools.bench.clients import Ask, Took, at_once, quantile
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.svg_bars import Bar, bars
from tests.tools.bench.tables import spread

WAYS = ("direct", "uncached", "cached", "coalesced")
_KEPT_SECONDS = 1.0
"""Longest idle time of a connection: later the API may close it just as a request is sent."""


@dataclass(frozen=True)
class Cell:
    """One report requested in one way by a number of concurrent clients."""

    report: str
    clients: int
    way: str
    requests: int
    per_second: tuple[float, ...]
    """Requests per second of each round; the quantiles are over all requests."""
    p50_ms: float
    p99_ms: float


@click.command()
@click.option("--events", default=300_000, show_default=True, help="Events in the table.")
@click.option("--requests", default=100, show_default=True, help="Of each kind, in each round.")
@options.rounds
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
    """Measure reports through clickhouse-driver alone (direct) and through the API: uncached, cached,
    and coalesced (all clients ask the same new thing at the same moment, which is one query).
    """
    with served(events, port) as settings:
        cells = [
            cell
            for report in reports
            for crowd in crowds
            for cell in _measure(report, settings, port, crowd, requests, rounds)
        ]
    write_json(json_file, events=events, cells=[vars(cell) for cell in cells])
    write_picture(plot_file, _drawn(cells))
    told = f"{events:,} events, one API process, {rounds} x {requests:,} requests of each kind"
    show(told, api_table(cells))


def api_table(cells: Sequence[Cell]) -> Table:
    """Return one line for each cell; ratios are against the direct way of the same load."""
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
            spread(cell.per_second, ",.0f"),
            f"{cell.p50_ms:.2f}",
            f"{cell.p50_ms / direct.p50_ms:.2f}",
            f"{cell.p99_ms:.2f}",
            f"{cell.p99_ms / direct.p99_ms:.2f}",
            end_section=cell.way == WAYS[-1],
        )
    return table


def _drawn(cells: Sequence[Cell]) -> str:
    return bars(
        "Time until a report has been answered",
        "ms",
        [
            Bar(
                f"{cell.report}, {cell.clients} client{'s' if cell.clients > 1 else ''}",
                cell.way,
                (cell.p50_ms, max(cell.p99_ms - cell.p50_ms, 0.0)),
                f"{cell.p50_ms:,.1f} and {cell.p99_ms:,.1f} ms, "
                f"{statistics.median(cell.per_second):,.0f} requests/s",
            )
            for cell in cells
        ],
        ("median", "on to the 99th percentile"),
    )


def _measure(
    report: str, settings: ClickHouseSettings, port: int, crowd: int, requests: int, rounds: int
) -> list[Cell]:
    now = datetime.now(UTC).replace(microsecond=0)
    usual = _params(now - timedelta(hours=24), now)
    turn = 0

    def fresh(number: int) -> dict[str, str]:
        """Return another time range for each step, turn and number of clients: no result is cached."""
        end = now - timedelta(hours=turn, seconds=number)
        return _params(end - timedelta(hours=24, seconds=crowd), end)

    with ExitStack() as stack:
        direct = [stack.enter_context(_directly(report, settings, usual)) for _ in range(crowd)]
        ways: dict[str, list[Ask]] = {
            "direct": direct,
            "uncached": [asking(stack, port, report, lambda _: usual, fresh=True) for _ in direct],
            "cached": [asking(stack, port, report, lambda _: usual) for _ in direct],
            "coalesced": [asking(stack, port, report, fresh) for _ in direct],
        }
        took: dict[str, list[Took]] = {way: [] for way in ways}
        for asks in ways.values():
            at_once(asks, crowd)  # warms up connections and caches
        for turn in range(1, rounds + 1):  # `fresh` reads it
            for way, asks in list(ways.items())[:: 1 if turn % 2 else -1]:
                took[way].append(at_once(asks, requests, in_step=way == "coalesced"))
    return [_cell(report, crowd, way, rounds_of) for way, rounds_of in took.items()]


def _cell(report: str, crowd: int, way: str, rounds: Sequence[Took]) -> Cell:
    milliseconds = [one for took in rounds for one in took.milliseconds]
    return Cell(
        report,
        crowd,
        way,
        len(milliseconds),
        tuple(took.per_second for took in rounds),
        quantile(milliseconds, 0.5),
        quantile(milliseconds, 0.99),
    )


def _params(begin: datetime, end: datetime) -> dict[str, str]:
    return {"from": begin.isoformat(), "to": end.isoformat()}


@contextmanager
def _directly(
    report: str, settings: ClickHouseSettings, params: Mapping[str, str]
) -> Iterator[Ask]:
    template = load().templates[report]
    with ClickHouse(settings, client_name="bench") as clickhouse:
        target = {"database": clickhouse.table.database, "table": clickhouse.table.table}
        bound = bind(template, params, datetime.now(UTC))
        sql = template.statement(bound.effective, bound.range)
        values = {**bound.values, **target}

        def ask(_: int) -> None:
            clickhouse.select(sql, values, settings=template.settings(bound.range))

        yield ask


def asking(
    stack: ExitStack,
    port: int,
    report: str,
    params: Callable[[int], Mapping[str, object]],
    *,
    fresh: bool = False,
) -> Ask:
    """Return a client of the API, closed by the stack; `fresh` makes the API bypass its cache. It raises
    ClickException for any answer but 200."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    stack.callback(client.close)
    headers = {"Content-Type": "application/json"} | (
        {"Cache-Control": "no-cache"} if fresh else {}
    )

    asked_at = time.monotonic()

    def ask(number: int) -> None:
        nonlocal asked_at
        if time.monotonic() - asked_at > _KEPT_SECONDS:
            client.close()  # the API is about to close it too; the request opens it again
        asked_at = time.monotonic()
        body = json.dumps({"template": report, "params": params(number)})
        client.request("POST", "/report", body, headers)
        answer = client.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise click.ClickException(f"{report}: {answer.status} {told.decode()[:200]}")

    return ask
