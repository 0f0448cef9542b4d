"""A topic on Apache Kafka, a table in a real ClickHouse, and the installed command over both.

For tests of `replay`, short and long: produces events with many identical ones among them, has workers
insert them, loses rows, and compares the table with the log as multisets.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import DecodeError, StatementRejected
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.pipeline.intents import completed
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.types import LogIdentity
from tests.support.command import COMMAND, environment, run, running, wait_until
from tests.support.rollup_states import assert_equal_to_rows
from tests.tools.kafka.apache import ApacheKafka

_APPS = ("openstream", "octane-live", "kidsplay")
Multiset = Counter[tuple[object, ...]]


def pool(size: int, seed: int, *, now: datetime | None = None) -> list[bytes]:
    """Return distinct events of the last hours, to draw from with repetition."""
    chance = random.Random(seed)
    now = now or datetime.now(UTC)
    events = []
    for number in range(size):
        at = now - timedelta(seconds=chance.random() * 6 * 3600)
        events.append(
            json.dumps(
                {
                    "app_id": chance.choice(_APPS),
                    "event_name": "video_heartbeat",
                    "user_id": f"user_{number % 997}",
                    "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
                    "properties": {"n": number, "content": "é" * (number % 5), "q": "it's \\ \" '"},
                },
                ensure_ascii=bool(number % 2),
            ).encode()
        )
    return events


class Scene:
    """One topic, group and table with all rollups; created on entry, removed on exit.

    Without an exception, every rollup must equal the rows at the exit.
    """

    def __init__(
        self, kafka: ApacheKafka, engine: EmbeddedClickHouse, directory: Path, partitions: int = 4
    ) -> None:
        self.kafka = kafka
        self.name = f"replay_{uuid.uuid4().hex[:8]}"
        self.topic = f"{self.name}.events"
        self.partitions = partitions
        self.directory = directory
        address: dict[str, Any] = {"host": engine.host, "port": engine.tcp_port}
        self._root = ClickHouseSink(ClickHouseSettings(**address), client_name="tests")
        self._settings = ClickHouseSettings(database=self.name, **address)
        self.clickhouse = ClickHouseSink(self._settings, client_name="tests")
        self.settings = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": f"{self.name}-workers",
            "CLICKHOUSE_HOST": engine.host,
            "CLICKHOUSE_PORT": str(engine.tcp_port),
            "CLICKHOUSE_DATABASE": self.name,
            "METRICS_PORT": "0",
            "FLUSH_INTERVAL": "0.5",
            "BATCH_SIZE": "2000",
            "LOG_FORMAT": "json",
        }

    def __enter__(self) -> Self:
        self.kafka.create_topic(self.topic, self.partitions)
        self.kafka.create_topic(f"{self.topic}.dlq", 1)
        self._root.execute(f"CREATE DATABASE {self.name}")
        self.clickhouse.execute(schema.create_table(self.clickhouse.table))
        for rollup in rollups.ROLLUPS:
            self.clickhouse.execute(rollups.add(self.clickhouse.table, rollup))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                assert_equal_to_rows(self.clickhouse)
        finally:
            self._remove()

    def _remove(self) -> None:
        self.clickhouse.close()
        self._root.execute(f"DROP DATABASE {self.name}")
        self._root.close()

    def produce(
        self,
        values: Sequence[bytes],
        partition: int | None = None,
        rate: float | None = None,
        at: float | None = None,
    ) -> None:
        """Produce to all partitions in turn, or to one; `at` is the Kafka timestamp in epoch seconds."""
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "linger.ms": 20,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        started = time.monotonic()
        for number, value in enumerate(values):
            while True:
                try:
                    where = number % self.partitions if partition is None else partition
                    producer.produce(
                        self.topic, value, partition=where, timestamp=int((at or 0) * 1000)
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            if rate is not None and number % 50 == 0:
                producer.poll(max(0.0, number / rate - (time.monotonic() - started)))
                ahead = number / rate - (time.monotonic() - started)
                if ahead > 0:
                    time.sleep(ahead)
        assert producer.flush(30) == 0

    @contextmanager
    def producing(self, values: Sequence[bytes], rate: float) -> Iterator[threading.Thread]:
        """Produce at a rate during the block."""
        thread = threading.Thread(target=self.produce, args=(values, None, rate))
        thread.start()
        try:
            yield thread
        finally:
            thread.join()

    @contextmanager
    def working(self, procs: int = 2) -> Iterator[None]:
        """Run workers during the block, and drain them at its end."""
        log = self.directory / f"{self.name}-{uuid.uuid4().hex[:4]}.log"
        with running(log, "worker", "--procs", str(procs), settings=self.settings) as worker:
            yield
            worker.child.terminate()
            assert worker.wait(60) == 0, worker.output

    def ingest(self, procs: int = 2) -> float:
        """Insert all records of the topic; return the seconds from the first row to the last."""
        started = 0.0
        expected = self.rows() + self.lag()
        with self.working(procs):
            before = self.rows()
            wait_until(lambda: self.rows() > before or self.lag() == 0, 60)
            started = time.monotonic()
            wait_until(lambda: self.lag() == 0, 120)
            took = time.monotonic() - started
        assert self.rows() <= expected
        return took

    def store(self, ends: Mapping[int, int] | None = None) -> None:
        """Insert all rows and commit the offsets (up to these ends), as workers do."""
        found = self.log({p: (0, end) for p, end in ends.items()} if ends is not None else None)
        rows = list(found.elements())
        if rows:
            self.clickhouse.insert_block(list(zip(*rows, strict=True)), None, None)
        self.commit(ends, completed(self.topic, self.identity()))

    def identity(self) -> LogIdentity:
        settings = KafkaSettings(
            bootstrap_servers=self.kafka.bootstrap_servers,
            topic=self.topic,
            group_id=self.settings["KAFKA_GROUP_ID"],
        )
        with ConsumerGroupAdmin(settings, client_id="tests") as group:
            return group.identity(self.topic)

    def commit(self, ends: Mapping[int, int] | None = None, metadata: str = "") -> None:
        """Commit these offsets, or the end of every partition, for the workers' group."""
        consumer = self._consumer(self.settings["KAFKA_GROUP_ID"])
        try:
            raw = []
            for p in range(self.partitions):
                where = RawPartition(self.topic, p)
                end = consumer.get_watermark_offsets(where, timeout=20)[1]
                if ends is None or p in ends:
                    at = end if ends is None else ends[p]
                    raw.append(RawPartition(self.topic, p, at, metadata))
            _retry(lambda: consumer.commit(offsets=raw, asynchronous=False))
        finally:
            consumer.close()

    def trim(self, ends: Mapping[int, int]) -> None:
        """Remove the records before these offsets, as retention does."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        asked = [RawPartition(self.topic, p, end) for p, end in ends.items()]
        for done in admin.delete_records(asked).values():
            done.result(20)

    def lag(self) -> int:
        consumer = self._consumer(self.settings["KAFKA_GROUP_ID"])
        try:
            total = 0
            raw = [RawPartition(self.topic, p) for p in range(self.partitions)]
            for item in _retry(lambda: consumer.committed(raw, timeout=20)):
                _, high = consumer.get_watermark_offsets(item, timeout=20)
                total += high - max(item.offset, 0)
            return total
        finally:
            consumer.close()

    def rows(self) -> int:
        return int(
            self.clickhouse.select(f"SELECT count() FROM {self.clickhouse.table}").rows[0][0]
        )

    @contextmanager
    def connection(self) -> Iterator[ClickHouseSink]:
        """Return another client, for another thread."""
        with ClickHouseSink(self._settings, client_name="tests") as clickhouse:
            yield clickhouse

    def months(self, clickhouse: ClickHouseSink) -> dict[int, int]:
        """Return the number of rows by month."""
        found = clickhouse.select(
            f"SELECT toYYYYMM(timestamp), count() FROM {clickhouse.table} GROUP BY 1"
        )
        return dict(found.rows)

    def lose(self, share: float = 1 / 3) -> int:
        """Remove that share of the rows at random, one by one; return their number."""
        before = self.rows()
        threshold = int(share * 2**32)
        self.clickhouse.select(
            f"ALTER TABLE {self.clickhouse.table} DELETE WHERE rand() < {threshold}",
            settings={"allow_nondeterministic_mutations": 1, "mutations_sync": 1},
        )
        return before - self.rows()

    def log(self, spans: Mapping[int, tuple[int, int]] | None = None) -> Multiset:
        """Return every valid event of the topic, or of these offsets, as rows."""
        found: Multiset = Counter()
        consumer = self._consumer(f"audit-{uuid.uuid4().hex}")
        try:
            left = {}
            for p in range(self.partitions):
                low, high = consumer.get_watermark_offsets(RawPartition(self.topic, p), timeout=20)
                if low < high:
                    left[p] = high
            consumer.assign([RawPartition(self.topic, p, OFFSET_BEGINNING) for p in left])
            deadline = time.monotonic() + 60
            while left:
                assert time.monotonic() < deadline, "the topic could not be read back in time"
                for message in consumer.consume(10_000, 0.2):
                    assert message.error() is None, message.error()
                    at, offset = message.partition(), message.offset()
                    assert at is not None
                    assert offset is not None
                    if at not in left:
                        continue
                    if spans is None or (at in spans and spans[at][0] <= offset < spans[at][1]):
                        row = _decoded(message.value())
                        if row is not None:
                            found[row] += 1
                    if offset + 1 >= left[at]:
                        del left[at]
        finally:
            consumer.close()
        return found

    def table(self, name: str | None = None) -> Multiset:
        rows = self.clickhouse.select(
            "SELECT toUInt32(timestamp), app_id, event_name, user_id, properties, count() "
            f"FROM {name or self.clickhouse.table} GROUP BY 1, 2, 3, 4, 5"
        ).rows
        return Counter({tuple(row[:5]): row[5] for row in rows})

    def replay(self, *arguments: str, code: int | None = 0) -> dict[str, Any]:
        """Run it to its end; return its report. A `code` of None accepts any with a report."""
        done = run(
            "replay", "--yes", "--json", *arguments, settings=self.settings, timeout_seconds=300
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a replay in the background, in a new session."""
        return subprocess.Popen(
            [COMMAND, "replay", "--yes", "--json", *arguments],
            env=environment(self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def left_behind(self) -> list[str]:
        found = self.clickhouse.select(
            "SELECT name FROM system.tables WHERE database = {database:String} "
            "AND startsWith(name, 'octane_replay_') ORDER BY name",
            {"database": self.name},
        )
        return [name for (name,) in found.rows]

    def unfinished(self) -> str | None:
        """Return the id of a replay that can be resumed."""
        ids = {
            name.removeprefix("octane_replay_").rpartition("_")[0] for name in self.left_behind()
        }
        assert len(ids) <= 1, ids
        return next(iter(ids), None)

    def has_begun(self, process: "subprocess.Popen[bytes]") -> bool:
        """Return whether the journal has a plan, and the process as an owner."""
        replay_id = self.unfinished()
        if replay_id is None:
            return False
        journal = f"{self.name}.octane_replay_{replay_id}_journal"
        try:
            notes = self.clickhouse.select(f"SELECT kind, body FROM {journal}").rows
        except StatementRejected:
            return False  # it is being created, or already dropped
        is_planned = any(kind == "plan" for kind, _ in notes)
        return is_planned and any(
            kind == "owner" and json.loads(body)["pid"] == process.pid for kind, body in notes
        )

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "log_level": 0,
            }
        )


def _retry(call: Callable[[], Any]) -> Any:
    """Repeat a call for ten seconds: a group's first coordinator needs a moment to be ready."""
    for _ in range(50):
        with contextlib.suppress(KafkaException):
            return call()
        time.sleep(0.2)
    return call()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to the command; its children die with it."""
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def _decoded(value: bytes | None) -> tuple[object, ...] | None:
    try:
        row: Row = decode(value)
    except DecodeError:
        return None
    return (*row[:4], row.properties.decode())
