"""`octane-analytics replay`: plan a replay of an offset range, print, confirm and run it."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace as with_fields
from datetime import UTC, datetime

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.invocation import root_words
from octane_analytics.cli.options import (
    CLICKHOUSE,
    KAFKA,
    PROCESSES,
    json_option,
    option_name,
    setting_options,
)
from octane_analytics.cli.output.confirmation import (
    confirm,
    dry_run_option,
    has_terminal,
    require_terminal_or_yes,
)
from octane_analytics.cli.replay import setup
from octane_analytics.cli.replay.fence import ReplayFence
from octane_analytics.cli.replay.output import print_plan, print_report
from octane_analytics.cli.replay.report import ReplayReport
from octane_analytics.cli.replay.run import ReplayResources, ReplayRun
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_survey import ReplayServers
from octane_analytics.clickhouse.replay_target import ShardedTarget
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.errors import (
    NeedsOperator,
    OctaneError,
    StatementRejected,
)
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.pacing import Interrupted
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.replay.ranges import BadRange, RequestedRange, parse_offsets, parse_time
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import Settings

_CLIENT = "octane-analytics-replay"
_ACCESS_DENIED = 497


@click.command(cls=Command)
@click.option(
    "--from-offset",
    metavar="OFFSETS",
    help="First offset: N for all partitions, P:N,P:N for these partitions, or beginning (earliest).  "
    "[default: none; this or --from-time is required]",
)
@click.option(
    "--from-time",
    metavar="TIME",
    help="Begin at this Kafka timestamp: RFC 3339, or -6h for six hours ago (s, m, h, d).  "
    "[default: none]",
)
@click.option(
    "--to-offset",
    metavar="OFFSETS",
    help="End before this offset: N, P:N,P:N, or end (latest).  "
    "[default: the committed offsets of the workers' group]",
)
@click.option(
    "--to-time",
    metavar="TIME",
    help="End before this Kafka timestamp, as for --from-time.  [default: none]",
)
@click.option(
    "--partition",
    "partitions",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="NUMBER",
    help="Replay only this partition; repeatable.  [default: all]",
)
@click.option(
    "--clamp",
    is_flag=True,
    help="Begin at the earliest offset if retention has removed the beginning of the range.",
)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.FILL.value,
    show_default=True,
    help="Mode: fill inserts the events that the table lacks, append inserts all events once more, "
    "rebuild replaces whole months.",
)
@click.option(
    "--compare",
    type=click.Choice([compare.value for compare in Compare]),
    default=Compare.LOG.value,
    show_default=True,
    help="With fill: count equal events in the whole log (exact) or in the range only (reads less, but "
    "misses a lost event with an equal one outside of the range).",
)
@click.option(
    "--target",
    metavar="TABLE",
    help="Replay into this table, or DATABASE.TABLE, into which no other process inserts.  "
    "[default: CLICKHOUSE_TABLE, while the workers run]",
)
@click.option(
    "--month",
    "months",
    type=click.IntRange(197001, 210612),
    multiple=True,
    metavar="YYYYMM",
    help="With rebuild: replace only this month; repeatable.  [default: all months with events in the "
    "range]",
)
@click.option(
    "--force",
    is_flag=True,
    help="With rebuild: also replace months with rows that are not in Kafka, which removes these rows.",
)
@dry_run_option("Read and compare everything, print the result, and do not change the table.")
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask for confirmation. Required by append and rebuild without a terminal.",
)
@click.option(
    "--procs",
    type=PROCESSES,
    default="1",
    show_default=True,
    metavar="PROCESSES",
    help="Number of consumer processes, which share the partitions (auto: one for each CPU that this "
    "process may use).",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    metavar="EVENTS/S",
    help="Limit of events per second for reading and for inserting.  [default: no limit]",
)
@click.option(
    "--resume",
    metavar="ID",
    help="Resume the interrupted replay with this ID.  [default: begin a new one]",
)
@json_option("Print the report as one JSON object.")
@setting_options(*KAFKA, "KAFKA_GROUP_ID", *CLICKHOUSE)
def replay(
    loaded: Loaded,
    from_offset: str | None,
    from_time: str | None,
    to_offset: str | None,
    to_time: str | None,
    partitions: Sequence[int],
    clamp: bool,
    mode: str,
    compare: str,
    target: str | None,
    months: Sequence[int],
    force: bool,
    dry_run: bool,
    yes: bool,
    procs: int,
    rate: float | None,
    resume: str | None,
    as_json: bool,
) -> Exit:
    """Insert the events of an offset range that the table lacks, or rebuild months.

    fill (the default) counts every event of the range in Kafka and in the table and inserts those that
    the table lacks. It inserts nothing if nothing was lost, however often it runs and however ranges
    overlap. It can run while workers run and does not change their offsets; by default it ends at their
    committed offsets.

    append inserts the range once more, each event once per replay, also if interrupted and resumed.
    rebuild builds whole months in staging tables and replaces each month in one step, or in one step for
    each of several shards.

    Ctrl-C stops between two chunks and prints the command that resumes the replay. A replay keeps its
    state in tables octane_replay_<id>_… in the database of the target and drops them at its end; the
    next replay drops those of a fill or rebuild that was killed.
    """
    # fill is idempotent; the other modes repeat or replace rows.
    is_destructive = mode != Mode.FILL.value
    if is_destructive and resume is None and not dry_run:
        require_terminal_or_yes(f"replay --mode {mode}", yes=yes)
    settings = _with_target(loaded.settings, target)
    is_live = settings.clickhouse == loaded.settings.clickhouse
    whole = settings.clickhouse
    pinned = setup.pin_to_first_host(whole, client_name=_CLIENT)
    settings = with_fields(settings, clickhouse=pinned)
    peers = setup.peers_of(pinned, whole)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        clickhouse = stack.enter_context(ClickHouseSink(settings.clickhouse, client_name=_CLIENT))
        servers = ReplayServers(whole, client_name=_CLIENT)
        fence = ReplayFence(servers, clickhouse.table)
        range_options = [from_offset, from_time, to_offset, to_time, *partitions, *months]
        if resume is not None and (any(o is not None for o in range_options) or dry_run):
            raise click.UsageError(
                "--resume continues with the range of that replay: omit the options of a range"
            )
        if months and mode != Mode.REBUILD.value:
            raise click.UsageError("--month requires --mode rebuild")
        try:
            requested = _requested_range(
                from_offset, from_time, to_offset, to_time, partitions, clamp
            )
            with _explain_rejections():
                if whole.topology().is_sharded:
                    setup.check_shards(clickhouse, whole, Mode(mode))
                elif is_live:
                    setup.require_unsharded(clickhouse, whole)
                live = setup.check_target(clickhouse, Mode(mode))
                if Mode(mode) is Mode.REBUILD:
                    setup.require_one_time_zone(whole)
                if resume is not None:
                    plan, ended = fence.load_interrupted(resume, pinned.host, is_live=is_live)
                    if ended is not None:
                        return _print(ReplayReport.from_json(plan, ended), as_json=as_json)
                else:
                    fence.clean_up()
                    plan = _plan(
                        settings,
                        requested,
                        Mode(mode),
                        Compare(compare),
                        is_live=is_live,
                        is_sharded=whole.topology().is_sharded,
                        months=months,
                    )
        except BadRange as error:
            raise click.UsageError(str(error)) from error
        if resume is None:
            print_plan(
                plan,
                shards=len(whole.topology().shards),
                sees_inserts=plan.mode is Mode.REBUILD and setup.sees_inserts(clickhouse),
                is_dry=dry_run,
                as_json=as_json,
                procs=procs,
                rate=rate,
            )
            if not dry_run and (is_destructive or has_terminal()):
                confirm("Go on?", "the replay", yes=yes)
        run = ReplayRun(
            settings,
            plan,
            live,
            clickhouse,
            stop,
            ReplayResources(procs, rate),
            servers,
            target=_sharded_target(whole, live, stack),
            peers=peers,
            is_dry=dry_run,
            is_forced=force,
        )
        return _run(run, loaded, target, is_resumed=resume is not None, as_json=as_json)


def _sharded_target(
    settings: ClickHouseSettings, live: LiveTable, stack: contextlib.ExitStack
) -> ShardedTarget | None:
    if not settings.topology().is_sharded:
        return None
    return stack.enter_context(
        ShardedTarget(settings, client_name=_CLIENT, is_replicated=live.is_replicated)
    )


def _run(
    run: ReplayRun, loaded: Loaded, target: str | None, *, is_resumed: bool, as_json: bool
) -> Exit:
    try:
        with _explain_rejections():
            report = run.run(is_resumed=is_resumed)
    except Interrupted:
        _print_resume_command(run, loaded, target)
        return run.stop.exit_code
    except OctaneError:
        _print_resume_command(run, loaded, target)
        raise
    return _print(report, as_json=as_json)


def _print(report: ReplayReport, *, as_json: bool) -> Exit:
    print_report(report, as_json=as_json)
    return Exit.FAILED if report.refused or report.undecided else Exit.OK


def _print_resume_command(run: ReplayRun, loaded: Loaded, target: str | None) -> None:
    """Print the command that resumes the replay, with the setting options of this run."""
    if not run.is_resumable:
        return
    words = [*root_words(), "replay", "--resume", run.plan.id]
    for origin in loaded.origins:
        if origin.source == "option":
            words += [option_name(origin.name), origin.shown]
    if target is not None:
        words += ["--target", target]
    click.echo(f"replay not finished; to resume it: {shlex.join(words)}", err=True)


def _with_target(settings: Settings, target: str | None) -> Settings:
    if target is None:
        return settings
    database, dot, table = target.rpartition(".")
    clickhouse: ClickHouseSettings = with_fields(
        settings.clickhouse,
        database=database if dot else settings.clickhouse.database,
        table=table,
    )
    return with_fields(settings, clickhouse=clickhouse)


def _requested_range(
    from_offset: str | None,
    from_time: str | None,
    to_offset: str | None,
    to_time: str | None,
    partitions: Sequence[int],
    clamp: bool,
) -> RequestedRange:
    now = datetime.now(UTC)
    return RequestedRange(
        from_offset=None if from_offset is None else parse_offsets(from_offset, "beginning"),
        from_time=None if from_time is None else parse_time(from_time, now),
        to_offset=None if to_offset is None else parse_offsets(to_offset, "end"),
        to_time=None if to_time is None else parse_time(to_time, now),
        partitions=partitions,
        should_clamp=clamp,
    )


def _plan(
    settings: Settings,
    requested: RequestedRange,
    mode: Mode,
    compare: Compare,
    *,
    is_live: bool,
    is_sharded: bool,
    months: Sequence[int],
) -> ReplayPlan:
    with TopicReader(settings.kafka, client_id=_CLIENT) as log:
        return setup.make_plan(
            log,
            requested,
            mode=mode,
            compare=compare,
            target=settings.clickhouse,
            is_live=is_live,
            is_sharded=is_sharded,
            months=months,
        )


@contextlib.contextmanager
def _explain_rejections() -> Iterator[None]:
    """Add advice to errors that ClickHouse reports for a statement; NeedsOperator if there is any."""
    try:
        yield
    except StatementRejected as error:
        advice = OPERATOR_ERRORS.get(error.code)
        if error.code == _ACCESS_DENIED:
            advice = "grant it: a replay keeps staging tables in the database of the target"
        message = f"ClickHouse rejected a statement: {str(error).rstrip('. ')}"
        if advice is not None:
            raise NeedsOperator(f"{message}; {advice}") from error
        raise StatementRejected(error.code, error.name, message) from error
