"""Cost of reports over large ledgers, with and without rollups: `bin/bench reports`."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from tests.tools.bench import options
from tests.tools.bench.report import show, write_json, write_picture
from tests.tools.bench.reports import estimate, insert_cost, questions, rollups, tables
from tests.tools.bench.reports.goals import GOAL_EVENTS, Figures, goals
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Built, Ledgers, opened
from tests.tools.bench.reports.sharded import sharded
from tests.tools.bench.reports.through_api import ApiCell, through_api

_DAYS = 90
_SEED = 1


@click.command()
@click.option(
    "--events",
    "sizes",
    multiple=True,
    type=click.IntRange(1_000),
    default=(1_000_000, 10_000_000),
    show_default=True,
    help="Events of a ledger, over 90 days; may be given several times. The goals are set for "
    f"{GOAL_EVENTS:,}, compared with a tenth of them.",
)
@click.option(
    "--parts",
    multiple=True,
    type=click.IntRange(1),
    default=(1,),
    show_default=True,
    help="1 for one merged part a month, else the number of unmerged parts; may be given several "
    "times.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the ledgers here and use those that are there; otherwise they are built and removed.",
)
@click.option(
    "--report",
    "names",
    multiple=True,
    type=click.Choice(list(questions.reports())),
    help="Only these; may be given several times.",
)
@click.option(
    "--range",
    "spans",
    multiple=True,
    type=click.Choice(list(questions.RANGES)),
    default=tuple(questions.RANGES),
    show_default=True,
    help="Ranges that end with the ledger; may be given several times.",
)
@options.rounds
@click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=30,
    show_default=True,
    help="API_QUERY_TIMEOUT in seconds: a report that takes longer is not run again.",
)
@click.option(
    "--insert-rows",
    "insert_sizes",
    multiple=True,
    type=click.IntRange(0),
    default=(50_000, 1_000),
    show_default=True,
    help="Rows of the inserts to measure, 0 for none; may be given several times.",
)
@click.option(
    "--insert-events",
    type=click.IntRange(1),
    default=400_000,
    show_default=True,
    help="Events to insert in each round, in at most 200 inserts.",
)
@click.option(
    "--clients",
    "crowds",
    multiple=True,
    type=click.IntRange(0, 500),
    default=(1, 8, 32),
    show_default=True,
    help="Clients of the API at once, 0 to leave the API out; may be given several times.",
)
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Requests of all clients together, at least one of each.",
)
@click.option(
    "--rollups/--no-rollups",
    "with_rollups",
    default=True,
    show_default=True,
    help="Whether to measure tables with rollups too.",
)
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Also measure the reports over that many shards, each a server of its own, with all "
    "rollups and merged; 1 for none. They are built for this run only.",
)
@click.option("--build-only", is_flag=True, help="Only build the ledgers of --directory.")
@click.option("--port", default=18_772, show_default=True, help="Where the API is to listen.")
@options.json_file
@options.plot_file
def reports(
    sizes: Sequence[int],
    parts: Sequence[int],
    directory: Path | None,
    names: Sequence[str],
    spans: Sequence[str],
    rounds: int,
    timeout: int,
    insert_sizes: Sequence[int],
    insert_events: int,
    crowds: Sequence[int],
    requests: int,
    with_rollups: bool,
    shards: int,
    build_only: bool,
    port: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure every report over large ledgers, with rollups and without, cold and warm.

    Each report runs as the API would run it, without the API's cache. The ways take turns: the template
    over a table without rollups (raw) and with them (rollups); for overview_stats and top_content also
    the query that an analyst would write (by hand) and a materialized view of hours (view). Cold is
    after ClickHouse's caches and the kernel's of its files were emptied. Then the cost of inserts, the
    reports through the API, and the goals.
    """
    if build_only and directory is None:
        raise click.UsageError("--build-only needs a --directory to keep the ledgers in")
    if with_rollups and not rollups.are_available():
        click.echo("schema apply has no --rollups in this version: measuring without", err=True)
        with_rollups = False
    scope = estimate.Scope(
        sizes=sizes,
        parts=parts,
        reports=names or list(questions.reports()),
        spans=spans,
        rounds=rounds,
        ways=(RAW, ROLLUPS) if with_rollups else (RAW,),
        insert_sizes=[size for size in insert_sizes if size],
        crowds=[crowd for crowd in crowds if crowd],
        requests=requests,
        timeout_seconds=timeout,
    )
    with ExitStack() as stack:
        if directory is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-reports-"))
            directory = Path(made)
        directory.mkdir(parents=True, exist_ok=True)
        ledgers = stack.enter_context(opened(directory, _DAYS, _SEED))
        _announce(scope, ledgers, directory, build_only=build_only)
        built = _build(scope, ledgers)
        show(tables.ledger_table(built))
        if build_only:
            return
        sharded_ledgers = None
        if shards > 1 and 1 in parts:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="shards-", dir=directory))
            sharded_ledgers = stack.enter_context(sharded(Path(made), ledgers, shards))
            built += [sharded_ledgers.build(events) for events in sizes]
        asked = questions.Questions(ledgers, scope.timeout_seconds, sharded_ledgers)
        figures = Figures(built, _measure(scope, asked, built))
        _write(json_file, figures)  # what follows may take as long, and be interrupted
        ways = [way for way in insert_cost.WAYS if way != ROLLUPS or with_rollups]
        figures.inserts += insert_cost.insert_costs(
            ledgers, insert_events, scope.insert_sizes, ways, scope.rounds
        )
        _write(json_file, figures)
        figures.api += _through_api(scope, ledgers, figures.cells, port)
    _write(json_file, figures)
    write_picture(plot_file, tables.picture(figures.cells))
    shown = tables.cell_tables(figures.cells)
    shown += [tables.insert_table(figures.inserts)] if figures.inserts else []
    shown += [tables.api_cell_table(figures.api)] if figures.api else []
    title = f"Goals, set for {GOAL_EVENTS:,} events, at {max(sizes):,}"
    show(*shown, tables.goal_table(goals(figures), title), *tables.remarks(figures.cells))


def _write(file: Path | None, figures: Figures) -> None:
    reached = [asdict(goal) for goal in goals(figures)]
    write_json(file, days=_DAYS, **asdict(figures), goals=reached)


def _announce(
    scope: estimate.Scope, ledgers: Ledgers, directory: Path, *, build_only: bool
) -> None:
    """Print the expected duration and disk. Raise ClickException if the disk is too small."""
    needed, free = estimate.new_bytes(scope, ledgers), shutil.disk_usage(directory).free
    building = f"{estimate.build_seconds(scope, ledgers) / 60:,.0f} minutes to build ledgers"
    measuring = f", {estimate.measure_seconds(scope) / 60:,.0f} to measure"
    click.echo(
        f"about {building}{'' if build_only else measuring} on two quiet cores; "
        f"{needed / 1e9:,.1f} GB in {directory}, where {free / 1e9:,.0f} GB are free",
        err=True,
    )
    if needed > free:
        raise click.ClickException(
            f"{directory} has too little room: give fewer --events, or another --directory"
        )


def _build(scope: estimate.Scope, ledgers: Ledgers) -> list[Built]:
    return [
        ledgers.raw(events, parts) if way == RAW else ledgers.rolled_up(events, parts)
        for events in scope.sizes
        for parts in scope.parts
        for way in scope.ways
    ]


def _measure(
    scope: estimate.Scope, asked: questions.Questions, built: Sequence[Built]
) -> list[questions.Cell]:
    cells = []
    for events in scope.sizes:
        for parts in scope.parts:
            mine = {
                each.way: each for each in built if (each.events, each.parts) == (events, parts)
            }
            cells += asked.measure(mine, scope.reports, scope.spans, scope.rounds)
    return cells


def _through_api(
    scope: estimate.Scope, ledgers: Ledgers, cells: Sequence[questions.Cell], port: int
) -> list[ApiCell]:
    if not scope.crowds:
        return []
    of_templates = [cell for cell in cells if cell.way in scope.ways]
    return through_api(
        ledgers, of_templates, scope.crowds, scope.requests, port, scope.timeout_seconds
    )
