"""What exactly-once costs against at-least-once: the same topic into fresh tables, alternating.

Events are read from a topic that holds them all (a backlog), by the real worker command, each run as a
group of its own. Measured from the first insert to the last, so that starting and joining do not count.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from octane_analytics.settings.sections import ClickHouseSettings
from tests.kafka.apache import ApacheKafka

TOPIC = "octane.events"
DELIVERIES = ("at-least-once", "exactly-once")
_TICKS = os.sysconf("SC_CLK_TCK")
_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    delivery: str
    batch_size: int
    events_per_second: float
    worker_cpu_us: float
    """For each event, all processes of the worker command."""
    clickhouse_cpu_us: float
    peak_worker_mib: int
    parts: int


@click.command()
@click.option("--events", default=500_000, show_default=True, help="Events in the topic.")
@click.option("--partitions", default=8, show_default=True, help="Partitions of the topic.")
@click.option("--procs", default=1, show_default=True, help="Worker processes.")
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
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all runs here.")
def main(
    events: int,
    partitions: int,
    procs: int,
    rounds: int,
    batch_sizes: tuple[int, ...],
    json_file: Path | None,
) -> None:
    """Measures exactly-once against at-least-once on a real Apache Kafka and an embedded ClickHouse."""
    runs: list[Run] = []
    with (
        tempfile.TemporaryDirectory(prefix="octane-bench-") as directory,
        EmbeddedClickHouse(Path(directory)) as clickhouse,
        ApacheKafka() as kafka,
    ):
        kafka.create_topic(TOPIC, partitions)
        click.echo(f"producing {events:,} events …", err=True)
        _fill(kafka.bootstrap_servers, events)
        for number in range(rounds):
            for batch_size in batch_sizes:
                for delivery in DELIVERIES[:: -1 if number % 2 else 1]:
                    name = f"{delivery}_{batch_size}_{number}".replace("-", "_")
                    settings = {
                        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                        "KAFKA_GROUP_ID": name,
                        "CLICKHOUSE_HOST": clickhouse.host,
                        "CLICKHOUSE_PORT": str(clickhouse.tcp_port),
                        "CLICKHOUSE_TABLE": name,
                        "DELIVERY": delivery,
                        "BATCH_SIZE": str(batch_size),
                        "BATCH_MAX_ROWS": str(batch_size),
                        "WORKER_PROCS": str(procs),
                        "METRICS_PORT": "0",
                        "LOG_LEVEL": "warning",
                    }
                    run = _measure(clickhouse, settings, events)
                    click.echo(
                        f"{run.delivery:>13} {run.batch_size:>6} {run.events_per_second:>9,.0f}/s",
                        err=True,
                    )
                    runs.append(run)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(run) for run in runs], indent=1))
    Console(width=None if sys.stdout.isatty() else 120).print(_table(runs, batch_sizes))


def _fill(bootstrap_servers: str, events: int) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "compression.type": "lz4"}
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


def _measure(engine: EmbeddedClickHouse, settings: dict[str, str], events: int) -> Run:
    table = settings["CLICKHOUSE_TABLE"]
    target = ClickHouseSettings(host=engine.host, port=engine.tcp_port, table=table)
    with ClickHouse(target, client_name="bench") as clickhouse:
        clickhouse.execute(schema.create_table(clickhouse.table))
        assert engine.pid is not None
        clickhouse_before = _cpu_seconds(engine.pid)
        with _worker(settings) as pid:
            deadline = time.monotonic() + _DEADLINE_SECONDS
            first_at, first_rows = 0.0, 0
            while (rows := _rows(clickhouse)) < events:
                if time.monotonic() > deadline:
                    raise click.ClickException(f"{table}: only {rows:,} of {events:,} events")
                if rows and not first_rows:
                    first_at, first_rows = time.monotonic(), rows
                time.sleep(0.02)
            seconds = time.monotonic() - first_at
            children = _children(pid)
            cpu = sum(_cpu_seconds(child) for child in children)
            peak = max(_peak_mib(child) for child in children)
        parts = clickhouse.select(
            "SELECT max(max_block_number) FROM system.parts "
            "WHERE database = 'default' AND table = {table:String}",
            {"table": table},
        ).rows[0][0]
        run = Run(
            delivery=settings["DELIVERY"],
            batch_size=int(settings["BATCH_SIZE"]),
            events_per_second=(events - first_rows) / seconds,
            worker_cpu_us=cpu / events * 1e6,
            clickhouse_cpu_us=(_cpu_seconds(engine.pid) - clickhouse_before) / events * 1e6,
            peak_worker_mib=peak,
            parts=parts,
        )
        clickhouse.execute(f"DROP TABLE {clickhouse.table} SYNC")
        return run


@contextmanager
def _worker(settings: dict[str, str]) -> Iterator[int]:
    command = str(Path(sys.executable).with_name("octane-analytics"))
    with subprocess.Popen([command, "worker"], env=os.environ | settings) as worker:
        try:
            yield worker.pid
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()


def _rows(clickhouse: ClickHouse) -> int:
    return int(clickhouse.select(f"SELECT count() FROM {clickhouse.table}").rows[0][0])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_seconds(pid: int) -> float:
    """User and system time of the process, from proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def _table(runs: list[Run], batch_sizes: tuple[int, ...]) -> Table:
    table = Table(title="median (lowest to highest)")
    table.add_column("BATCH_SIZE", justify="right")
    table.add_column("DELIVERY")
    for heading in ("events/s", "worker µs", "ClickHouse µs", "peak MiB", "inserts", "ratio"):
        table.add_column(heading, justify="right")
    for batch_size in batch_sizes:
        baseline = None
        for delivery in DELIVERIES:
            mine = [r for r in runs if (r.batch_size, r.delivery) == (batch_size, delivery)]
            rates = [run.events_per_second for run in mine]
            middle = statistics.median(rates)
            baseline = baseline or middle
            table.add_row(
                f"{batch_size:,}",
                delivery,
                f"{middle:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
                f"{statistics.median(r.worker_cpu_us for r in mine):.2f}",
                f"{statistics.median(r.clickhouse_cpu_us for r in mine):.2f}",
                str(max(r.peak_worker_mib for r in mine)),
                f"{statistics.median(r.parts for r in mine):,.0f}",
                f"{middle / baseline:.2f}",
            )
    return table


if __name__ == "__main__":
    main()
