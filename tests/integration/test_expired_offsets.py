"""Group with expired committed offsets, on Apache Kafka and real ClickHouse."""

import json
import time

from confluent_kafka.admin import AdminClient

from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.operations.expired_offsets import SAMPLE_FETCH_BYTES, find_stored_record
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.settings.loading import load
from octane_analytics.types import LogIdentity, PartitionRange
from tests.support.command import wait_until
from tests.support.operations_fixtures import Site, event, events, site

__all__ = ["site"]


def forget_offsets(site: Site) -> None:
    """Delete the offsets, as Kafka does after offsets.retention.minutes without members."""
    admin = AdminClient({"bootstrap.servers": site.kafka.bootstrap_servers, "log_level": 0})
    admin.delete_consumer_groups([site.group])[site.group].result(20)


def users(first: int, end: int) -> list[str]:
    return sorted(str(user) for user in range(first, end))


def test_expired_offsets_stop_worker(site: Site) -> None:
    site.send(*events(range(10)))
    site.send(*events(range(10, 15)), partition=1)
    site.ingest()
    forget_offsets(site)
    site.send(*events(range(15, 18)))
    said = site.run("worker", "--procs", "1", code=78)
    assert said.count("\n") == 1
    assert "no committed offset that is valid for partitions 0, 1" in said
    for choice in ("offsets set --to end", "replay --from-offset beginning", "--to beginning"):
        assert choice in said
    assert site.rows() == 15

    found = {c["level"]: c["message"] for c in json.loads(site.run("check", "--json"))["checks"]
             if c["subject"] == "offsets"}  # fmt: skip
    assert "offsets set --to end" in found["WARN"]

    # The first option: nothing twice, and records received meanwhile are not lost.
    site.run("offsets", "set", "--to", "end", "--yes")
    site.run("replay", "--from-offset", "earliest", "--yes")
    assert site.users() == users(0, 18)
    site.send(*events(range(18, 20)))
    site.ingest()
    assert site.users() == users(0, 20)


def test_expired_offsets_of_one_partition_stop_worker(site: Site) -> None:
    site.send(*events(range(10)))
    site.send(*events(range(10, 15)), partition=1)
    site.ingest()
    kept = site.committed()[0]
    forget_offsets(site)
    site.commit(0, *kept)
    assert "partitions 1 of" in site.run("worker", "--procs", "1", code=78)
    site.run("offsets", "set", "--to", "1:5", "--yes")
    site.send(*events(range(15, 16)), partition=1)
    site.ingest()
    assert site.users() == users(0, 16)


def test_foreign_offset_after_end_stops_worker(site: Site) -> None:
    site.send(*events(range(10)))
    site.ingest()
    site.commit(0, 500)
    assert "partitions 0 of" in site.run("worker", "--procs", "1", code=78)
    checks = site.json("check")["checks"]
    assert any("after the end of the log" in c["message"] for c in checks if c["level"] == "WARN")


def test_foreign_offset_after_end_loses_no_record(site: Site) -> None:
    site.send(*events(range(10)))
    site.commit(0, 500)
    with site.worker() as worker:
        wait_until(lambda: site.rows() == 10)
        worker.child.terminate()
        assert worker.wait() == 0, worker.output
    assert site.users() == users(0, 10)
    assert (
        "was not committed for this log; reading the partition from its beginning" in worker.output
    )


def test_offset_moved_back_by_another_tool_stops_worker(site: Site) -> None:
    site.send(*events(range(10)))
    site.ingest()
    site.commit(0, 4)
    said = site.run("worker", "--procs", "1", code=78)
    assert said.count("\n") == 1
    assert "partition 0 to 4" in said
    found = [c["message"] for c in site.json("check")["checks"] if c["level"] == "WARN"]
    assert any(
        "another tool has set the committed offsets of some partitions (0: 4)" in m for m in found
    )
    assert any("offsets set --to end --drop-intents" in m for m in found)
    site.send(*events(range(10, 12)))
    site.run("offsets", "set", "--to", "end", "--drop-intents", "--yes")
    site.run("replay", "--from-offset", "beginning", "--yes")
    site.send(event(12))
    site.ingest()
    assert site.users() == users(0, 13)


def test_deliberate_return_to_offset_is_accepted(site: Site) -> None:
    site.send(*events(range(10)))
    site.ingest()
    site.commit(0, 8)
    site.run("worker", "--procs", "1", code=78)
    site.run("offsets", "set", "--to", "0:8", "--yes")
    site.send(event(10))
    site.ingest()
    assert site.users() == sorted([*users(0, 11), "8", "9"])


def test_offset_moved_during_pending_batch_stops_worker(site: Site) -> None:
    """A batch of two partitions waits; another tool sets one of them to the very same offset."""
    site.send(*events(range(6)))
    site.send(*events(range(6, 10)), partition=1)
    log = json.loads(site.run("offsets", "export"))
    identity = LogIdentity(log["cluster_id"], log["topic_id"], "")
    batch = Intent(site.topic, identity, (PartitionRange(0, 0, 6), PartitionRange(1, 0, 4)))
    site.commit(0, 0)
    site.commit(1, 0, batch.metadata())
    said = site.run("worker", "--procs", "1", code=78)
    assert said.count("\n") == 1
    assert "(partition 0 to 0) while a batch of partitions 0, 1 is pending" in said
    site.run("offsets", "set", "--to", "end", "--drop-intents", "--yes")
    site.run("replay", "--from-offset", "beginning", "--yes")
    site.send(event(10))
    site.ingest()
    assert site.users() == users(0, 11)


def test_missing_records_do_not_stop_worker(site: Site) -> None:
    site.store(*events(range(5)))
    other = site.environ | {"KAFKA_TOPIC": f"{site.topic}.other"}
    site.kafka.create_topic(other["KAFKA_TOPIC"], 2)
    site.send(*events(range(5, 9)), b"not an event", topic=other["KAFKA_TOPIC"])
    site.environ.update(other)
    site.ingest()
    assert site.users() == users(0, 9)


def test_stored_records_are_found_after_deletes(site: Site) -> None:
    site.send(*events(range(400)))
    site.ingest()
    forget_offsets(site)
    table = site.clickhouse.table
    site.clickhouse.execute(f"DELETE FROM {table} WHERE toUInt32(user_id) < 200")
    assert "already has records" in site.run("worker", "--procs", "1", code=78)
    site.run("offsets", "set", "--to", "0:300", "--yes")
    site.send(event(400))
    site.ingest()
    assert site.rows() >= 201


def test_sample_reads_several_partitions(site: Site) -> None:
    topic = f"{site.topic}.wide"
    site.kafka.create_topic(topic, 4)
    for partition in range(4):
        site.send(*events(range(2_000)), partition=partition, topic=topic)
    kafka = load(site.environ | {"KAFKA_TOPIC": topic}).settings.kafka
    with TopicReader(kafka, client_id="tests", fetch_bytes=SAMPLE_FETCH_BYTES) as log:
        assert find_stored_record(log, site.clickhouse, 20.0) is None


def test_offsets_are_set_to_time_and_back(site: Site) -> None:
    site.send(*events(range(4)))
    time.sleep(0.05)
    between = time.time()
    time.sleep(0.05)
    site.send(*events(range(4, 10)))
    site.send(event("late"), partition=1)
    moment = (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(between)) + f"{between % 1:.3f}"[1:] + "Z"
    )
    shown = site.run("offsets", "set", "--to", moment, "--dry-run")
    assert f"{site.topic}[0]: nothing committed -> 4" in shown
    assert "4 offsets are skipped, 0 are read" in shown
    assert site.committed()[0][0] < 0
    site.run("offsets", "set", "--to", moment, given="y\n", code=2)
    assert site.committed()[0][0] < 0
    assert "set 2 offsets" in site.run("offsets", "set", "--to", moment, "--yes")
    log = json.loads(site.run("offsets", "export"))
    nothing = completed(site.topic, LogIdentity(log["cluster_id"], log["topic_id"], ""))
    assert site.committed() == {0: (4, nothing), 1: (0, nothing)}
    for words in (("end", "latest"), ("beginning", "earliest")):
        site.run("offsets", "set", "--to", words[0], "--yes")
        assert "nothing to do" in site.run("offsets", "set", "--to", words[1])
    site.run("offsets", "set", "--to", "end", "--yes")
    assert "10 are read" not in (said := site.run("offsets", "set", "--to", "-1h", "--yes"))
    assert "11 are read again" in said
    assert {at for at, _ in site.committed().values()} == {0}


def test_offsets_set_reports_errors_in_one_line(site: Site) -> None:
    site.send(*events(range(3)))
    log = json.loads(site.run("offsets", "export"))
    site.commit(0, 0, f"octane1;0-2;{log['cluster_id']};{log['topic_id']};")
    for target, code, expected in (
        ("0:1", 78, "pending for partitions 0"),
        ("1:9", 78, "holds the offsets from 0 to 0"),
        ("7:0", 78, "partition 7 does not exist"),
        ("7", 2, "neither a partition nor a time"),
        ("0:x", 2, "write PARTITION:OFFSET"),
        ("middle", 2, "write beginning (earliest)"),
    ):
        said = site.run("offsets", "set", "--to", target, "--yes", code=code)
        assert expected in said
        assert said.count("\n") == 1
    assert site.committed()[0][0] == 0
    site.run("offsets", "set", "--to", "0:2", "--drop-intents", "--yes")
    assert site.committed()[0][0] == 2


def test_offsets_set_refuses_active_members(site: Site) -> None:
    site.send(*events(range(3)))
    with site.worker() as worker:
        site.wait_until_stored()
        said = site.run("offsets", "set", "--to", "beginning", "--yes", code=78)
        assert "has 1 active members (127.0.0.1)" in said
        worker.child.terminate()
        assert worker.wait() == 0
