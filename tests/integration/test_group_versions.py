"""Workers of two protocol versions in one group, on Apache Kafka: the newer one stays out of it, or says
that an older one has joined."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.settings.loading import load
from tests.support.command import Running, wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]

ADVICE = "stop `octane-analytics worker` of that version"


@contextmanager
def older_member(site: Site, instance_id: str | None = None) -> Iterator[Consumer]:
    """Join the group as version 1 does; a static member stays in it when this ends."""
    static = {} if instance_id is None else {"group.instance.id": instance_id}
    consumer = Consumer(
        {
            "bootstrap.servers": site.kafka.bootstrap_servers,
            "group.id": site.group,
            "client.id": "octane-analytics-0",
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "log_level": 0,
            **static,
        }
    )
    consumer.subscribe([site.topic])
    try:
        yield consumer
    finally:
        consumer.close()


def wait_until_joined(site: Site, consumer: Consumer) -> None:
    with ConsumerGroupAdmin(load(site.environ).settings.kafka, client_id="tests") as group:

        def has_joined() -> bool:
            consumer.poll(0.1)
            return any(m.client_id == "octane-analytics-0" for m in group.state().members)

        wait_until(has_joined)


def end(worker: Running) -> None:
    worker.child.terminate()
    assert worker.wait() == 0, worker.output


def test_worker_refuses_group_of_older_version(site: Site) -> None:
    with older_member(site) as older:
        wait_until_joined(site, older)
        refusal = site.run("worker", "--procs", "1", code=78)
        assert ADVICE in refusal
        assert "octane-analytics-0@127.0.0.1" in refusal
        (line,) = [each for each in refusal.splitlines() if ADVICE in each]
        assert line.startswith("octane-analytics: error: group")
        found = site.json("check", code=78)
        (finding,) = [c for c in found["checks"] if c["subject"] == "group"]
        assert finding["level"] == "FAIL"
        assert ADVICE in finding["message"]
    site.send(*events(range(3)))
    site.ingest()
    assert site.rows() == 3


def test_worker_waits_for_ended_static_member(site: Site) -> None:
    with older_member(site, "host-0") as older:
        wait_until_joined(site, older)
    site.send(*events(range(3)))
    with site.worker() as worker:
        wait_until(lambda: "waiting for members of another version" in worker.output)
        wait_until(lambda: site.rows() == 3)
        end(worker)


def test_running_worker_reports_older_one_that_joins(site: Site) -> None:
    site.send(*events(range(3)))
    with site.worker() as worker:
        wait_until(lambda: site.rows() == 3)
        with older_member(site) as older:
            wait_until_joined(site, older)
            wait_until(lambda: older.poll(0.1) is None and ADVICE in worker.output)
        end(worker)
