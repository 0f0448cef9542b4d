"""Lag, status and metrics with an open transaction, on Apache Kafka."""

import json
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from octane_analytics.kafka.lag import LagProbe
from octane_analytics.settings.loading import load
from tests.support.command import running, wait_until
from tests.support.operations_fixtures import Site, event, events, site
from tests.support.ports import free_port
from tests.tools.faults.scrapes import scrape

__all__ = ["site"]


@pytest.fixture
def hanging(site: Site) -> Producer:
    """Produce four plain records, five of an open transaction, and two plain ones."""
    site.send(*events(range(4)))
    producer = Producer(
        {
            "bootstrap.servers": site.kafka.bootstrap_servers,
            "transactional.id": site.topic,
            "transaction.timeout.ms": 600_000,
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(5):
        at = int((time.time() - 100) * 1000)
        producer.produce(site.topic, event(number), partition=0, timestamp=at)
    assert producer.flush(20) == 0
    site.send(*events(range(9, 11)))
    return producer


def test_open_transaction_is_shown_everywhere(
    site: Site, hanging: Producer, tmp_path: Path
) -> None:
    port = free_port()
    settings = site.environ | {
        "METRICS_PORT": str(port),
        "CONTROL_SOCKET": str(tmp_path / "control"),
    }
    site.environ["CONTROL_SOCKET"] = settings["CONTROL_SOCKET"]
    with running(tmp_path / "worker.log", "worker", "--procs", "1", settings=settings) as worker:
        wait_until(lambda: site.rows() == 4)
        with LagProbe(load(site.environ).settings.kafka, client_id="tests") as probe:
            wait_until(lambda: probe.measure()[0].committed.offset == 4)
        found = site.json("lag")
        first = found["partitions"][0]
        assert (first["end"], first["stable_end"]) == (11, 4)
        assert (first["messages"], first["held_back"]) == (7, 7)
        assert first["seconds"] == pytest.approx(100, abs=60)
        assert (found["messages"], found["held_back"]) == (7, 7)
        assert "held back by an open transaction in partitions 0" in site.run("lag")

        def shown() -> dict[str, float]:
            return {
                sample.name: sample.value
                for family in text_string_to_metric_families(scrape(port)[0])
                for sample in family.samples
                if sample.labels.get("partition") == "0"
            }

        wait_until(lambda: shown().get("analytics_lag_held_back_messages") == 7)
        wait_until(lambda: shown()["analytics_lag_messages"] == 7)

        def is_in_status() -> bool:
            status = json.loads(site.run("status", "--json"))
            (slot,) = [s for s in status["slots"] if s["is_worker"]]
            return (status["lag"], status["held_back"], slot["lag"]) == (7, 7, 7)

        wait_until(is_in_status)
        assert "7 held back by an open transaction" in site.run("status")

        hanging.abort_transaction(30)
        wait_until(lambda: site.rows() == 6)
        wait_until(lambda: json.loads(site.run("status", "--json"))["lag"] == 0)
        assert site.json("lag")["held_back"] == 0
        worker.child.terminate()
        assert worker.wait() == 0, worker.output


def test_offsets_set_end_skips_no_open_transaction(site: Site, hanging: Producer) -> None:
    site.run("offsets", "set", "--to", "end", "--yes")
    assert site.committed()[0][0] == 4
    hanging.commit_transaction(30)
    site.ingest()
    assert site.rows() == 7


def test_offset_in_open_transaction_is_within_log(site: Site, hanging: Producer) -> None:
    site.commit(0, 6)
    with site.worker() as worker:
        wait_until(lambda: "assignment changed" in worker.output)
        hanging.commit_transaction(30)
        wait_until(lambda: site.rows() == 5)
        worker.child.terminate()
        assert worker.wait() == 0, worker.output
    assert "not committed for this log" not in worker.output
