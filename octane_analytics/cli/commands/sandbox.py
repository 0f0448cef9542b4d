"""`octane-analytics sandbox`."""

import contextlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from octane_analytics.cli.commands.produce import counts, tell
from octane_analytics.cli.directories import private_directory
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.invocation import program
from octane_analytics.cli.options import PROCESSES, print_warnings
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.inputs import Input
from octane_analytics.cli.produce.sender import Backlog, EventSender, SendStats
from octane_analytics.cli.sandbox.drain import DeliveryWaiter, Stored
from octane_analytics.cli.sandbox.report_client import fetch, print_table
from octane_analytics.cli.sandbox.stack import Ports, Stack
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.kafka.event_producer import EventProducer
from octane_analytics.kafka.topics import TopicInspector
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.runtime.timing import SystemClock

REPORTS: Mapping[str, Mapping[str, object]] = {
    "overview_stats": {},
    "search_analytics": {"limit": 10},
    "top_content": {"limit": 10},
}
_CLIENT_NAME = "octane-analytics-sandbox"
_PARTITIONS = 16
_PARTITION_BYTES = 2 << 20
"""The embedded broker keeps 5 MiB of a partition and drops the oldest beyond that, read or not; this
leaves room for lines that are larger than those before."""
_SPREAD = {"sticky.partitioning.linger.ms": "0"}
"""A partition of its own for each line without a key, not for some milliseconds' worth of them."""
_MAX_LAG = 100_000
_EXAMPLE_QUERY = (
    '{"sql": "SELECT event_name, count() FROM ai_analytics_events GROUP BY event_name"}'
)

_port = click.IntRange(min=0, max=65535)


@click.command(cls=Command)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Keep ClickHouse's data and the logs here, for the next start too.  [default: a temporary "
    "directory, removed at the end]",
)
@click.option(
    "--procs",
    "--worker-procs",
    type=PROCESSES,
    metavar="PROCESSES",
    help="Consumer processes to fork (auto: one for each CPU this process may use).  "
    "[env: WORKER_PROCS; default: auto]",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1000),
    default=_PARTITIONS,
    show_default=True,
    metavar="PARTITIONS",
    help="Partitions of the topic.",
)
@click.option(
    "--generate", type=click.IntRange(min=1), metavar="EVENTS", help="Send made-up events."
)
@inputs.seed_option
@click.option(
    "--load",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Send the lines of this file; what is no event becomes a dead letter.",
)
@inputs.rate_option
@click.option(
    "--once",
    is_flag=True,
    help="Stop when all events sent are in ClickHouse, and print the reports about them.",
)
@click.option(
    "--port",
    "--api-port",
    "api_port",
    type=_port,
    metavar="PORT",
    help="Port the API listens on.  [default: a free one]",
)
@click.option(
    "--metrics-port",
    type=_port,
    metavar="PORT",
    help="Port /metrics is served on.  [default: a free one]",
)
@click.option(
    "--clickhouse-port",
    type=_port,
    metavar="PORT",
    help="Port of ClickHouse's native protocol.  [default: a free one]",
)
@click.option("--verbose", is_flag=True, help="Show the logs of worker and API here.")
def sandbox(
    data_dir: Path | None,
    procs: int | None,
    partitions: int,
    generate: int | None,
    seed: int,
    load: str | None,
    rate: float | None,
    once: bool,
    api_port: int | None,
    metrics_port: int | None,
    clickhouse_port: int | None,
    verbose: bool,
) -> Exit:
    """Run the whole service here, with embedded ClickHouse and Kafka.

    Needs the `embedded` extra and nothing else. Worker, API and metrics are the real commands in
    processes of their own. The variables KAFKA_…, CLICKHOUSE_… and METRICS_… of the environment do
    not count here; those of batches and logs do, with FLUSH_INTERVAL at 0.5 s unless set. While the
    sandbox runs, the table keeps events beyond its 90 days.

    Ctrl-C or SIGTERM ends all of it within seconds.
    """
    print_warnings()
    if generate and load:
        raise click.UsageError("give either --generate EVENTS or --load FILE")
    if once and not (generate or load):
        raise click.UsageError("--once needs --generate EVENTS or --load FILE")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        parts = Stack(
            data_dir or stack.enter_context(private_directory()),
            procs=procs,
            partitions=partitions,
            ports=Ports(api_port or 0, metrics_port or 0, clickhouse_port or 0),
            is_verbose=verbose,
            environ=os.environ,
            is_stopping=stop.is_set,
        )
        click.echo("starting ClickHouse, Kafka, worker and API …", err=True)
        stack.enter_context(parts)
        given = None
        if generate:
            given = inputs.generated(generate, seed=seed)
        elif load:
            given = inputs.read(stack.enter_context(inputs.opened(load)), stop)
        if once and given:
            return _once(parts, given, rate, stop)
        return _serve(parts, given, rate, stop, is_kept=data_dir is not None)


def _serve(
    parts: Stack, given: Input | None, rate: float | None, stop: StopSignal, *, is_kept: bool
) -> Exit:
    """Until a signal, which is how a sandbox is meant to end."""
    if not stop.is_set():
        click.echo(_addresses(parts, is_kept=is_kept))
    if given is not None and not stop.is_set():
        clock = SystemClock()
        started = clock.now()
        tell(_feed(parts, given, rate, stop), clock.now() - started)
    while not stop.wait(0.5):
        parts.check()
    click.echo("stopping …", err=True)
    return Exit.OK


def _once(parts: Stack, given: Input, rate: float | None, stop: StopSignal) -> Exit:
    if stop.is_set():
        return stop.exit_code
    clock = SystemClock()
    with ClickHouse(parts.settings.clickhouse, client_name=_CLIENT_NAME) as clickhouse:
        watch = DeliveryWaiter(
            clickhouse, lambda: parts.metric("analytics_dead_letters_total"), clock
        )
        watch.begin()
        started = clock.now()
        tally = _feed(parts, given, rate, stop)
        stored = _wait(parts, watch, tally.delivered, stop)
        seconds = clock.now() - started
        if stop.is_set():
            return stop.exit_code
        _print_reports(parts, clickhouse)
    return _verdict(tally, stored, seconds)


def _feed(parts: Stack, given: Input, rate: float | None, stop: StopSignal) -> SendStats:
    """Sends it all, no faster than the workers commit: the embedded broker keeps little."""
    kafka = parts.settings.kafka
    bar = reporter("to Kafka", given.total)

    def show(tally: SendStats) -> None:
        parts.check()
        bar.update(given.done(tally), counts(tally))

    spreading = replace(kafka, rdkafka={**kafka.rdkafka, **_SPREAD})
    producer = EventProducer(
        spreading, kafka.topic, client_id=_CLIENT_NAME, is_stopping=stop.is_set
    )
    view = TopicInspector(kafka, client_id=_CLIENT_NAME)
    with contextlib.closing(producer), contextlib.closing(view), bar:
        feed = EventSender(
            producer,
            SystemClock(),
            key=lambda line: None,  # spread evenly, or one busy user would fill one partition
            rate=rate,
            backlog=Backlog(view, kafka.topic, _MAX_LAG, parts.partitions * _PARTITION_BYTES),
            is_stopping=stop.is_set,
            on_progress=show,
        )
        feed.run(given.lines)
    return feed.tally


def _wait(parts: Stack, watch: DeliveryWaiter, expected: int, stop: StopSignal) -> Stored:
    with reporter("in ClickHouse", expected) as bar:

        def show(stored: Stored) -> None:
            parts.check()
            bar.update(stored.accounted, f"{stored.rows:,} of {expected:,} events")

        return watch.wait(expected, pause=stop.wait, on_progress=show)


def _print_reports(parts: Stack, clickhouse: ClickHouse) -> None:
    """Of the whole time that the table's events span."""
    span = clickhouse.select(
        "SELECT formatDateTime(min(timestamp), {form:String}, 'UTC'), "
        "formatDateTime(max(timestamp) + 1, {form:String}, 'UTC') "
        "FROM {database:Identifier}.{table:Identifier}",
        {
            "form": "%Y-%m-%dT%H:%i:%SZ",
            "database": clickhouse.table.database,
            "table": clickhouse.table.table,
        },
    ).rows[0]
    for name, parameters in REPORTS.items():
        found = fetch(_api(parts), name, {"from": span[0], "to": span[1], **parameters})
        print_table(found)


def _verdict(tally: SendStats, stored: Stored, seconds: float) -> Exit:
    """Prints what became of all lines; OK only if every event is in the table once."""
    events = tally.delivered - stored.dead_letters
    click.echo(f"{stored.rows:,} of {events:,} events in ClickHouse")
    if stored.dead_letters:
        click.echo(f"{stored.dead_letters:,} lines are no events: dead letters")
    for why, reason in tally.reasons.items():
        click.echo(f"{reason.count:,} lines not sent, the first is {reason.first_line:,}: {why}")
    click.echo(f"{stored.accounted / seconds:,.0f} events/s from the first send to the last insert")
    return Exit.OK if stored.rows == events and not tally.failed else Exit.FAILED


def _addresses(parts: Stack, *, is_kept: bool) -> str:
    settings, api = parts.settings, _api(parts)
    kafka, clickhouse = settings.kafka, settings.clickhouse
    return f"""\
ClickHouse  {clickhouse.host}:{clickhouse.port} (native), {parts.clickhouse_http} (HTTP)
Kafka       {kafka.bootstrap_servers}, topic {kafka.topic} with {parts.partitions} partitions
API         {api}
Metrics     http://{settings.metrics.host}:{settings.metrics.port}/metrics
Data        {parts.directory}{"" if is_kept else " (removed at the end)"}

Try:
  {shlex.join(program())} produce --kafka-bootstrap-servers {kafka.bootstrap_servers} \
--max-lag 50000 --generate 10000
  curl -s {api}/report -H 'Content-Type: application/json' \
-d '{{"template": "overview_stats"}}'
  curl -s {api}/query -H 'Content-Type: application/json' \
-d '{_EXAMPLE_QUERY}'

Ctrl-C ends it.
"""


def _api(parts: Stack) -> str:
    return f"http://{parts.settings.api.host}:{parts.settings.api.port}"
