"""`octane-analytics produce`."""

import contextlib
import sys
from datetime import datetime

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.sender import Backlog, EventSender, SendStats
from octane_analytics.kafka.event_producer import EventProducer
from octane_analytics.kafka.topics import TopicInspector
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.runtime.timing import SystemClock
from octane_analytics.settings.loading import Loaded
from octane_analytics.telemetry import tracing

_CLIENT_ID = "octane-analytics-produce"


@click.command(cls=Command)
@click.argument(
    "source",
    metavar="[FILE|-]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@click.option(
    "--generate", type=click.IntRange(min=1), metavar="EVENTS", help="Send made-up events instead."
)
@inputs.seed_option
@click.option(
    "--until",
    type=inputs.moment,
    metavar="TIME",
    help="Of made-up events: the end of the six hours that they fall into, RFC 3339.  "
    "[default: now]",
)
@inputs.rate_option
@click.option(
    "--max-lag",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Wait while the consumer group is further behind than this.  [default: never wait]",
)
@setting_options(*KAFKA, "KAFKA_GROUP_ID")
def produce(
    loaded: Loaded,
    source: str | None,
    generate: int | None,
    seed: int,
    until: datetime | None,
    rate: float | None,
    max_lag: int | None,
) -> Exit:
    """Send newline-delimited JSON events to the topic.

    Each line of FILE (- for standard input) becomes one message as it is, valid or not: what is not
    an event is for the workers to find, and ends up in the dead-letter topic. Blank lines are
    skipped. An event's key is its user_id, so that a user's events stay in one partition; what is no
    event has none.

    Prints how many were delivered and how many failed; the exit code is 1 if any failed. Ctrl-C
    stops sending, waits for what is under way (10 s at most), and prints the same.
    """
    if generate and source:
        raise click.UsageError("give either a FILE or --generate EVENTS")
    if not generate and not source and sys.stdin.isatty():
        raise click.UsageError("give a FILE, - for standard input, or --generate EVENTS")
    kafka = loaded.settings.kafka
    clock = SystemClock()
    with contextlib.ExitStack() as stack:
        # Before the signals are taken over: opening a FIFO blocks.
        descriptor = stack.enter_context(inputs.opened(source or "-")) if not generate else -1
        stop = stack.enter_context(StopSignal())
        if generate:
            given = inputs.generated(generate, seed=seed, until=until)
        else:
            given = inputs.read(descriptor, stop)
        traces = tracing.start("produce")
        if traces is not None:
            stack.callback(traces.stop)
        producer = EventProducer(
            kafka,
            kafka.topic,
            client_id=_CLIENT_ID,
            instrumented=traces.instrument_producer if traces else None,
            is_stopping=stop.is_set,
        )
        stack.callback(producer.close)
        view = TopicInspector(kafka, client_id=_CLIENT_ID)
        stack.callback(view.close)
        view.partitions(kafka.topic)  # no broker, or no such topic: told before anything is sent
        bar = reporter(f"to {kafka.topic}", given.total)
        feed = EventSender(
            producer,
            clock,
            rate=rate,
            backlog=Backlog(view, kafka.topic, max_lag) if max_lag else None,
            is_stopping=stop.is_set,
            on_progress=lambda tally: bar.update(given.done(tally), counts(tally)),
        )
        started = clock.now()
        try:
            with bar:
                feed.run(given.lines)
        finally:
            tell(feed.tally, clock.now() - started)
    if stop.is_set():
        return stop.exit_code
    return Exit.FAILED if feed.tally.failed else Exit.OK


def counts(tally: SendStats) -> str:
    return f"{tally.delivered:,} delivered, {tally.failed:,} failed"


def tell(tally: SendStats, seconds: float) -> None:
    """The last word: why lines failed, on standard error, and the counts, on standard output."""
    for why, reason in tally.reasons.items():
        click.echo(f"{reason.count:,} failed, first line {reason.first_line:,}: {why}", err=True)
    unanswered = f", {tally.outstanding:,} not acknowledged" if tally.outstanding else ""
    rate = f" ({tally.delivered / seconds:,.0f} events/s)" if tally.delivered and seconds else ""
    click.echo(f"{counts(tally)}{unanswered} in {seconds:.1f} s{rate}")
