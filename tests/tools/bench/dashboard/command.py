"""Cost of the dashboard: time of a load in Chromium, and CPU of viewers: `bin/bench dashboard`."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
from rich.table import Table

from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.ports import free_port
from tests.tools.bench import options
from tests.tools.bench.api_process import answering, filled
from tests.tools.bench.dashboard.page_loads import DashboardPage, PageLoad, PageRequest, opened_page
from tests.tools.bench.dashboard.viewers import Crowd, crowd
from tests.tools.bench.measure import children, cpu_seconds
from tests.tools.bench.report import show, write_json
from tests.tools.bench.reports.ledgers import opened
from tests.tools.bench.tables import spread

UNCACHED, CACHED = "uncached", "cached"
GOAL_MS = {UNCACHED: 1_500.0, CACHED: 300.0}
GOAL_VIEWERS, GOAL_CPU = 200, 0.25
_DAYS, _SEED = 90, 1


@dataclass(frozen=True)
class Cell:
    """Loads of the page over one range."""

    span: str
    way: str
    loads: tuple[PageLoad, ...]
    cpu_seconds: tuple[float, float]
    """Of ClickHouse and of the API, for one load."""

    @property
    def complete_ms(self) -> list[float]:
        return [each.complete_ms for each in self.loads]


@dataclass(frozen=True)
class Service:
    base: str
    engine_pid: int
    api_pids: tuple[int, ...]

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU seconds of ClickHouse and of the API."""
        return cpu_seconds(self.engine_pid), sum(map(cpu_seconds, self.api_pids))


@click.command()
@click.option(
    "--events",
    type=click.IntRange(1_000),
    default=300_000,
    show_default=True,
    help="Events of the ledger: with --directory its rollups ledger of that size, which is built if "
    "it is missing; otherwise of the last twenty hours, without rollups.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Ledgers of `bin/bench reports --directory`.",
)
@click.option(
    "--range",
    "spans",
    multiple=True,
    type=click.Choice(["today", "24h", "7d", "30d", "90d"]),
    default=("24h", "7d", "90d"),
    show_default=True,
    help="Ranges of the page; may be given several times.",
)
@click.option("--view", default="overview", show_default=True, help="View of the page.")
@options.rounds
@click.option(
    "--viewers",
    type=click.IntRange(0, 2_000),
    default=GOAL_VIEWERS,
    show_default=True,
    help="Viewers who keep the page open; 0 for none.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Time over which the CPU of the viewers is measured; give a multiple of the page's interval.",
)
@options.json_file
def dashboard(
    events: int,
    directory: Path | None,
    spans: Sequence[str],
    view: str,
    rounds: int,
    viewers: int,
    seconds: float,
    json_file: Path | None,
) -> None:
    """Measure the dashboard in Chromium: from the navigation until every panel is filled.

    Uncached is with an API that keeps no answers (ClickHouse's own caches are warm), cached is a load
    after another one. Then viewers repeat what the page requests at a refresh, at its interval and with
    its live report open, against an API with one process. CPU is that of ClickHouse + that of the API.
    """
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        raise click.ClickException("no Chromium: apt-get install chromium chromium-driver")
    cells: list[Cell] = []
    crowds: dict[str, Crowd] = {}
    with ExitStack() as stack:
        ledger, engine_pid = stack.enter_context(_ledger(events, directory))
        with serving(ledger, engine_pid, {"API_CACHE_BYTES": "0"}) as service:
            cells += _cells(service, view, spans, rounds, UNCACHED)
        with serving(ledger, engine_pid) as service:
            cells += _cells(service, view, spans, rounds, CACHED)
            for span in spans if viewers else ():
                crowds[span] = _watched(service, view, span, viewers, seconds)
    write_json(
        json_file,
        events=events,
        cells=[asdict(cell) for cell in cells],
        crowds={span: asdict(each) for span, each in crowds.items()},
    )
    title = f"{view}, {events:,} events"
    show(load_table(title, cells), *([crowd_table(crowds)] if crowds else []))


@contextmanager
def _ledger(events: int, directory: Path | None) -> Iterator[tuple[ClickHouseSettings, int]]:
    """Context of the ledger's settings and of the process ID of its ClickHouse."""
    if directory is None:
        with filled(events) as (settings, pid):
            yield settings, pid
    else:
        with opened(directory, _DAYS, _SEED) as ledgers:
            built = ledgers.rolled_up(events, 1)
            assert ledgers.engine.pid is not None
            yield ledgers.settings(built.table), ledgers.engine.pid


@contextmanager
def serving(
    ledger: ClickHouseSettings, engine_pid: int, settings: dict[str, str] | None = None
) -> Iterator[Service]:
    """Context of an API with one process."""
    port = free_port()
    with answering(ledger, port, settings or {}) as pid:
        yield Service(f"http://127.0.0.1:{port}", engine_pid, (pid, *children(pid)))


def _cells(service: Service, view: str, spans: Sequence[str], rounds: int, way: str) -> list[Cell]:
    cells = []
    with opened_page(service.base) as page:
        for span in spans:
            page.load(_path(view, span))  # connects, and fills the caches that there are
            engine_before, api_before = service.cpu_seconds()
            loads = tuple(page.load(_path(view, span)) for _ in range(rounds))
            engine, api = service.cpu_seconds()
            spent = (engine - engine_before) / rounds, (api - api_before) / rounds
            cells.append(Cell(span, way, loads, spent))
    return cells


def _watched(service: Service, view: str, span: str, viewers: int, seconds: float) -> Crowd:
    with opened_page(service.base) as page:
        interval, requests, live = recorded(page, _path(view, span))
    return crowd(
        service.base,
        requests,
        live,
        viewers=viewers,
        interval_seconds=interval,
        seconds=seconds,
        cpu_seconds=service.cpu_seconds,
    )


def recorded(page: DashboardPage, path: str) -> tuple[float, list[PageRequest], list[PageRequest]]:
    """Return the page's interval, the requests of a refresh, and its live reports."""
    live = [each for each in page.load(path).requests if each.is_live]
    interval, requests = page.refresh()
    return interval, [each for each in requests if not each.is_live], live


def _path(view: str, span: str) -> str:
    return f"/dashboard?view={view}&range={span}"


def load_table(title: str, cells: Sequence[Cell]) -> Table:
    """Return one line for each range and way."""
    table = Table(title=title)
    for heading in ("range", "way", "complete ms", "goal", "first paint ms", "requests", "CPU s"):
        table.add_column(heading, justify="left" if heading in ("range", "way") else "right")
    table.add_column("slowest, ms")
    for cell in cells:
        last = cell.loads[-1]
        is_reached = median(cell.complete_ms) <= GOAL_MS[cell.way]
        table.add_row(
            cell.span,
            cell.way,
            spread(cell.complete_ms, ",.0f"),
            f"{GOAL_MS[cell.way]:,.0f}: {'yes' if is_reached else 'no'}",
            spread([each.paint_ms for each in cell.loads], ",.0f"),
            f"{len(last.requests)}",
            " + ".join(f"{spent:.2f}" for spent in cell.cpu_seconds),
            "\n".join(f"{took:,.0f} {path[:90]}" for took, path in last.slowest),
        )
    return table


def crowd_table(crowds: dict[str, Crowd]) -> Table:
    """Return one line for each range."""
    table = Table(title=f"Viewers; goal: {GOAL_VIEWERS} cost at most {GOAL_CPU} of a core")
    for heading in ("range", "viewers", "interval s", "requests/s", "304", "kB/s", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("slowest ms", justify="right")
    table.add_column("cores", justify="right")
    for span, each in crowds.items():
        traffic = each.traffic
        table.add_row(
            span,
            f"{each.viewers}",
            f"{each.interval_seconds:g}",
            f"{traffic.requests / each.seconds:,.1f}",
            f"{traffic.unchanged / max(traffic.requests, 1):.0%}",
            f"{traffic.content_bytes / each.seconds / 1000:,.0f}",
            f"{traffic.failed}",
            f"{traffic.slowest_ms:,.0f}",
            f"{sum(each.cpu_shares):.3f} ({' + '.join(f'{share:.3f}' for share in each.cpu_shares)})",
        )
    return table
