"""Workers of two protocol versions or two tables in one group, on Apache Kafka: the later one stays out
of it, or the running one reports that another has joined."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.kafka.client_ids import worker_client_id
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.settings.loading import load
from octane_analytics.worker.table_mark import read_table_mark
from tests.support.command import Running, wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]

ADVICE = "stop `octane-analytics worker` of that version"
OTHER_TABLE = "members that insert into another table"
VERSION_1 = "octane-analytics-0"


@contextmanager
def joining(site: Site, client_id: str, instance_id: str | None = None) -> Iterator[Consumer]:
    """Join the group as another service does; a static member stays in it when this ends."""
    static = {} if instance_id is None else {"group.instance.id": instance_id}
    consumer = Consumer(
        {
            "bootstrap.servers": site.kafka.bootstrap_servers,
            "group.id": site.group,
            "client.id": client_id,
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


def wait_until_joined(site: Site, consumer: Consumer, client_id: str = VERSION_1) -> None:
    with ConsumerGroupAdmin(load(site.environ).settings.kafka, client_id="tests") as group:

        def has_joined() -> bool:
            consumer.poll(0.1)
            # With its partitions: a close beside a rebalance that is not served may never return.
            is_member = any(m.client_id == client_id for m in group.state().members)
            return is_member and bool(consumer.assignment())

        wait_until(has_joined)


def end(worker: Running) -> None:
    worker.child.terminate()
    assert worker.wait() == 0, worker.output


def test_worker_refuses_group_of_older_version(site: Site) -> None:
    with joining(site, VERSION_1) as older:
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
    with joining(site, VERSION_1, "host-0") as older:
        wait_until_joined(site, older)
    site.send(*events(range(3)))
    with site.worker() as worker:
        wait_until(lambda: "waiting for members of another version" in worker.output)
        wait_until(lambda: site.rows() == 3)
        end(worker)


@contextmanager
def other_table(site: Site) -> Iterator[dict[str, str]]:
    """Yield the settings of another table of the same server."""
    database = f"{site.environ['CLICKHOUSE_DATABASE']}_other"
    table = TableName(database, site.clickhouse.table.table)
    site.clickhouse.execute(f"CREATE DATABASE {database}")
    site.clickhouse.execute(schema.create_table(table))
    yield {"CLICKHOUSE_DATABASE": database}
    site.clickhouse.execute(f"DROP DATABASE {database}")


def test_worker_refuses_group_of_another_table(site: Site) -> None:
    site.send(*events(range(3)))
    with other_table(site) as other:
        with site.worker() as worker:
            wait_until(lambda: site.rows() == 3)
            refusal = site.run("worker", "--procs", "1", code=78, **other)
            site.environ |= other
            found = site.json("check", code=78)
            end(worker)
        (line,) = [each for each in refusal.splitlines() if OTHER_TABLE in each]
        assert line.startswith(f"octane-analytics: error: group {site.group}")
        (finding,) = [c for c in found["checks"] if c["subject"] == "group"]
        assert finding["level"] == "FAIL"
        assert OTHER_TABLE in finding["message"]
        assert site.clickhouse.select(
            f"SELECT count() FROM {other['CLICKHOUSE_DATABASE']}.{site.clickhouse.table.table}"
        ).rows == [(0,)]


def test_running_worker_reports_another_table_that_joins(site: Site) -> None:
    site.send(*events(range(3)))
    own = read_table_mark(load(site.environ).settings)
    client_id = worker_client_id(1, own._replace(table="0" * len(own.table)))
    with site.worker() as worker:
        wait_until(lambda: site.rows() == 3)
        with joining(site, client_id) as other:
            wait_until_joined(site, other, client_id)
            wait_until(lambda: other.poll(0.1) is None and OTHER_TABLE in worker.output)
        end(worker)
