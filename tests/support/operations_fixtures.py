"""Topic, group and table of one test on Apache Kafka and real ClickHouse, and the commands."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.decode import decode_all
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.offsets import COORDINATOR_MOVES
from octane_analytics.kafka.topics import TopicInspector
from octane_analytics.pipeline.intents import completed
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from tests.support.command import Running, call, run, running, wait_until
from tests.tools.kafka.apache import ApacheKafka

PARTITIONS = 2
_IN_A_PROCESS = ("check", "replay", "worker")
"""Commands that need their own process: see `call`."""
_COORDINATOR_SECONDS = 30.0


@dataclass
class Site:
    kafka: ApacheKafka
    clickhouse: ClickHouseSink
    directory: Path
    environ: dict[str, str]
    _runs: list[int] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return self.environ["KAFKA_TOPIC"]

    @property
    def group(self) -> str:
        return self.environ["KAFKA_GROUP_ID"]

    def send(self, *values: bytes, partition: int = 0, topic: str | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        for value in values:
            producer.produce(topic or self.topic, value, partition=partition)
        assert producer.flush(20) == 0

    def commit(self, partition: int, offset: int, metadata: str = "") -> None:
        """Block until the commit is accepted: a group's coordinator may still load, or move."""
        consumer = self._consumer()
        where = TopicPartition(self.topic, partition, offset, metadata)
        deadline = time.monotonic() + _COORDINATOR_SECONDS
        try:
            while True:
                try:
                    consumer.commit(offsets=[where], asynchronous=False)
                except KafkaException as error:
                    if (
                        error.args[0].code() not in COORDINATOR_MOVES
                        or time.monotonic() >= deadline
                    ):
                        raise
                    time.sleep(0.2)
                else:
                    return
        finally:
            consumer.close()

    def committed(self) -> dict[int, tuple[int, str]]:
        consumer = self._consumer()
        asked = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        found = consumer.committed(asked, timeout=20)
        consumer.close()
        return {p.partition: (p.offset, p.metadata or "") for p in found}

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": self.group,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )

    def run(self, *arguments: str, code: int = 0, given: str = "", **settings: str) -> str:
        """Return the standard output of the command, or its standard error if that is empty."""
        forks = arguments[0] in _IN_A_PROCESS
        done = (run if forks else call)(*arguments, given=given, settings=self.environ | settings)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout or done.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))

    def worker(self, **settings: str) -> AbstractContextManager[Running]:
        self._runs.append(0)
        log = self.directory / f"worker-{len(self._runs)}.log"
        return running(log, "worker", "--procs", "1", settings=self.environ | settings)

    def ingest(self, **settings: str) -> None:
        """Run a worker until the records of the topic are stored."""
        with self.worker(**settings) as worker:
            self.wait_until_stored()
            worker.child.terminate()
            assert worker.wait() == 0, worker.output

    def store(self, *values: bytes, partition: int = 0) -> None:
        """Send the events, insert their rows and commit their offsets, as a worker does."""
        self.send(*values, partition=partition)
        self.clickhouse.insert_block(decode_all(values).columns, None, None)
        consumer = self._consumer()
        ends = [
            consumer.get_watermark_offsets(TopicPartition(self.topic, number), timeout=20)[1]
            for number in range(PARTITIONS)
        ]
        consumer.close()
        with ConsumerGroupAdmin(load(self.environ).settings.kafka, client_id="tests") as group:
            metadata = completed(self.topic, group.identity(self.topic))
        for number, end in enumerate(ends):
            self.commit(number, end, metadata)

    def wait_until_stored(self) -> None:
        """Block until the group has committed every record; queries Kafka without a child process."""
        with TopicInspector(load(self.environ).settings.kafka, client_id="tests") as view:
            wait_until(lambda: view.lag(self.topic) == 0)

    def rows(self, sql: str = "count()") -> Any:
        return self.clickhouse.select(f"SELECT {sql} FROM {self.clickhouse.table}").rows[0][0]

    def users(self) -> list[str]:
        return list(self.rows("arraySort(groupArray(user_id))"))


_YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
"""Timestamp of all events, constant so that equal events are equal, and recent because of the TTL."""


def event(user: int | str, **properties: object) -> bytes:
    told = {
        "app_id": "openstream",
        "event_name": "video_start",
        "user_id": str(user),
        "timestamp": _YESTERDAY,
        "properties": properties,
    }
    return json.dumps(told).encode()


def events(users: Sequence[int]) -> list[bytes]:
    return [event(user) for user in users]


@pytest.fixture
def site(
    kafka: ApacheKafka, clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> Iterator[Site]:
    name = f"site-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, PARTITIONS)
    kafka.create_topic(f"{name}.dlq", 1)
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": name,
        "KAFKA_GROUP_ID": f"{name}-workers",
        "KAFKA_INSTANCE_PREFIX": "none",
        "KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": "6000",
        "CLICKHOUSE_HOST": clickhouse_settings.host,
        "CLICKHOUSE_PORT": str(clickhouse_settings.port),
        "CLICKHOUSE_DATABASE": clickhouse_settings.database,
        "FLUSH_INTERVAL": "0.2",
        "METRICS_PORT": "0",
        "LOG_FORMAT": "json",
    }
    with ClickHouseSink(clickhouse_settings, client_name="tests") as clickhouse:
        yield Site(kafka, clickhouse, tmp_path, environ)
