"""Lag metrics compared with Apache Kafka: group stopped, catching up, caught up."""

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

LagValues = dict[tuple[str, int], float]
_SECOND = 1.0


def _send(site: Site, partition: int, ages: list[float]) -> float:
    """Send a record for each age in seconds, in this order; return the present time."""
    now = time.time()
    producer = Producer({"bootstrap.servers": site.kafka.bootstrap_servers, "log_level": 0})
    for number, age in enumerate(ages):
        at = int((now - age) * 1000)
        producer.produce(site.topic, event(number), partition=partition, timestamp=at)
    assert producer.flush(20) == 0
    return now


def _expected_messages(site: Site) -> dict[int, int]:
    """Return uncommitted messages by partition, from the broker's end and committed offsets."""
    consumer = Consumer(
        {"bootstrap.servers": site.kafka.bootstrap_servers, "group.id": site.group, "log_level": 0}
    )
    partitions = [TopicPartition(site.topic, number) for number in range(PARTITIONS)]
    messages = {}
    for committed in consumer.committed(partitions, timeout=20):
        _, end = consumer.get_watermark_offsets(committed, timeout=20)
        messages[committed.partition] = end - max(committed.offset, 0)
    consumer.close()
    return messages


@pytest.fixture
def measure_lag(site: Site) -> Callable[[], LagValues]:
    settings = KafkaSettings(
        bootstrap_servers=site.kafka.bootstrap_servers, topic=site.topic, group_id=site.group
    )
    collector = LagCollector(LagProbe(settings, client_id="tests").measure)

    def measure() -> LagValues:
        collector.update()
        return {
            (sample.name, int(sample.labels["partition"])): sample.value
            for family in collector.collect()
            for sample in family.samples
            if "partition" in sample.labels
        }

    return measure


def test_lag_follows_a_group_at_every_commit(
    site: Site, measure_lag: Callable[[], LagValues]
) -> None:
    ages = [600.0 - 10 * number for number in range(40)]
    sent_at = [_send(site, 0, ages), _send(site, 1, ages[:20])]
    # Before each measurement both partitions have advanced, over records 50 seconds apart.
    for done in range(0, 40, 5):
        site.commit(0, done)
        site.commit(1, min(done, 20))
        lag = measure_lag()
        oldest = [ages[done] + time.time() - at for at in sent_at]
        assert {n: lag["analytics_lag_messages", n] for n in range(2)} == _expected_messages(site)
        assert lag["analytics_lag_seconds", 0] == pytest.approx(oldest[0], abs=_SECOND)
        seconds = lag["analytics_lag_seconds", 1]
        assert seconds == (pytest.approx(oldest[1], abs=_SECOND) if done < 20 else 0.0)
    site.commit(0, 40)
    assert set(measure_lag().values()) == {0.0}


def test_lag_of_many_partitions_is_exact_eventually(site: Site) -> None:
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
    assert ages() == [100, 500], "while the group advances, some partitions per measurement"
    wait_until(lambda: ages() == [100])
    probe.close()


def test_lag_of_stopped_worker_grows_and_vanishes(site: Site, tmp_path: Path) -> None:
    port = free_port()
    settings = site.environ | {"METRICS_PORT": str(port)}
    site.send(*events(range(5)))
    with running(tmp_path / "worker.log", "worker", "--procs", "1", settings=settings) as worker:
        wait_until(lambda: site.rows() == 5)
        wait_until(lambda: _scraped_lag(port).get(("analytics_lag_messages", 0)) == 0)
        (consumer,) = [pid for pid in children(worker.child.pid) if "worker-0" in _title(pid)]
        os.kill(consumer, signal.SIGSTOP)
        sent_at = [_send(site, 0, [30.0, 20.0, 10.0]), _send(site, 1, [5.0])]
        wait_until(lambda: _scraped_lag(port).get(("analytics_lag_messages", 1)) == 1)
        wait_until(lambda: ("analytics_lag_seconds", 1) in _scraped_lag(port))
        for _ in range(3):
            lag, now = _scraped_lag(port), time.time()
            assert {n: lag["analytics_lag_messages", n] for n in range(2)} == _expected_messages(
                site
            )
            for number, age in ((0, 30.0), (1, 5.0)):
                seconds = lag["analytics_lag_seconds", number]
                assert seconds == pytest.approx(age + now - sent_at[number], abs=_SECOND)
        os.kill(consumer, signal.SIGCONT)
        wait_until(lambda: site.rows() == 9)
        wait_until(lambda: sum(_expected_messages(site).values()) == 0)
        wait_until(lambda: set(_scraped_lag(port).values()) == {0.0})
        worker.child.terminate()
        assert worker.wait() == 0, worker.output


def _scraped_lag(port: int) -> LagValues:
    return {
        (sample.name, int(sample.labels["partition"])): sample.value
        for family in text_string_to_metric_families(scrape(port)[0])
        if family.name in ("analytics_lag_messages", "analytics_lag_seconds")
        for sample in family.samples
    }


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
