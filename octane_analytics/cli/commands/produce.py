"""`octane-analytics produce`: send events to the topic."""

import contextlib
import sys
from datetime import datetime

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.output import format_counts, print_result
from octane_analytics.cli.produce.sender import Backlog, EventSender
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
    "--generate",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Send this many generated events instead of a file.",
)
@inputs.seed_option
@click.option(
    "--until",
    type=inputs.parse_time,
    metavar="TIME",
    help="End, in RFC 3339, of the six hours over which generated events are spread.  [default: now]",
)
@inputs.rate_option
@click.option(
    "--max-lag",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Wait while the lag of the consumer group is greater than this.  [default: no limit]",
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

    Each line of FILE (- for standard input) becomes one record, unchanged and not validated: workers
    send invalid records to the dead-letter topic. Blank lines are skipped. The key of an event is its
    user_id, so that a user's events stay in one partition; invalid events do not have a key.

    Prints the numbers of delivered and failed records; the exit code is 1 if any failed. Ctrl-C stops
    sending, waits for records in flight (10 s at most), and prints the same numbers.
    """
    if generate and source:
        raise click.UsageError("give either a FILE or --generate EVENTS")
    if not generate and not source and sys.stdin.isatty():
        raise click.UsageError("give a FILE, - for standard input, or --generate EVENTS")
    kafka = loaded.settings.kafka
    clock = SystemClock()
    with contextlib.ExitStack() as stack:
        # Opened before the signal handlers are installed, because opening a FIFO blocks.
        descriptor = stack.enter_context(inputs.opened(source or "-")) if not generate else -1
        stop = stack.enter_context(StopSignal())
        if generate:
            source_input = inputs.generated(generate, seed=seed, until=until)
        else:
            source_input = inputs.read(descriptor, stop)
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
        inspector = TopicInspector(kafka, client_id=_CLIENT_ID)
        stack.callback(inspector.close)
        inspector.partitions(
            kafka.topic
        )  # raises before anything is sent if the broker or topic does not exist
        bar = reporter(f"to {kafka.topic}", source_input.total)
        sender = EventSender(
            producer,
            clock,
            rate=rate,
            backlog=Backlog(inspector, kafka.topic, max_lag) if max_lag else None,
            is_stopping=stop.is_set,
            on_progress=lambda stats: bar.update(source_input.done(stats), format_counts(stats)),
        )
        started = clock.now()
        try:
            with bar:
                sender.run(source_input.lines)
        finally:
            print_result(sender.stats, clock.now() - started)
    if stop.is_set():
        return stop.exit_code
    return Exit.FAILED if sender.stats.failed else Exit.OK
