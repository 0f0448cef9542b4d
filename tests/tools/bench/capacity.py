"""How large an installation must be for a rate of events, from measured costs.

The manual's page `capacity` has the formulas in words and this module's table.
"""

from dataclasses import dataclass
from math import ceil

import click

from octane_analytics.pipeline.intents import Intent
from octane_analytics.types import LogIdentity, PartitionRange

DAY_SECONDS = 86_400
_IDENTITY = LogIdentity("4L6g3nShT-eMCtK--X86sw", "pCQ2CMdNSqmZZXLupQWfGA", "")
_OFFSET_RECORD_BYTES = 100
"""Key and fixed fields of a record in `__consumer_offsets`."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured on one core of the benchmark machine; see the manual's page `benchmarks`."""

    worker_us: float = 2.1
    """CPU of a worker for an event, at 50,000 events/s."""
    clickhouse_us: float = 2.4
    """CPU of ClickHouse for an event: 1.4 for the insert, 1.0 for the default rollups."""
    disk_bytes: float = 16.4
    """Of an event in a merged part, with rollups."""
    record_bytes: float = 290.0
    """Of an event in Kafka, before compression."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Machines to plan with, and how much of them is used: the rest is for catching up and losses."""

    used: float = 0.5
    processes_per_vm: int = 8
    clickhouse_cores: int = 16
    disk_terabytes: float = 20.0
    """Of a replica, of which seven tenths are used: merges need room."""


@dataclass(frozen=True, slots=True)
class Size:
    rate: int
    processes: int
    vms: int
    partitions: int
    shards: int
    inserts_per_second: float
    rows_per_insert: float
    window_minutes: float
    """How long a shard's table remembers a deduplication token, with a window of 10,000 inserts."""
    metadata_bytes_per_second: float
    disk_terabytes: float
    kafka_megabytes_per_second: float

    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.rate:,}",
            f"{self.partitions:,}",
            f"{self.processes:,} on {self.vms:,}",
            f"{self.shards:,}",
            f"{self.inserts_per_second:.2g} of {self.rows_per_insert:,.0f}",
            f"{self.window_minutes:,.0f} min",
            f"{self.metadata_bytes_per_second / 1e3:,.0f} kB/s",
            f"{self.disk_terabytes:,.1f} TB",
            f"{self.kafka_megabytes_per_second:,.0f} MB/s",
        )


def size(
    rate: int, retention_days: int, costs: Costs | None = None, machine: Machine | None = None
) -> Size:
    """Compute the size for a rate in events per second; inserts are those of one shard."""
    costs, machine = costs or Costs(), machine or Machine()
    processes = max(2, ceil(rate * costs.worker_us / 1e6 / machine.used))
    vms = 1 + ceil(processes / machine.processes_per_vm)  # one may be lost
    partitions = max(8, 1 << (4 * processes - 1).bit_length())
    disk = rate * DAY_SECONDS * retention_days * costs.disk_bytes / 1e12
    shards = max(
        1,
        ceil(disk / (0.7 * machine.disk_terabytes)),
        ceil(rate * costs.clickhouse_us / 1e6 / (machine.used * machine.clickhouse_cores)),
    )
    inserts = max(2.0 * vms, rate / 100_000)
    by_worker = ceil(partitions / processes)
    ranges = tuple(PartitionRange(number, 10**9, 10**9 + 1_000) for number in range(by_worker))
    record = len(Intent("octane.events", _IDENTITY, ranges).metadata()) + _OFFSET_RECORD_BYTES
    return Size(
        rate=rate,
        processes=processes,
        vms=vms,
        partitions=partitions,
        shards=shards,
        inserts_per_second=inserts / shards,
        rows_per_insert=rate / inserts,
        window_minutes=10_000 / (inserts / shards) / 60,
        metadata_bytes_per_second=inserts * by_worker * record,
        disk_terabytes=disk,
        kafka_megabytes_per_second=rate * costs.record_bytes / 1e6,
    )


QUANTITIES = (
    *("events/s", "partitions", "processes on VMs", "shards", "inserts/s and rows", "tokens"),
    *("metadata", "disk", "Kafka"),
)


def markdown(rates: tuple[int, ...], retention_days: int) -> list[str]:
    """Return the table's lines."""
    sizes = [size(rate, retention_days).cells() for rate in rates]
    first, *rest = zip(QUANTITIES, *sizes, strict=True)
    rows = [first, ("---",) * len(first), *rest]
    return [f"| {' | '.join(row)} |" for row in rows]


@click.command()
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.IntRange(1),
    default=(10_000, 1_000_000, 20_000_000),
    show_default=True,
    help="Events a second; may be given several times.",
)
@click.option(
    "--retention",
    type=click.IntRange(1),
    default=90,
    show_default=True,
    help="Days that the table keeps events.",
)
def capacity(rates: tuple[int, ...], retention: int) -> None:
    """Compute partitions, processes, shards and disk for a rate of events.

    Measures nothing: the costs are those of the manual's page benchmarks.
    """
    for line in markdown(rates, retention):
        click.echo(line)
