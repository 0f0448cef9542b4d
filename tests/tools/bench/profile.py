"""Distribution of the CPU time of one worker over its stages, measured in this process.

Each call from the loop into an edge is timed by its thread's CPU clock, so that waiting does not count.
The rest of the thread is the loop, the rest of the process librdkafka's threads.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.events.decoders import COMPILED, choose
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.kafka.range_reader import KafkaRangeReader
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.ingest_loop import IngestLoop, IngestOptions
from octane_analytics.runtime.timing import Backoff, SystemClock
from octane_analytics.settings.loading import load
from tests.fakes.observer import FakeObserver
from tests.tools.bench import options
from tests.tools.bench.backlog import Backlog, Shape
from tests.tools.bench.environment import Place
from tests.tools.bench.flame import flame
from tests.tools.bench.measure import cpu_seconds
from tests.tools.bench.report import show

_T = TypeVar("_T")
_DEADLINE_SECONDS = 300.0


class _Spent:
    """CPU seconds of this thread by stage; a nested stage counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = 0.0

    def around(self, stage: str, call: Callable[..., _T]) -> Callable[..., _T]:
        def timed(*arguments: Any, **named: Any) -> _T:
            outer, self._inner, begin = self._inner, 0.0, time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                took = time.thread_time() - begin
                self.seconds[stage] += took - self._inner
                self._inner = outer + took

        return timed


@click.command()
@options.events
@options.partitions
@options.batch_sizes
@options.may_grow
@options.flame_file
def profile(
    events: int,
    partitions: int,
    batch_sizes: Sequence[int],
    may_grow: bool,
    flame_file: Path | None,
) -> None:
    """Measure a worker's CPU time for an event, by stage, or draw it as a flame graph.

    DECODER in the environment chooses the decoder.
    """
    backlog = Backlog(events, partitions)
    shapes = [Shape(backlog, size, may_grow=may_grow) for size in batch_sizes]
    with Place([backlog]) as place:
        told_stages(place, shapes, flame_file)


def told_stages(place: Place, shapes: Sequence[Shape], flame_file: Path | None) -> None:
    """Show the stages of each shape; draw the last one's flame graph if a file is given."""
    for shape in shapes:
        show(stages(place, shape))
    if flame_file is not None:
        flame(place, shapes[-1], flame_file)
        click.echo(f"wrote {flame_file}")


def stages(place: Place, shape: Shape) -> Table:
    """Consume the backlog in this process; return the time of each stage."""
    table, wanted = "bench_profile", shape.backlog.events
    settings = load(
        {
            "KAFKA_BOOTSTRAP_SERVERS": place.bootstrap_servers,
            "KAFKA_TOPIC": shape.backlog.topic,
            "KAFKA_GROUP_ID": f"profile-{time.time_ns()}",
            "KAFKA_INSTANCE_PREFIX": "none",
            "CLICKHOUSE_HOST": place.engine.host,
            "CLICKHOUSE_PORT": str(place.engine.tcp_port),
            "CLICKHOUSE_TABLE": table,
            "DECODER": os.environ.get("DECODER", ""),
        }
    ).settings
    decoder = choose(settings.worker.decoder)
    assert place.engine.pid is not None
    spent, observer = _Spent(), FakeObserver()
    with (
        place.table(table) as admin,
        ClickHouseShards(
            settings.clickhouse, client_name="bench", sorts_rows=decoder.name == COMPILED
        ) as shards,
    ):
        source = KafkaSource(settings.kafka, None)
        for owner, stage, method in (
            (source, "fetch", "poll"),
            (source, "commit", "commit"),
            (source, "commit", "log_identity"),
            (shards.sink(""), "insert", "insert_block"),
        ):
            setattr(owner, method, spent.around(stage, getattr(owner, method)))
        batch = settings.batch
        most = batch.max_rows if shape.may_grow else shape.batch_size
        ingest = IngestLoop(
            source,
            KafkaRangeReader(settings.kafka, client_id="bench"),
            shards,
            KafkaDeadLetters(settings.kafka, client_id="bench"),
            spent.around("decode", decoder.decode),
            SystemClock(),
            observer,
            IngestOptions(
                shape.backlog.topic,
                BatchLimits(shape.batch_size, batch.flush_seconds, most, batch.max_bytes),
                inserts_per_second=batch.inserts_per_second,
            ),
            Backoff(0.2, 10.0),
        )
        deadline = time.monotonic() + _DEADLINE_SECONDS
        begin: tuple[int, float, float, float] | None = None

        def inserted() -> int:
            return observer.rows

        def should_stop() -> bool:
            nonlocal begin
            rows = inserted()
            if begin is None and rows:
                spent.seconds.clear()
                engine = cpu_seconds(place.engine.pid or 0)
                begin = (rows, time.thread_time(), time.process_time(), engine)
            return rows >= wanted or time.monotonic() > deadline

        ingest.run(should_stop, 10.0)
        thread, process = time.thread_time(), time.process_time()
        engine = cpu_seconds(place.engine.pid)
        rows = inserted()
        admin.execute(f"DROP TABLE {admin.table} SYNC")
    if begin is None or rows < wanted:
        raise click.ClickException(f"only {rows:,} of {wanted:,} events in time")
    measured = rows - begin[0]
    own = thread - begin[1]
    found = dict(spent.seconds)
    found["loop"] = own - sum(found.values())
    found["librdkafka's threads"] = process - begin[2] - own
    shown = Table(
        "stage",
        "µs of an event",
        title=f"{measured:,} events, batches of {shape.batch_size:,}, decoder {decoder.name}",
    )
    for stage, seconds in found.items():
        shown.add_row(stage, f"{seconds / measured * 1e6:.2f}")
    shown.add_row("worker in all", f"{(process - begin[2]) / measured * 1e6:.2f}")
    shown.add_row("ClickHouse", f"{(engine - begin[3]) / measured * 1e6:.2f}")
    return shown
