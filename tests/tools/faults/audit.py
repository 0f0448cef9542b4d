"""Audit of delivery: every record of the log against the rows and the dead-letter messages.

The log decides what had to arrive. A producer that lost its broker does not know what the broker had
written; reading the topic back does.
"""

import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from clickhouse_driver import Client
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from octane_analytics.pipeline.intents import parse_intent
from tests.tools.faults.servers import Servers, ask

_T = TypeVar("_T")

NUMBER = "toInt64OrDefault(JSONExtractString(properties, 'event_id'), toInt64(-1))"

_PARTITION_BITS = 48
_READ_SECONDS = 180.0
_ANSWER_SECONDS = 30.0
_LOST = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_SHOWN = 10


@dataclass(frozen=True)
class Place:
    """Position of a record in the log."""

    number: int
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.number} ({self.partition}@{self.offset})"


class Tally:
    """Occurrences of each number in the log, with their positions."""

    def __init__(self) -> None:
        self.times = bytearray()
        self.places: array[int] = array("q")

    def add(self, number: int, partition: int, offset: int) -> None:
        self.reach(number + 1)
        self.times[number] += 1
        self.places[number] = partition << _PARTITION_BITS | offset

    def reach(self, size: int) -> None:
        if (more := size - len(self.times)) > 0:
            self.times.extend(bytes(more))
            self.places.extend([-1] * more)

    def place(self, number: int) -> Place:
        where = self.places[number] if number < len(self.places) else -1
        if where < 0:
            return Place(number, -1, -1)
        return Place(number, where >> _PARTITION_BITS, where & ((1 << _PARTITION_BITS) - 1))


class ServerCount(NamedTuple):
    """Rows of a server, and distinct events among them."""

    rows: int
    unique: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.unique:,} unique"


@dataclass
class Report:
    """Result of the count. `problems` is empty if the guarantee was kept."""

    produced: int = 0
    """Valid events in the log."""
    count: int = 0
    unique: int = 0
    missing: int = 0
    duplicates: int = 0
    """Rows in excess of one for each event."""
    poison: int = 0
    dead_letters: int = 0
    problems: list[str] = field(default_factory=list)
    by_server: list[list[ServerCount]] = field(default_factory=list)
    """Rows of each server, by shard."""


def synchronised_counts(
    servers: Servers, shards: Iterable[int], table: str
) -> list[list[ServerCount]]:
    """Return the rows of each server by shard; replicas first fetch all that others have."""
    if servers.cluster is not None:
        servers.execute(f"SYSTEM SYNC REPLICA {table}", shards)
    query = f"SELECT count(), uniqExact({NUMBER}) FROM {table}"
    return [
        [
            ServerCount(*(int(str(n)) for n in ask(server, query)[0]))
            for server in servers.shards[number]
        ]
        for number in shards
    ]


def unequal_replicas(counts: Sequence[Sequence[ServerCount]], rows: int) -> Iterator[str]:
    """Yield the shards whose replicas differ; `rows` is the count of all shards."""
    for number, shard in enumerate(counts, start=1):
        if len(set(shard)) > 1:
            yield f"replicas of shard {number} differ: {', '.join(map(str, shard))}"
    found = sum(shard[0].rows for shard in counts)
    if found != rows:
        yield f"{found} rows in the first replicas, {rows} in those that were audited"


def read_log(
    bootstrap_servers: str,
    topic: str,
    tally: Tally | None = None,
    removed: Mapping[int, int] | None = None,
) -> Tally:
    """Read the whole topic, all partitions from the earliest offset, and add it to the tally."""
    tally = tally or Tally()
    for message in _messages(bootstrap_servers, topic, removed):
        tally.add(*_place_of(message))
    return tally


def _place_of(message: Message) -> tuple[int, int, int]:
    key, partition, offset = message.key(), message.partition(), message.offset()
    assert key is not None
    assert partition is not None
    assert offset is not None
    return int(key), partition, offset


def _messages(
    bootstrap_servers: str, topic: str, removed: Mapping[int, int] | None = None
) -> Iterator[Message]:
    """Yield every record. `removed` maps partitions to the offsets before which records were removed."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"audit-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
    )
    try:
        left: dict[int, int] = {}
        starts = []
        for number in _partitions(consumer, topic):
            where = TopicPartition(topic, number)
            low, high = answer_of(lambda where=where: consumer.get_watermark_offsets(where, 20.0))  # type: ignore[misc]
            start = (removed or {}).get(number, 0)
            if low > start:
                raise OverflowError(
                    f"{topic}[{number}] has dropped its first {low} records: there is nothing left "
                    "to count against; produce less"
                )
            # Removed records are there again after kill -9 of the broker; they are counted already.
            if high > start:
                left[number] = high
                starts.append(TopicPartition(topic, number, start))
        consumer.assign(starts)
        deadline = time.monotonic() + _READ_SECONDS
        while left:
            assert time.monotonic() < deadline, f"{topic} could not be read back in time"
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is not None:
                    assert error.code() not in _LOST, error
                    continue  # a broker that has just restarted
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if partition in left:
                    yield message
                    if offset + 1 >= left[partition]:
                        del left[partition]
    finally:
        consumer.close()


def lag(bootstrap_servers: str, group: str, topic: str) -> dict[int, str]:
    """Return problems of the group's commit by partition; empty if nothing is left to do."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    try:
        found = {}
        asked = [TopicPartition(topic, number) for number in _partitions(consumer, topic)]
        for committed in answer_of(lambda: consumer.committed(asked, 20.0)):
            _, high = answer_of(lambda at=committed: consumer.get_watermark_offsets(at, 20.0))  # type: ignore[misc]
            intent = parse_intent(topic, committed.partition, committed.metadata or "")
            is_pending = intent is not None and intent.is_pending
            if max(committed.offset, 0) != high or is_pending:
                found[committed.partition] = (
                    f"committed {committed.offset} of {high} with {committed.metadata!r}"
                )
        return found
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    told = answer_of(lambda: consumer.list_topics(topic, 20.0)).topics[topic]
    assert told.error is None, told.error
    return list(told.partitions)


def answer_of(ask: Callable[[], _T]) -> _T:
    """Read from a broker that may have just restarted and refuse requests for some moments."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Audit:
    """Audit of one topic, its dead-letter topic and one table, over all its shards."""

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        dlq_topic: str,
        ports: Callable[[], Sequence[int]],
        table: str,
    ) -> None:
        """`ports` returns the port of one server of each shard."""
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._dlq_topic = dlq_topic
        self._ports = ports
        self._table = table
        self._earlier = Tally()
        """Numbers that had to arrive from deleted logs."""
        self._optional: set[int] = set()
        """Numbers that may have arrived once: their log was deleted before it had to be read."""
        self._doubtful: set[int] = set()
        self._refusable: set[int] = set()
        """Numbers that the table refused for a while: there, in the dead-letter topic, or in both."""
        self._removed: dict[int, int] = {}
        """Offsets by partition before which the log was trimmed; `_earlier` has those records."""

    def rows(self) -> int:
        """Return the number of events in the table."""
        return sum(self.rows_by_shard())

    def rows_by_shard(self) -> list[int]:
        """Return the number of events in each shard, on a server that runs."""
        counts = self._each_shard(f"SELECT count() FROM {self._table}")
        return [int(rows[0][0]) for rows in counts]

    def keep(self) -> Tally:
        """Require the current content of the log, which is about to be deleted."""
        self._earlier = read_log(self._bootstrap_servers, self._topic, self._earlier, self._removed)
        self._removed = {}
        return self._earlier

    def keep_before(self, ends: Mapping[int, int]) -> list[Place]:
        """Require the records before these offsets, which are about to be removed; return them."""
        found = []
        for message in _messages(self._bootstrap_servers, self._topic, self._removed):
            place = Place(*_place_of(message))
            if place.offset < ends.get(place.partition, 0):
                found.append(place)
                self._earlier.add(place.number, place.partition, place.offset)
        for partition, end in ends.items():  # a batch that is pending again may begin before
            self._removed[partition] = max(end, self._removed.get(partition, 0))
        return found

    def allow_refused(self, numbers: Iterable[int]) -> None:
        """Mark numbers that the table may have refused: each has to be in it, once, or a dead letter."""
        self._refusable.update(numbers)

    def excuse(self, numbers: Iterable[int]) -> None:
        """Mark numbers whose log was deleted. Each may have arrived at most once, or not at all."""
        self._optional.update(numbers)

    def doubt(self, numbers: range) -> None:
        """Numbers that are missing in the log were deleted with the previous one: see `excuse`.

        For some moments after a topic was recreated the broker still takes records into the old log.
        """
        self._doubtful.update(numbers)

    def wait(self, is_poison: bytearray, deadline: float) -> None:
        """Block until every required event arrived, or until the monotonic deadline."""
        expected = self._log()
        events = _events(expected, is_poison)
        for number in self._refusable | self._optional:
            if number < len(events):
                events[number] = 0
        while time.monotonic() < deadline:
            if self.rows() >= sum(events) and not any(
                wanted > found for wanted, found in zip(events, self._found(), strict=False)
            ):
                return
            time.sleep(0.3)

    def report(
        self, is_poison: bytearray, is_acknowledged: bytearray, *, may_repeat: bool
    ) -> Report:
        """Count everything. `may_repeat` is the weaker guarantee: at least once."""
        log = self._log()
        size = len(is_poison)
        log.reach(size)
        events = _events(log, is_poison)
        self._optional.update(number for number in self._doubtful if not log.times[number])
        found = bytearray(self._found())
        found.extend(bytes(max(0, size - len(found))))
        report = Report(produced=sum(events), poison=sum(log.times) - sum(events))
        report.count = self.rows()
        report.unique = self._unique()
        missing: list[int] = []
        repeated: list[int] = []
        strange: list[int] = []
        for number in range(max(len(found), size)):
            wanted = events[number] if number < size else 0
            if number in self._optional or number in self._refusable:
                if found[number] > 1:
                    repeated.append(number)
                continue
            if found[number] < wanted:
                missing.append(number)
            elif found[number] > wanted:
                (repeated if wanted else strange).append(number)
        report.missing = len(missing)
        report.duplicates = sum(found[n] - max(events[n], 1) for n in repeated)
        self._say(report, "missing", missing, log)
        self._say(report, "in the table and not in the log, or no events", strange, log)
        if not may_repeat:
            self._say(report, "more than once", repeated, log)
        lost = [
            number
            for number in range(size)
            if is_acknowledged[number] and not log.times[number] and number not in self._optional
        ]
        self._say(report, "acknowledged and not in the log (the broker's fault)", lost, log)
        self._count_dead_letters(report, log, is_poison, found)
        return report

    def _count_dead_letters(
        self, report: Report, log: Tally, is_poison: bytearray, found: bytearray
    ) -> None:
        dead = read_log(self._bootstrap_servers, self._dlq_topic)
        dead.reach(len(is_poison))
        report.dead_letters = sum(dead.times)
        buried = [
            n
            for n, poison in enumerate(is_poison)
            if poison and log.times[n] and not dead.times[n] and n not in self._optional
        ]
        alive = [
            n
            for n, times in enumerate(dead.times)
            if times and not is_poison[n] and n not in self._refusable
        ]
        refused = self._refusable - self._optional
        nowhere = [n for n in sorted(refused) if log.times[n] and not (found[n] or dead.times[n])]
        self._say(report, "neither in the table nor in the dead-letter topic", nowhere, log)
        self._say(report, "no dead letters of", buried, log)
        self._say(report, "dead letters of valid events", alive, log)

    def _say(self, report: Report, what: str, numbers: list[int], log: Tally) -> None:
        if numbers:
            shown = ", ".join(str(log.place(number)) for number in numbers[:_SHOWN])
            more = ", ..." if len(numbers) > _SHOWN else ""
            report.problems.append(f"{what}: {len(numbers)}: {shown}{more}")

    def _log(self) -> Tally:
        tally = Tally()
        tally.times.extend(self._earlier.times)
        tally.places.extend(self._earlier.places)
        return read_log(self._bootstrap_servers, self._topic, tally, self._removed)

    def _unique(self) -> int:
        """Return ClickHouse's own count of distinct numbers, merged over the shards."""
        if len(self._ports()) == 1:
            ((rows,),) = self._each_shard(f"SELECT uniqExact({NUMBER}) FROM {self._table}")
            return int(rows[0])
        numbers = self._each_shard(f"SELECT DISTINCT {NUMBER} FROM {self._table}")
        return len({number for rows in numbers for (number,) in rows})

    def _found(self) -> bytearray:
        """Number of rows by event number, over all shards, up to 255."""
        counted = self._each_shard(
            f"SELECT {NUMBER} AS number, count() FROM {self._table} GROUP BY number ORDER BY number"
        )
        found = bytearray()
        for rows in counted:
            if not rows:
                continue
            assert rows[0][0] >= 0, "the table has rows that were never produced"
            found.extend(bytes(max(0, rows[-1][0] + 1 - len(found))))
            for number, count in rows:
                found[number] = min(255, found[number] + count)
        return found

    def _each_shard(self, query: str) -> list[list[tuple[int, ...]]]:
        """Return the result of the query on each shard."""
        found = []
        for port in self._ports():
            with Client("127.0.0.1", port, connect_timeout=5, send_receive_timeout=60) as client:
                found.append(client.execute(query))
        return found


def _events(log: Tally, is_poison: bytearray) -> bytearray:
    log.reach(len(is_poison))
    return bytearray(
        0 if poison else times for times, poison in zip(log.times, is_poison, strict=True)
    )


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Block until the condition holds; raise TimeoutError, which names the condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
