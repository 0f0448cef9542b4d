"""Content of a topic, the way it is consumed, and the filling of topics.

Events are the generator's, the same for the same number, and are distributed over the partitions in
turn: all partitions fill their batches at the same time, and the cost of a run does not depend on the
random choices of a partitioner.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from math import lcm

import click
from confluent_kafka import Producer

from octane_analytics.sandbox.generator import generate

_FLUSH_SECONDS = 60
_PROPERTIES = b'"properties":{'
_BATCHES_EACH = 2
"""Smallest number of batches per partition: measuring begins with the first insert."""


@dataclass(frozen=True)
class Backlog:
    """Content of a topic."""

    events: int
    partitions: int
    event_bytes: int | None = None
    """Size of an event; None for the generator's, about 290."""

    @property
    def topic(self) -> str:
        return f"octane.bench.{self.partitions}.{self.event_bytes or 'mixed'}.{self.events}"


@dataclass(frozen=True)
class Shape:
    """Settings under which a backlog is consumed."""

    backlog: Backlog
    batch_size: int
    processes: int = 1
    may_grow: bool = False
    """True if a batch may exceed its size under backlog, as by default."""

    def full_events(self, partitions: int) -> int:
        """Return the number of events in full batches; the others wait for FLUSH_INTERVAL."""
        each = self.backlog.events // partitions
        return (each - each % self.batch_size) * partitions


def even_events(shapes: Sequence[Shape]) -> int:
    """Return the fewest events that fill at least two batches in every partition of every shape."""
    rounds = [shape.backlog.partitions * shape.batch_size for shape in shapes]
    whole = lcm(*rounds)
    return -(-_BATCHES_EACH * max(rounds) // whole) * whole


def fill(bootstrap_servers: str, backlog: Backlog, partitions: int, compression: str) -> None:
    """Produce all events to a topic with that many partitions; block until Kafka has them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 20,
            "compression.type": compression,
        }
    )
    for partition, event in zip(cycle(range(partitions)), _events(backlog), strict=False):
        while True:
            try:
                producer.produce(backlog.topic, event, partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(_FLUSH_SECONDS):
        raise click.ClickException("Kafka did not take all events")


def _events(backlog: Backlog) -> Iterator[bytes]:
    events = generate(backlog.events, seed=1, until=datetime.now(UTC))
    if backlog.event_bytes is None:
        return events
    return sized(events, backlog.event_bytes, random.Random(1))


def sized(events: Iterator[bytes], size: int, numbers: random.Random) -> Iterator[bytes]:
    """Return the events with other properties: as many hexadecimal digits as the size requires."""
    for event in events:
        head = event.partition(_PROPERTIES)[0] + _PROPERTIES + b'"fill":"'
        room = max(size - len(head) - len(b'"}}'), 1)
        yield head + b"%0*x" % (room, numbers.getrandbits(4 * room)) + b'"}}'
