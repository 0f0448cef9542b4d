"""`octane-analytics replay`: what was asked for becomes a plan, is shown, confirmed and run."""

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
    option_name,
    setting_options,
)
from octane_analytics.cli.output.confirmation import confirm, has_terminal, require_terminal_or_yes
from octane_analytics.cli.replay import setup
from octane_analytics.cli.replay.output import print_plan, print_report
from octane_analytics.cli.replay.run import ReplayReport, ReplayRun, Sizes
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.inserts import ClickHouseSink
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
    help="First offset: N for all partitions, P:N,P:N for those named, or beginning (earliest).  "
    "[default: none; this or --from-time has to be given]",
)
@click.option(
    "--from-time",
    metavar="TIME",
    help="Begin at this Kafka timestamp: RFC 3339, or as far back as -6h (s, m, h, d).  "
    "[default: none]",
)
@click.option(
    "--to-offset",
    metavar="OFFSETS",
    help="End before this offset: N, P:N,P:N, or end (latest).  "
    "[default: what the workers' group has committed]",
)
@click.option("--to-time", metavar="TIME", help="End before this Kafka timestamp.  [default: none]")
@click.option(
    "--partition",
    "partitions",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="NUMBER",
    help="Only this partition; may be repeated.  [default: all]",
)
@click.option(
    "--clamp",
    is_flag=True,
    help="Begin at the earliest offset where retention has removed what is asked for.",
)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.FILL.value,
    show_default=True,
    help="fill: insert what the table lacks; append: insert everything once more; rebuild: replace "
    "whole months.",
)
@click.option(
    "--compare",
    type=click.Choice([compare.value for compare in Compare]),
    default=Compare.LOG.value,
    show_default=True,
    help="Of fill: count equal events in all that Kafka holds (exact), or in the range only (reads "
    "less, and leaves out a lost event that has an equal one outside of the range).",
)
@click.option(
    "--target",
    metavar="TABLE",
    help="Replay into this table, or DATABASE.TABLE, into which nobody else inserts.  "
    "[default: CLICKHOUSE_TABLE, beside the workers]",
)
@click.option(
    "--month",
    "months",
    type=click.IntRange(197001, 210612),
    multiple=True,
    metavar="YYYYMM",
    help="Of rebuild: this month; may be repeated.  [default: all months with events in the range]",
)
@click.option(
    "--force", is_flag=True, help="Of rebuild: also where rows go that stand nowhere in Kafka."
)
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and leave the table alone.")
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask. Without a terminal, append and rebuild refuse to start unless this is given.",
)
@click.option(
    "--procs",
    type=PROCESSES,
    default="1",
    show_default=True,
    metavar="PROCESSES",
    help="Consumer processes to fork, each for its share of the partitions (auto: one for each CPU this "
    "process may use).",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    metavar="EVENTS/S",
    help="Neither read nor insert faster than this.  [default: as fast as possible]",
)
@click.option(
    "--resume",
    metavar="ID",
    help="Go on with a replay that was interrupted.  [default: begin a new one]",
)
@click.option("--json", "is_json", is_flag=True, help="Print the report as one JSON object.")
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
    is_json: bool,
) -> Exit:
    """Bring the table to what Kafka holds, over a range of the topic.

    fill (the default) counts every event of the range in Kafka and in the table and inserts what the
    table lacks: nothing where nothing is lost, however often it runs and however ranges overlap. It
    runs beside live workers, whose offsets it never touches; by default it ends where they have
    committed.

    append inserts the range once more, each event once for each replay, also when interrupted and
    resumed. rebuild builds whole months beside the table and puts each in place in one step.

    Ctrl-C stops between two chunks and prints the command that goes on. What a replay keeps meanwhile
    are tables octane_replay_<id>_… beside the target, dropped at the end; those of a fill or rebuild
    that died are dropped by the next replay.
    """
    # fill inserts what is missing, however often it runs; the other modes repeat or replace rows.
    is_destructive = mode != Mode.FILL.value
    if is_destructive and resume is None and not dry_run:
        require_terminal_or_yes(f"replay --mode {mode}", yes=yes)
    settings = _aimed(loaded.settings, target)
    is_live = settings.clickhouse == loaded.settings.clickhouse
    pinned = setup.pin_to_first_host(settings.clickhouse, client_name=_CLIENT)
    settings = with_fields(settings, clickhouse=pinned)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        clickhouse = stack.enter_context(ClickHouseSink(settings.clickhouse, client_name=_CLIENT))
        given = [from_offset, from_time, to_offset, to_time, *partitions, *months]
        if resume is not None and (any(item is not None for item in given) or dry_run):
            raise click.UsageError(
                "--resume goes on with what was asked for: give no range with it"
            )
        if months and mode != Mode.REBUILD.value:
            raise click.UsageError("--month is for --mode rebuild")
        try:
            wanted = _wanted(from_offset, from_time, to_offset, to_time, partitions, clamp)
            with _explained():
                live = setup.check_target(clickhouse, Mode(mode))
                if resume is not None:
                    plan, ended = setup.resumed(clickhouse, live, resume, is_live=is_live)
                    if ended is not None:
                        return _close(ReplayReport.of_note(plan, ended), is_json=is_json)
                else:
                    setup.clean_up(clickhouse, live)
                    plan = _plan(settings, wanted, Mode(mode), Compare(compare), is_live, months)
        except BadRange as error:
            raise click.UsageError(str(error)) from error
        if resume is None:
            print_plan(plan, is_dry=dry_run, is_json=is_json, procs=procs, rate=rate)
            if not dry_run and (is_destructive or has_terminal()):
                confirm("Go on?", "the replay", yes=yes)
        run = ReplayRun(
            settings,
            plan,
            live,
            clickhouse,
            stop,
            Sizes(procs, rate),
            is_dry=dry_run,
            is_forced=force,
        )
        return _run(run, loaded, target, is_resumed=resume is not None, is_json=is_json)


def _run(
    run: ReplayRun, loaded: Loaded, target: str | None, *, is_resumed: bool, is_json: bool
) -> Exit:
    try:
        with _explained():
            report = run.run(is_resumed=is_resumed)
    except Interrupted:
        _tell_resume(run, loaded, target)
        return run.stop.exit_code
    except OctaneError:
        _tell_resume(run, loaded, target)
        raise
    return _close(report, is_json=is_json)


def _close(report: ReplayReport, *, is_json: bool) -> Exit:
    print_report(report, is_json=is_json)
    return Exit.FAILED if report.refused or report.undecided else Exit.OK


def _tell_resume(run: ReplayRun, loaded: Loaded, target: str | None) -> None:
    """The command that goes on, with the settings that this one was given as options."""
    if not run.is_resumable:
        return
    words = [*root_words(), "replay", "--resume", run.plan.id]
    for origin in loaded.origins:
        if origin.source == "option":
            words += [option_name(origin.name), origin.shown]
    if target is not None:
        words += ["--target", target]
    click.echo(f"not done; to go on: {shlex.join(words)}", err=True)


def _aimed(settings: Settings, target: str | None) -> Settings:
    if target is None:
        return settings
    database, dot, table = target.rpartition(".")
    aimed: ClickHouseSettings = with_fields(
        settings.clickhouse,
        database=database if dot else settings.clickhouse.database,
        table=table,
    )
    return with_fields(settings, clickhouse=aimed)


def _wanted(
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
    wanted: RequestedRange,
    mode: Mode,
    compare: Compare,
    is_live: bool,
    months: Sequence[int],
) -> ReplayPlan:
    with TopicReader(settings.kafka, client_id=_CLIENT) as log:
        return setup.planned(
            log,
            wanted,
            mode=mode,
            compare=compare,
            target=settings.clickhouse,
            is_live=is_live,
            months=months,
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What the server says of a statement of ours, with what to do about it."""
    try:
        yield
    except StatementRejected as error:
        advice = OPERATOR_ERRORS.get(error.code)
        if error.code == _ACCESS_DENIED:
            advice = "grant it: a replay keeps staging tables beside the target"
        told = f"ClickHouse refuses: {str(error).rstrip('. ')}"
        told += f"; {advice}" if advice else ""
        if advice is not None:
            raise NeedsOperator(told) from error
        raise StatementRejected(error.code, error.name, told) from error
