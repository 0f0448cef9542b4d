"""Lag as it is shown, against what Apache Kafka itself says: group stopped, catching up, done."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from octane_analytics.kafka.lag import LagProbe
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.telemetry.lag_metrics import LagCollector
from tests.support.command import running, wait_until
from tests.support.operations_fixtures import PARTITIONS, Site, event, events, site
from tests.support.ports import free_port
from tests.tools.bench.measure import children
from tests.tools.faults.scrapes import scrape

__all__ = ["site"]

Shown = dict[tuple[str, int], float]
_SECOND = 1.0


def _send(site: Site, partition: int, ages: list[float]) -> float:
    """Records that are so many seconds old, the first of them first; answers the present."""
    now = time.time()
    producer = Producer({"bootstrap.servers": site.kafka.bootstrap_servers, "log_level": 0})
    for number, age in enumerate(ages):
        at = int((now - age) * 1000)
        producer.produce(site.topic, event(number), partition=partition, timestamp=at)
    assert producer.flush(20) == 0
    return now


def _behind(site: Site) -> dict[int, int]:
    """Messages, by the broker's word: where partitions end less what is committed."""
    consumer = Consumer(
        {"bootstrap.servers": site.kafka.bootstrap_servers, "group.id": site.group, "log_level": 0}
    )
    asked = [TopicPartition(site.topic, number) for number in range(PARTITIONS)]
    found = {}
    for committed in consumer.committed(asked, timeout=20):
        _, end = consumer.get_watermark_offsets(committed, timeout=20)
        found[committed.partition] = end - max(committed.offset, 0)
    consumer.close()
    return found


@pytest.fixture
def looked(site: Site) -> Callable[[], Shown]:
    settings = KafkaSettings(
        bootstrap_servers=site.kafka.bootstrap_servers, topic=site.topic, group_id=site.group
    )
    watch = LagCollector(LagProbe(settings, client_id="tests").measure)

    def look() -> Shown:
        watch.update()
        return {
            (sample.name, int(sample.labels["partition"])): sample.value
            for family in watch.collect()
            for sample in family.samples
            if "partition" in sample.labels
        }

    return look


def test_lag_follows_a_group_at_every_step(site: Site, looked: Callable[[], Shown]) -> None:
    ages = [600.0 - 10 * number for number in range(40)]
    sent_at = [_send(site, 0, ages), _send(site, 1, ages[:20])]
    # Each look finds both partitions moved on, and records in between that are 50 seconds apart.
    for done in range(0, 40, 5):
        site.commit(0, done)
        site.commit(1, min(done, 20))
        shown = looked()
        oldest = [ages[done] + time.time() - at for at in sent_at]
        assert {n: shown["analytics_lag_messages", n] for n in range(2)} == _behind(site)
        assert shown["analytics_lag_seconds", 0] == pytest.approx(oldest[0], abs=_SECOND)
        told = shown["analytics_lag_seconds", 1]
        assert told == (pytest.approx(oldest[1], abs=_SECOND) if done < 20 else 0.0)
    site.commit(0, 40)
    assert set(looked().values()) == {0.0}


def test_many_partitions_are_all_right_once_the_group_stands(site: Site) -> None:
    topic, partitions = f"{site.topic}-wide", 40
    site.kafka.create_topic(topic, partitions)
    sent_at = time.time()
    producer = Producer({"bootstrap.servers": site.kafka.bootstrap_servers, "log_level": 0})
    for number in range(partitions):
        for age in (500.0, 100.0):
            at = int((sent_at - age) * 1000)
            producer.produce(topic, event(number), partition=number, timestamp=at)
    assert producer.flush(20) == 0
    settings = KafkaSettings(
        bootstrap_servers=site.kafka.bootstrap_servers, topic=topic, group_id=site.group
    )
    probe = LagProbe(settings, client_id="tests")

    def ages() -> list[float]:
        return sorted({round(sent_at - (lag.oldest_at or 0)) for lag in probe.measure().values()})

    wait_until(lambda: ages() == [500])
    consumer = Consumer(
        {"bootstrap.servers": site.kafka.bootstrap_servers, "group.id": site.group, "log_level": 0}
    )
    consumer.commit(
        offsets=[TopicPartition(topic, number, 1) for number in range(partitions)],
        asynchronous=False,
    )
    consumer.close()
    assert ages() == [100, 500], "while it moves on, some of them a look"
    wait_until(lambda: ages() == [100])
    probe.close()


def test_lag_of_a_worker_that_is_stopped_and_catches_up(site: Site, tmp_path: Path) -> None:
    port = free_port()
    settings = site.environ | {"METRICS_PORT": str(port)}
    site.send(*events(range(5)))
    with running(tmp_path / "worker.log", "worker", "--procs", "1", settings=settings) as worker:
        wait_until(lambda: site.rows() == 5)
        wait_until(lambda: _shown(port).get(("analytics_lag_messages", 0)) == 0)
        (consumer,) = [pid for pid in children(worker.child.pid) if "worker-0" in _title(pid)]
        os.kill(consumer, signal.SIGSTOP)
        sent_at = [_send(site, 0, [30.0, 20.0, 10.0]), _send(site, 1, [5.0])]
        wait_until(lambda: _shown(port).get(("analytics_lag_messages", 1)) == 1)
        wait_until(lambda: ("analytics_lag_seconds", 1) in _shown(port))
        for _ in range(3):
            shown, now = _shown(port), time.time()
            assert {n: shown["analytics_lag_messages", n] for n in range(2)} == _behind(site)
            for number, age in ((0, 30.0), (1, 5.0)):
                seconds = shown["analytics_lag_seconds", number]
                assert seconds == pytest.approx(age + now - sent_at[number], abs=_SECOND)
        os.kill(consumer, signal.SIGCONT)
        wait_until(lambda: site.rows() == 9)
        wait_until(lambda: sum(_behind(site).values()) == 0)
        wait_until(lambda: set(_shown(port).values()) == {0.0})
        worker.child.terminate()
        assert worker.wait() == 0, worker.output


def _shown(port: int) -> Shown:
    return {
        (sample.name, int(sample.labels["partition"])): sample.value
        for family in text_string_to_metric_families(scrape(port)[0])
        if family.name in ("analytics_lag_messages", "analytics_lag_seconds")
        for sample in family.samples
    }


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
