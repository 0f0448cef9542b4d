"""In-memory broker, table and workers, run by iterations."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from octane_analytics.errors import Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.interfaces import Shards
from octane_analytics.pipeline.batch import BatchLimits
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.pipeline.ingest_loop import IngestLoop, IngestOptions
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import (
    Commit,
    LogIdentity,
    PartitionRange,
    TopicPartition,
)
from tests.fakes.clickhouse import FakeClickHouse, FakeSink, one_shard
from tests.fakes.clock import FakeClock
from tests.fakes.dead_letters import FakeDeadLetters
from tests.fakes.group_member import FakeMember, FakeRangeReader
from tests.fakes.kafka import TOPIC, FakeBroker, FakeSource
from tests.fakes.observer import FakeObserver

P0 = TopicPartition(TOPIC, 0)
P1 = TopicPartition(TOPIC, 1)
LOG = LogIdentity("cluster", "topic-1", "")
DOWN = Unavailable("down")
NEVER = 1e9

both_deliveries = pytest.mark.parametrize("delivery", list(Delivery))


def event(name: str, **fields: object) -> bytes:
    return json.dumps(
        {
            "app_id": "openstream",
            "event_name": "play",
            "user_id": name,
            "timestamp": "2026-02-02T12:00:00Z",
        }
        | fields
    ).encode()


def names(first: int, end: int, prefix: str = "e") -> list[str]:
    return [f"{prefix}{number}" for number in range(first, end)]


def batch(*ranges: tuple[int, int, int], log: LogIdentity = LOG) -> Intent:
    """Return the intent of a batch over ranges given as partition, first and end."""
    return Intent(TOPIC, log, tuple(PartitionRange(*item) for item in ranges))


def intent(first: int, end: int, partition: int = 0, log: LogIdentity = LOG) -> str:
    """Return the metadata of a batch of one partition; an empty range means nothing pending."""
    if first == end:
        return completed(TOPIC, log)
    return batch((partition, first, end), log=log).metadata()


def token_of(first: int, end: int, partition: int = 0, log: LogIdentity = LOG) -> str:
    return batch((partition, first, end), log=log).token()


@dataclass
class Worker:
    source: FakeSource
    reader: FakeRangeReader
    observer: FakeObserver
    ingest: IngestLoop

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.ingest.run_once()


class Rig:
    """Broker, table and workers. By default no batch becomes due."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        delivery: Delivery = Delivery.EXACTLY_ONCE,
        size: int = 10_000,
        flush_seconds: float = NEVER,
        max_rows: int = 100_000,
        max_bytes: int = 1 << 30,
        idle_seconds: float = 1.0,
        inserts_per_second: float = 0.0,
        session_seconds: float = 10.0,
        quiet_poll_seconds: float = 0.1,
    ) -> None:
        self.clock = FakeClock()
        self.broker = FakeBroker(self.clock, partitions)
        self.table = FakeClickHouse(self.clock, self.broker.journal)
        self.options = IngestOptions(
            TOPIC,
            BatchLimits(size, flush_seconds, max_rows, max_bytes),
            delivery,
            inserts_per_second=inserts_per_second,
            idle_seconds=idle_seconds,
            session_seconds=session_seconds,
            quiet_poll_seconds=quiet_poll_seconds,
        )

    def worker(
        self, *, fetch_records: int = 100_000, shards: Shards | None = None, epoch: str = ""
    ) -> Worker:
        source = FakeSource(self.broker, fetch_records=fetch_records, epoch=epoch)
        observer, reader = FakeObserver(), FakeRangeReader(self.broker)
        ingest = IngestLoop(
            FakeMember(source),
            reader,
            one_shard(FakeSink(self.table)) if shards is None else shards,
            FakeDeadLetters(self.broker),
            decode_all,
            self.clock,
            observer,
            self.options,
            Backoff(0.2, 10.0, random.Random(0)),
        )
        source.subscribe(ingest)
        return Worker(source, reader, observer, ingest)

    def produce(self, first: int, end: int, partition: int = 0, prefix: str = "e") -> None:
        self.broker.append(partition, *(event(name) for name in names(first, end, prefix)))

    def journal(self, *kinds: str) -> list[object]:
        return [entry.detail for entry in self.broker.journal if entry.what in kinds]

    def commits(self) -> list[object]:
        """Return the commits but the first one of each assignment, which moves nothing."""
        return [commit for commit in self.journal("commit") if commit not in self._first_commits()]

    def _first_commits(self) -> list[object]:
        return [Commit(where, 0, intent(0, 0)) for where in self.broker.logs]

    def inserts(self) -> list[object]:
        return self.journal("insert")

    def settle(self, *workers: Worker, turns: int = 400) -> None:
        """Run the loops until everything is delivered and committed."""
        for _ in range(turns):
            if self.broker.is_settled():
                return
            for worker in workers:
                worker.turn()
            self.clock.sleep(0.5)
        raise AssertionError(f"not settled: lag {self.broker.lag()}, {self.broker.committed}")


def once(*lists: Sequence[str]) -> Counter[str]:
    return Counter(name for names in lists for name in names)
