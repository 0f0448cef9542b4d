"""Where a benchmark takes place: one ClickHouse, one Kafka, and topics that hold a backlog of events.

Events are the generator's, the same for the same number; each topic is filled once and read many times,
each time by a group of its own.
"""

import random
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from confluent_kafka import Producer

from octane_analytics import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.sections import ClickHouseSettings
from tests.bench.contenders import CONTENDERS, Job
from tests.bench.measure import BenchError, Run, measure
from tests.kafka.apache import ApacheKafka, available

_DEADLINE_SECONDS = 300.0
_MOCK_PARTITIONS = 64
"""The mock cluster keeps 5 MiB of a partition: a backlog needs many of them."""
_PROPERTIES = b'"properties":{'


@dataclass(frozen=True)
class Backlog:
    """A topic's content."""

    events: int
    partitions: int
    event_bytes: int | None = None
    """None: as the generator makes them, about 290."""

    @property
    def topic(self) -> str:
        return f"octane.bench.{self.partitions}.{self.event_bytes or 'mixed'}.{self.events}"


@dataclass(frozen=True)
class Shape:
    """How a backlog is to be worked off."""

    backlog: Backlog
    batch_size: int
    processes: int = 1
    may_grow: bool = False
    """Whether a batch may take more than its size under backlog, as it does by default."""


class Place:
    """A context manager; entering starts the engines and fills the topics, for some tens of seconds."""

    def __init__(self, backlogs: Sequence[Backlog], compression: str = "lz4") -> None:
        self._backlogs = list(dict.fromkeys(backlogs))
        self._compression = compression
        self._stack = ExitStack()
        self.partitions = max(backlog.partitions for backlog in backlogs)
        self.broker = ""
        """What the Kafka is, for a person."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-bench-"))
            self.engine = stack.enter_context(EmbeddedClickHouse(Path(directory)))
            self.bootstrap_servers = self._start_broker(stack)
            for backlog in self._backlogs:
                if backlog.events:
                    click.echo(f"producing {backlog.events:,} events …", err=True)
                    self._fill(backlog)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start_broker(self, stack: ExitStack) -> str:
        reason = available()
        if reason is None:
            kafka = stack.enter_context(ApacheKafka())
            for backlog in self._backlogs:
                kafka.create_topic(backlog.topic, backlog.partitions)
            self.broker = "Apache Kafka"
            return kafka.bootstrap_servers
        self.broker = f"the embedded mock cluster ({reason}), {_MOCK_PARTITIONS} partitions or more"
        click.echo(f"measuring on {self.broker}", err=True)
        topics = {b.topic: max(b.partitions, _MOCK_PARTITIONS) for b in self._backlogs}
        return stack.enter_context(EmbeddedKafka(topics=topics)).bootstrap_servers

    def _fill(self, backlog: Backlog) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "linger.ms": 20,
                "compression.type": self._compression,
            }
        )
        for event in _events(backlog):
            while True:
                try:
                    producer.produce(backlog.topic, event)
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(60):
            raise click.ClickException("Kafka did not take all events")

    def table(self, title: str) -> ClickHouse:
        """A connection whose table is of that name, made and empty."""
        clickhouse = ClickHouse(
            ClickHouseSettings(host=self.engine.host, port=self.engine.tcp_port, table=title),
            client_name="bench",
        )
        clickhouse.execute(schema.create_table(clickhouse.table))
        return clickhouse

    def run(self, contender: str, shape: Shape) -> Run:
        """One contender works off the backlog into a table of its own."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        assert self.engine.pid is not None
        with self.table(name) as clickhouse:
            job = Job(
                name,
                self.bootstrap_servers,
                shape.backlog.topic,
                clickhouse,
                self.engine.host,
                self.engine.tcp_port,
                shape.batch_size,
                shape.processes,
                may_grow=shape.may_grow,
            )
            try:
                with CONTENDERS[contender](job) as clients:
                    run = measure(
                        clickhouse,
                        self.engine.pid,
                        clients,
                        contender=contender,
                        batch_size=shape.batch_size,
                        processes=shape.processes,
                        partitions=shape.backlog.partitions,
                        event_bytes=shape.backlog.event_bytes,
                        events=shape.backlog.events,
                        deadline_seconds=_DEADLINE_SECONDS,
                    )
            except BenchError as error:
                raise click.ClickException(str(error)) from error
            clickhouse.execute(f"DROP TABLE {clickhouse.table} SYNC")
        click.echo(
            f"{contender:>13} {shape.batch_size:>6,} x{shape.processes} "
            f"{run.events_per_second:>9,.0f}/s {run.cpu_us:6.2f} µs",
            err=True,
        )
        return run


def _events(backlog: Backlog) -> Iterator[bytes]:
    events = generate(backlog.events, seed=1, until=datetime.now(UTC))
    if backlog.event_bytes is None:
        return events
    return _sized(events, backlog.event_bytes, random.Random(1))


def _sized(events: Iterator[bytes], size: int, numbers: random.Random) -> Iterator[bytes]:
    """The same events with other properties: hexadecimal digits as are needed for the size."""
    for event in events:
        head = event.partition(_PROPERTIES)[0] + _PROPERTIES + b'"fill":"'
        room = max(size - len(head) - len(b'"}}'), 1)
        yield head + b"%0*x" % (room, numbers.getrandbits(4 * room)) + b'"}}'
