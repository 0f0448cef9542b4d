"""`octane-analytics sandbox`: the whole service on this machine, with embedded engines."""

import contextlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from octane_analytics.cli.directories import private_directory
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.invocation import program
from octane_analytics.cli.options import PROCESSES, print_warnings
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.inputs import Input
from octane_analytics.cli.produce.output import format_counts, print_result
from octane_analytics.cli.produce.sender import Backlog, EventSender, SendStats
from octane_analytics.cli.sandbox.delivery_waiter import DeliveryCounts, DeliveryWaiter
from octane_analytics.cli.sandbox.replica_rows import ShardRows, count_rows
from octane_analytics.cli.sandbox.report_client import fetch, print_table
from octane_analytics.cli.sandbox.servers import Servers, SingleServer
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
"""Limit of unread bytes per partition. The embedded broker keeps 5 MiB of a partition and drops the
oldest records beyond that, read or not; the rest is room for lines larger than the average."""
_SPREAD = {"sticky.partitioning.linger.ms": "0"}
"""Chooses a partition for each line without a key instead of once per some milliseconds."""
_MAX_LAG = 100_000
_HISTORY_DAYS = 60
"""The dashboard's ranges up to 30 days have a period before them."""
_MAX_HISTORY_DAYS = 90
"""The table keeps events for as long."""
_EXAMPLE_QUERY = '{{"sql": "SELECT event_name, count() FROM {table} GROUP BY event_name"}}'

_port = click.IntRange(min=0, max=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Values of the command's options, without those of the servers."""

    data_dir: Path | None
    procs: int | None
    partitions: int
    generate: int | None
    history: int
    seed: int
    load: str | None
    rate: float | None
    once: bool
    api_port: int | None
    metrics_port: int | None
    verbose: bool


@click.command(cls=Command)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Keep ClickHouse's data and the logs in this directory, also for the next start.  "
    "[default: a temporary directory, removed at the end]",
)
@click.option(
    "--procs",
    "--worker-procs",
    type=PROCESSES,
    metavar="PROCESSES",
    help="Number of consumer processes to fork (auto: one for each CPU that this process may use).  "
    "[env: WORKER_PROCS; default: auto]",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1, max=1000),
    default=_PARTITIONS,
    show_default=True,
    metavar="PARTITIONS",
    help="Number of partitions of the topic.",
)
@click.option(
    "--generate",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Send this many generated events.",
)
@click.option(
    "--history",
    type=click.IntRange(min=1, max=_MAX_HISTORY_DAYS),
    default=_HISTORY_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Spread the generated events over this many days up to now, most of them over the last ones.",
)
@inputs.seed_option
@click.option(
    "--load",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Send the lines of this file; invalid events become dead-letter messages.",
)
@inputs.rate_option
@click.option(
    "--once",
    is_flag=True,
    help="Stop when all sent events are in ClickHouse, and print reports about them.",
)
@click.option(
    "--port",
    "--api-port",
    "api_port",
    type=_port,
    metavar="PORT",
    help="Port of the API.  [default: a free port]",
)
@click.option(
    "--metrics-port",
    type=_port,
    metavar="PORT",
    help="Port of /metrics.  [default: a free port]",
)
@click.option(
    "--clickhouse-port",
    type=_port,
    metavar="PORT",
    help="Port of ClickHouse's native protocol.  [default: a free port]",
)
@click.option(
    "--verbose", is_flag=True, help="Write the logs of the worker and the API to standard error."
)
def sandbox(**options: Any) -> Exit:
    """Run the whole service on this machine, with embedded ClickHouse and Kafka.

    Needs only the `embedded` extra. The worker, the API and the metrics process are the real commands in
    processes of their own. Ignores the variables KAFKA_…, CLICKHOUSE_… and METRICS_… of the
    environment; uses those of batches and logs, with FLUSH_INTERVAL at 0.5 s unless set. While the
    sandbox runs, the table keeps events for longer than 90 days.

    Ctrl-C or SIGTERM stops everything within seconds. Shards and replicas need programs that are not
    part of the package: bin/sandbox of a checkout has --shards and --replicas.
    """
    port = options.pop("clickhouse_port") or 0
    return run(Options(**options), lambda directory: SingleServer(directory, tcp_port=port))


def run(options: Options, servers_in: Callable[[Path], Servers]) -> Exit:
    """Run the sandbox on the servers that `servers_in` returns for the data directory."""
    print_warnings()
    if options.generate and options.load:
        raise click.UsageError("--generate and --load exclude each other: give one of them")
    if options.once and not (options.generate or options.load):
        raise click.UsageError("--once requires --generate EVENTS or --load FILE")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal())
        directory = options.data_dir or stack.enter_context(private_directory())
        service = Stack(
            directory,
            servers_in(directory.absolute()),
            procs=options.procs,
            partitions=options.partitions,
            ports=Ports(options.api_port or 0, options.metrics_port or 0),
            is_verbose=options.verbose,
            environ=os.environ,
            is_stopping=stop.is_set,
        )
        click.echo("starting ClickHouse, Kafka, worker and API …", err=True)
        stack.enter_context(service)
        events = None
        if options.generate:
            events = inputs.generated(options.generate, seed=options.seed, days=options.history)
        elif options.load:
            events = inputs.read(stack.enter_context(inputs.opened(options.load)), stop)
        if options.once and events:
            return _run_once(service, events, options.rate, stop)
        return _serve(service, events, options.rate, stop, is_kept=options.data_dir is not None)


def _serve(
    service: Stack, events: Input | None, rate: float | None, stop: StopSignal, *, is_kept: bool
) -> Exit:
    """Print the addresses, send the events if there are any, and block until a signal."""
    if not stop.is_set():
        click.echo(_addresses(service, is_kept=is_kept))
    if events is not None and not stop.is_set():
        clock = SystemClock()
        started = clock.now()
        print_result(_send(service, events, rate, stop), clock.now() - started)
    while not stop.wait(0.5):
        service.check()
    click.echo("stopping …", err=True)
    return Exit.OK


def _run_once(service: Stack, events: Input, rate: float | None, stop: StopSignal) -> Exit:
    if stop.is_set():
        return stop.exit_code
    clock = SystemClock()
    settings = service.settings.clickhouse
    everything = replace(settings, table=settings.read_table)
    with ClickHouse(everything, client_name=_CLIENT_NAME) as clickhouse:
        waiter = DeliveryWaiter(
            clickhouse, lambda: service.metric("analytics_dead_letters_total"), clock
        )
        waiter.begin()
        started = clock.now()
        stats = _send(service, events, rate, stop)
        delivered = _wait(service, waiter, stats.delivered, stop)
        seconds = clock.now() - started
        if stop.is_set():
            return stop.exit_code
        _print_reports(service, clickhouse)
    return _print_verdict(stats, delivered, seconds, count_rows(settings))


def _send(service: Stack, events: Input, rate: float | None, stop: StopSignal) -> SendStats:
    """Send all events. Blocks while the lag is too large for what the embedded broker keeps."""
    kafka = service.settings.kafka
    bar = reporter("to Kafka", events.total)

    def show(stats: SendStats) -> None:
        service.check()
        bar.update(events.done(stats), format_counts(stats))

    kafka_settings = replace(kafka, rdkafka={**kafka.rdkafka, **_SPREAD})
    producer = EventProducer(
        kafka_settings, kafka.topic, client_id=_CLIENT_NAME, is_stopping=stop.is_set
    )
    inspector = TopicInspector(kafka, client_id=_CLIENT_NAME)
    with contextlib.closing(producer), contextlib.closing(inspector), bar:
        sender = EventSender(
            producer,
            SystemClock(),
            key=lambda line: None,  # spread evenly: one busy user must not fill one partition
            rate=rate,
            backlog=Backlog(
                inspector, kafka.topic, _MAX_LAG, service.partitions * _PARTITION_BYTES
            ),
            is_stopping=stop.is_set,
            on_progress=show,
        )
        sender.run(events.lines)
    return sender.stats


def _wait(
    service: Stack, waiter: DeliveryWaiter, expected: int, stop: StopSignal
) -> DeliveryCounts:
    with reporter("in ClickHouse", expected) as bar:

        def show(delivered: DeliveryCounts) -> None:
            service.check()
            bar.update(delivered.total, f"{delivered.rows:,} of {expected:,} events")

        return waiter.wait(expected, pause=stop.wait, on_progress=show)


def _print_reports(service: Stack, clickhouse: ClickHouse) -> None:
    """Print the reports of REPORTS for the time from the table's first to its last event."""
    first, last = clickhouse.select(
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
        print_table(fetch(_api(service), name, {"from": first, "to": last, **parameters}))


def _print_verdict(
    stats: SendStats, delivered: DeliveryCounts, seconds: float, shards: Sequence[ShardRows]
) -> Exit:
    """Print the counts of all lines; return OK only if every event is in the table once, and every
    replica has all rows of its shard."""
    events = stats.delivered - delivered.dead_letters
    click.echo(f"{delivered.rows:,} of {events:,} events in ClickHouse")
    if delivered.dead_letters:
        click.echo(f"{delivered.dead_letters:,} lines are invalid events: dead-letter messages")
    for why, reason in stats.reasons.items():
        click.echo(f"{reason.count:,} lines not sent, first line {reason.first_line:,}: {why}")
    click.echo(f"{delivered.total / seconds:,.0f} events/s from the first send to the last insert")
    if len(shards) > 1 or any(len(shard.rows) > 1 for shard in shards):
        click.echo("\n".join(str(shard) for shard in shards))
    is_complete = delivered.rows == events and not stats.failed
    are_equal = all(shard.are_equal for shard in shards)
    return Exit.OK if is_complete and are_equal else Exit.FAILED


def _addresses(service: Stack, *, is_kept: bool) -> str:
    settings, api = service.settings, _api(service)
    kafka, clickhouse = settings.kafka, service.servers.addresses
    query = _EXAMPLE_QUERY.format(table=settings.clickhouse.read_table)
    return f"""\
Dashboard   {api}/dashboard
ClickHouse  {f"{chr(10)}            ".join(clickhouse)}
Kafka       {kafka.bootstrap_servers}, topic {kafka.topic} with {service.partitions} partitions
API         {api}
Metrics     http://{settings.metrics.host}:{settings.metrics.port}/metrics
Data        {service.directory}{"" if is_kept else " (removed at the end)"}

Try:
  {shlex.join(program())} produce --kafka-bootstrap-servers {kafka.bootstrap_servers} \
--max-lag 50000 --generate 10000
  curl -s {api}/report -H 'Content-Type: application/json' \
-d '{{"template": "overview_stats"}}'
  curl -s {api}/query -H 'Content-Type: application/json' \
-d '{query}'

Ctrl-C stops the sandbox.
"""


def _api(service: Stack) -> str:
    return f"http://{service.settings.api.host}:{service.settings.api.port}"
