"""`octane-analytics topic`, and a complete set-up to stored events, on Apache Kafka."""

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from octane_analytics.kafka.topic_admin import TopicAdmin, TopicShape
from octane_analytics.settings.loading import load
from tests.support.command import call, wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]

DAY_MS = 86_400_000


@pytest.fixture
def fresh(site: Site) -> Iterator[Site]:
    """Settings with topics and a database that do not exist yet."""
    name = f"fresh-{uuid.uuid4().hex[:8]}"
    before = site.clickhouse.table.database
    site.environ |= {
        "KAFKA_TOPIC": name,
        "KAFKA_GROUP_ID": f"{name}-workers",
        "CLICKHOUSE_DATABASE": name,
    }
    yield site
    site.clickhouse.execute(f"DROP DATABASE IF EXISTS `{name}`")
    assert before != name


def shapes(site: Site) -> list[TopicShape | None]:
    kafka = load(site.environ).settings.kafka
    with TopicAdmin(kafka, client_id="tests") as admin:
        return [admin.describe(topic) for topic in (kafka.topic, kafka.dlq_topic)]


def test_topic_apply_creates_both_topics_once(fresh: Site) -> None:
    assert "does not exist: run `octane-analytics topic apply`" in fresh.run(
        "topic", "check", code=1
    )
    options = ["--partitions", "3", "--replication", "1", "--retention", "7d"]
    options += ["--dlq-retention", "forever"]
    said = fresh.run("topic", "apply", *options)
    assert f"created topic {fresh.topic}: partitions 3, replication 1, retention 7d\n" in said
    assert (
        f"created topic {fresh.topic}.dlq: partitions 1, replication 1, retention forever" in said
    )
    assert shapes(fresh) == [TopicShape(3, 1, 7 * DAY_MS), TopicShape(1, 1, -1)]
    assert "exists" in fresh.run("topic", "apply", *options)
    assert "exists" in fresh.run("topic", "apply")
    fresh.run("topic", "check", *options)
    assert shapes(fresh) == [TopicShape(3, 1, 7 * DAY_MS), TopicShape(1, 1, -1)]


def test_different_topic_is_reported_and_not_changed(fresh: Site) -> None:
    fresh.run("topic", "apply", "--partitions", "3", "--retention", "36h")
    before = shapes(fresh)
    wanted = ["--partitions", "4", "--replication", "2", "--retention", "2d"]
    for command in ("apply", "check"):
        said = fresh.run("topic", command, *wanted, code=1)
        assert "has 3 partitions, not 4: kafka-topics.sh --alter" in said
        assert said.count("has 1 replicas of a partition, not 2") == 2
        assert "keeps records 36h, not 2d: kafka-configs.sh" in said
        assert "--add-config retention.ms=172800000" in said
    assert "partitions cannot be removed" in fresh.run(
        "topic", "check", "--partitions", "2", code=1
    )
    assert shapes(fresh) == before


def test_topic_apply_reports_errors_in_one_line(fresh: Site) -> None:
    for options, code, expected in (
        (["--replication", "3"], 78, "INVALID_REPLICATION_FACTOR"),
        (["--partitions", "0"], 2, "--partitions"),
        (["--retention", "7"], 2, "write a number with s, m, h or d"),
        (["--retention", "0d"], 2, "write a number with s, m, h or d"),
    ):
        said = fresh.run("topic", "apply", *options, code=code)
        assert expected in said
        assert said.count("\n") == 1
    done = call("topic", "apply", settings=fresh.environ | {"KAFKA_TOPIC": "no topic/name"})
    assert done.returncode in (69, 78), done.stderr
    assert done.stderr.count("\n") == 1


def test_own_servers_from_nothing_to_stored_events(fresh: Site) -> None:
    fresh.run("topic", "apply", "--partitions", "2", "--replication", "1")
    fresh.run("schema", "apply")
    report = json.loads(fresh.run("check", "--procs", "1", "--json"))
    assert report["failures"] == 0
    assert not [c for c in report["checks"] if c["level"] == "WARN" and "topic" in c["subject"]]
    fresh.send(*events(range(6)))
    count = f"SELECT count() FROM `{fresh.environ['CLICKHOUSE_DATABASE']}`.ai_analytics_events"
    with fresh.worker() as worker:
        wait_until(lambda: fresh.clickhouse.select(count).rows == [(6,)])
        worker.child.terminate()
        assert worker.wait() == 0, worker.output
    assert re.search(r"^nothing behind$", fresh.run("lag"), re.MULTILINE)
