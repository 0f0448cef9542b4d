"""`bin/bench`: the same topic into tables of the same kind, one contender after the other, in one run.

Events are the generator's, the same for the same seed; each run reads all of them (a backlog) as a
group of its own. The contenders alternate, so that a machine that grows slower does so for all.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from octane_analytics import schema
from octane_analytics.clickhouse import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.sections import ClickHouseSettings
from tests.bench.contenders import CONTENDERS, TOPIC, Job
from tests.bench.measure import BenchError, Run, measure
from tests.kafka.apache import ApacheKafka, available

_DEADLINE_SECONDS = 300.0


@click.command()
@click.option("--events", default=500_000, show_default=True, help="Events in the topic.")
@click.option("--partitions", default=8, show_default=True, help="Partitions of the topic.")
@click.option(
    "--procs",
    "processes",
    multiple=True,
    type=int,
    default=(1,),
    show_default=True,
    help="Worker processes, or consumers of the Kafka engine; may be given several times.",
)
@click.option("--rounds", default=3, show_default=True, help="Runs of each combination.")
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=int,
    default=(1_000, 10_000, 50_000),
    show_default=True,
    help="BATCH_SIZE; also the most a batch may take, so that backlog does not make all alike.",
)
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=click.Choice(list(CONTENDERS)),
    help="Only these (all unless given). The ratios are against kafka-engine where it takes part, "
    "else against the first.",
)
@click.option(
    "--compression", default="lz4", show_default=True, help="Of the records in the topic."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all runs here.")
def main(
    events: int,
    partitions: int,
    processes: Sequence[int],
    rounds: int,
    batch_sizes: Sequence[int],
    contenders: Sequence[str],
    compression: str,
    json_file: Path | None,
) -> None:
    """Measures workers, ClickHouse's own Kafka engine and a naive loop on one Kafka and one ClickHouse.

    CPU and memory are read from /proc, between the first insert seen and the last. Apache Kafka
    where Java is there, else the embedded mock cluster.
    """
    names = list(contenders or CONTENDERS)
    runs: list[Run] = []
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-bench-"))
        engine = stack.enter_context(EmbeddedClickHouse(Path(directory)))
        servers = _broker(stack, partitions)
        click.echo(f"producing {events:,} events …", err=True)
        _fill(servers, events, compression)
        for number in range(rounds):
            for batch_size in batch_sizes:
                for procs in processes:
                    for name in names[:: -1 if number % 2 else 1]:
                        if name == "naive" and procs > 1:
                            continue
                        run = _run(engine, servers, name, batch_size, procs, number, events)
                        click.echo(
                            f"{name:>13} {batch_size:>6} x{procs} "
                            f"{run.events_per_second:>9,.0f}/s {run.cpu_us:6.2f} µs",
                            err=True,
                        )
                        runs.append(run)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    Console(width=None if sys.stdout.isatty() else 130).print(_table(runs, names))


def _broker(stack: ExitStack, partitions: int) -> str:
    reason = available()
    if reason is None:
        kafka = stack.enter_context(ApacheKafka())
        kafka.create_topic(TOPIC, partitions)
        return kafka.bootstrap_servers
    click.echo(f"{reason}: measuring on the embedded mock cluster, with 64 partitions", err=True)
    mock = stack.enter_context(EmbeddedKafka(topics={TOPIC: max(partitions, 64)}))
    return mock.bootstrap_servers


def _fill(bootstrap_servers: str, events: int, compression: str) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "compression.type": compression}
    )
    for line in generate(events, seed=1, until=datetime.now(UTC)):
        while True:
            try:
                producer.produce(TOPIC, line)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise click.ClickException("Kafka did not take all events")


def _run(
    engine: EmbeddedClickHouse,
    servers: str,
    name: str,
    batch_size: int,
    procs: int,
    number: int,
    events: int,
) -> Run:
    title = f"{name}_{batch_size}_{procs}_{number}".replace("-", "_")
    target = ClickHouseSettings(host=engine.host, port=engine.tcp_port, table=title)
    assert engine.pid is not None
    with ClickHouse(target, client_name="bench") as clickhouse:
        clickhouse.execute(schema.create_table(clickhouse.table))
        job = Job(title, servers, clickhouse, engine.host, engine.tcp_port, batch_size, procs)
        try:
            with CONTENDERS[name](job) as clients:
                run = measure(
                    clickhouse,
                    engine.pid,
                    clients,
                    contender=name,
                    batch_size=batch_size,
                    processes=procs,
                    events=events,
                    deadline_seconds=_DEADLINE_SECONDS,
                )
        except BenchError as error:
            raise click.ClickException(str(error)) from error
        clickhouse.execute(f"DROP TABLE {clickhouse.table} SYNC")
        return run


def _table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    baseline = "kafka-engine" if "kafka-engine" in names else names[0]
    table = Table(title=f"median (lowest to highest) of {len(runs)} runs; x is against {baseline}")
    table.add_column("batch", justify="right")
    table.add_column("procs", justify="right")
    table.add_column("contender", no_wrap=True)
    for heading in (
        *("events/s", "x", "client µs", "ClickHouse µs", "events/CPU s x", "peak MiB", "inserts"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for batch_size, procs in dict.fromkeys((run.batch_size, run.processes) for run in runs):
        of_shape = [run for run in runs if (run.batch_size, run.processes) == (batch_size, procs)]
        compared = [run for run in of_shape if run.contender == baseline]
        for name in names:
            mine = [run for run in of_shape if run.contender == name]
            if not mine:
                continue
            rates = [run.events_per_second for run in mine]
            rate, cpu = statistics.median(rates), statistics.median(run.cpu_us for run in mine)
            table.add_row(
                f"{batch_size:,}",
                str(procs),
                name,
                f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
                _ratio(rate, [run.events_per_second for run in compared]),
                f"{statistics.median(run.client_cpu_us for run in mine):.2f}",
                f"{statistics.median(run.clickhouse_cpu_us for run in mine):.2f}",
                _ratio(1 / cpu, [1 / run.cpu_us for run in compared]),
                str(max(run.peak_client_mib for run in mine) or ""),
                f"{statistics.median(run.inserts for run in mine):,.0f}",
            )
    return table


def _ratio(value: float, compared: Sequence[float]) -> str:
    return f"{value / statistics.median(compared):.2f}" if compared else ""


if __name__ == "__main__":
    main()
