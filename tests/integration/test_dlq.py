"""`octane-analytics dlq` on Apache Kafka and real ClickHouse."""

import functools
import json
import random
import shlex
import subprocess
from collections.abc import Sequence

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.errors import AssignmentLost
from octane_analytics.events.decode import decode
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.kafka.dlq_topic import DeadLetterTopic
from octane_analytics.operations.dead_letter_retry import DeadLetterRetry, StoredRows, read_index
from octane_analytics.operations.dead_letters import Selection
from octane_analytics.settings.loading import load
from octane_analytics.types import RejectedRecord, TopicPartition
from tests.fakes.kafka import FakeRecord
from tests.support.command import call, environment, run
from tests.support.operations_fixtures import Site, event, site
from tests.support.raw_producer import RawRecord, produce_raw
from tests.support.terminal import on_terminal

__all__ = ["site"]


def bury(site: Site, *records: tuple[int, bytes | None], reason: str = "wrong_type") -> None:
    """Send records to the dead-letter topic as a worker does, valid or not."""
    settings = load(site.environ).settings.kafka
    outlet = KafkaDeadLetters(settings, client_id="tests")
    where = TopicPartition(site.topic, 0)
    outlet.send(
        [
            RejectedRecord(FakeRecord(where, offset, value), reason, "is odd")
            for offset, value in records
        ]
    )
    outlet.close()


def test_dead_letters_are_counted_shown_and_retried(site: Site) -> None:
    site.send(b"not json", b"{}", event(1), partition=1)
    site.ingest()
    bury(site, *((100 + user, event(user)) for user in range(2, 7)))
    bury(site, (103, event(3)), reason="bad_timestamp")  # once more, as after a crash
    listed = site.json("dlq", "list")["reasons"]
    assert {row["reason"]: (row["messages"], row["retried"]) for row in listed} == {
        "not_json": (1, 0),
        "missing_field": (1, 0),
        "wrong_type": (5, 0),
        "bad_timestamp": (1, 0),
    }
    shown = [json.loads(x) for x in site.run("dlq", "show", "--limit", "3", "--json").splitlines()]
    assert [message["value"] for message in shown][:2] == ["not json", "{}"]
    assert shown[0]["origin"] == {"topic": site.topic, "partition": 1, "offset": 0}
    text = site.run("dlq", "show", "--reason", "not_json")
    assert f"from {site.topic}[1]@0" in text
    assert "  not json" in text

    outcome = site.json("dlq", "retry", "--yes", "--reason", "wrong_type")
    assert (outcome["inserted"], outcome["chosen"]) == (5, 5)
    outcome = site.json("dlq", "retry", "--yes", code=1)
    assert (outcome["inserted"], outcome["duplicates"]) == (0, 6 - 5)
    assert outcome["failed_again"] == {"not_json": 1, "missing_field": 1}
    assert site.users() == [str(user) for user in range(1, 7)]
    rows = {row["reason"]: row for row in site.json("dlq", "list")["reasons"]}
    assert (rows["wrong_type"]["retried"], rows["wrong_type"]["left"]) == (5, 0)
    assert (rows["bad_timestamp"]["duplicates"], rows["not_json"]["left"]) == (1, 1)


def test_retry_after_replay_inserts_nothing_twice(site: Site) -> None:
    """Simulates messages rejected by an old decoder and replayed with the current one."""
    values = [event(user, name="é") for user in (1, 2, 2)]
    site.send(*values)
    site.commit(0, len(values))
    bury(site, *enumerate(values), (99, event(99)))
    assert "3 inserted" in site.run("replay", "--from-offset", "0", "--yes")
    assert "3 have equal rows" in site.run("dlq", "retry", "--dry-run")
    refused = call("dlq", "retry", "--yes", settings=site.environ)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "3 of 4 dead-letter messages have equal rows in the table" in refused.stderr
    assert site.users() == ["1", "2", "2"]
    outcome = site.json("dlq", "retry", "--yes", "--present", "skip")
    assert (outcome["inserted"], outcome["present"]) == (1, 3)
    assert site.users() == ["1", "2", "2", "99"]
    assert "0 dead-letter messages of" in site.run("dlq", "retry", "--dry-run")
    assert "0 inserted, 0 stay" in site.run("dlq", "retry", "--yes")
    assert site.users() == ["1", "2", "2", "99"]


def test_retries_into_two_tables_share_the_topic(site: Site) -> None:
    """Two services read one topic, in groups of their own, and both have its dead-letter messages."""
    bury(site, *((user, event(user)) for user in range(4)))
    assert "4 inserted" in site.run("dlq", "retry", "--yes")
    other = TableName(site.clickhouse.table.database, "other")
    site.clickhouse.execute(schema.create_table(other))
    site.environ["CLICKHOUSE_TABLE"] = other.table
    assert "4 inserted" in site.run("dlq", "retry", "--yes")
    assert site.run("dlq", "retry", "--yes").startswith("0 inserted")
    counts = site.clickhouse.select(f"SELECT count(), uniqExact(user_id) FROM {other}").rows
    assert (site.rows(), counts) == (4, [(4, 4)])


def test_retry_confirms_and_dry_run_changes_nothing(site: Site) -> None:
    bury(site, (1, event(1)))
    assert "1 dead-letter messages of" in site.run("dlq", "retry", "--dry-run")
    assert "standard input is not a terminal: add --yes" in site.run("dlq", "retry", code=2)
    declined = on_terminal("dlq", "retry", answers=[("retry 1 ", "n\n")], settings=site.environ)
    assert declined.code == 1
    assert site.users() == []
    agreed = on_terminal("dlq", "retry", answers=[("retry 1 ", "y\n")], settings=site.environ)
    assert agreed.code == 0
    assert "1 inserted, 0 stay" in agreed.lines
    assert site.users() == ["1"]


def test_purge_report_lists_settled_offsets(site: Site) -> None:
    bury(site, (1, event(1)), (2, event(2)))
    bury(site, (3, b"bad"), reason="not_json")
    assert "nothing to purge" in site.run("dlq", "purge-report")
    site.run("dlq", "retry", "--yes", code=1)
    outcome = site.json("dlq", "purge-report")
    assert outcome["partitions"] == [{"topic": f"{site.topic}.dlq", "partition": 0, "offset": 2}]
    report = run("dlq", "purge-report", "--kafka-group-id", "it's", settings=site.environ)
    again, delete = (line.strip() for line in report.stdout.splitlines()[-2:])
    words, _, file = again.rpartition(" > ")
    assert shlex.split(words)[1:] == ["dlq", "purge-report", "--kafka-group-id", "it's", "--json"]
    assert delete.startswith("kafka-delete-records --bootstrap-server ")
    assert delete.endswith(f" --offset-json-file {file}")
    repeated = subprocess.run(
        ["bash", "-c", words],
        env=environment(site.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(repeated.stdout) == outcome
    (given_up,) = site.json("dlq", "purge-report", "--give-up", "not_json")["partitions"]
    assert given_up["offset"] > 3


def test_interrupted_retry_is_finished_by_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(site, *((user, event(user)) for user in range(10)))
    settings = load(site.environ).settings

    class Crash(Exception): ...

    with (
        DeadLetterTopic(settings.kafka, client_id="tests") as log,
        ClickHouseShards(settings.clickhouse, client_name="tests") as table,
    ):
        sink = table.sink("")
        insert_block = sink.insert_block

        def insert_and_crash(
            columns: Sequence[Sequence[object]], token: str | None, query_id: str | None
        ) -> None:
            insert_block(columns, token, query_id)
            raise Crash

        monkeypatch.setattr(sink, "insert_block", insert_and_crash)
        log.open()
        retry = DeadLetterRetry(log, table, decode, read_index(log, log.spans()), chunk_messages=4)
        with pytest.raises(Crash):
            retry.run(Selection())
    assert site.rows() == 4
    (row,) = site.json("dlq", "list")["reasons"]
    assert row["pending"] == 4
    planned = site.run("dlq", "retry", "--dry-run")
    assert "6 dead-letter messages of" in planned
    assert "4 that an earlier retry announced come first" in planned
    outcome = site.json("dlq", "retry", "--yes")
    assert outcome["finished_of_an_earlier_retry"] == 4
    assert site.users() == sorted(str(user) for user in range(10))


@pytest.mark.parametrize("group", ["", "mistyped"])
def test_second_retry_ends_the_first(site: Site, group: str) -> None:
    bury(site, *((user, event(user)) for user in range(10)))
    settings = load(site.environ | ({"KAFKA_GROUP_ID": group} if group else {})).settings
    with (
        DeadLetterTopic(settings.kafka, client_id="tests") as log,
        ClickHouseShards(settings.clickhouse, client_name="tests") as table,
    ):
        log.open()
        slow = DeadLetterRetry(log, table, decode, read_index(log, log.spans()), chunk_messages=4)
        assert "10 inserted" in site.run("dlq", "retry", "--yes")
        with pytest.raises(AssignmentLost, match="another retry"):
            slow.run(
                Selection(), StoredRows.INSERT
            )  # fenced by Kafka alone, without a query of the table
    assert site.rows() == 10


def test_message_refused_by_clickhouse_stays(site: Site) -> None:
    site.clickhouse.execute(
        f"ALTER TABLE {site.clickhouse.table} ADD CONSTRAINT odd CHECK user_id != '7'"
    )
    bury(site, *((user, event(user)) for user in range(10)))
    outcome = site.json("dlq", "retry", "--yes", code=1)
    assert (outcome["inserted"], outcome["refused_by_clickhouse"]) == (9, 1)
    site.clickhouse.execute(f"ALTER TABLE {site.clickhouse.table} DROP CONSTRAINT odd")
    assert site.json("dlq", "retry", "--yes")["inserted"] == 1
    assert site.users() == [str(user) for user in range(10)]


def test_message_without_value_is_not_retryable(site: Site) -> None:
    site.kafka.create_topic(f"{site.topic}.narrow", 1, {"max.message.bytes": "2000"})
    site.environ["KAFKA_DLQ_TOPIC"] = f"{site.topic}.narrow"
    large = event(1, text=random.Random(0).randbytes(10_000).hex())
    bury(site, (1, large))
    (row,) = site.json("dlq", "list")["reasons"]
    assert (row["not_retryable"], row["left"]) == (1, 1)
    assert "too large to be kept" in site.run("dlq", "show")
    assert "without their value" in site.run("dlq", "retry", "--yes", code=1)


def test_missing_dead_letter_topic_counts_as_empty(site: Site) -> None:
    nowhere = {"KAFKA_DLQ_TOPIC": f"{site.topic}.nowhere"}
    for command, found in (
        (("dlq", "list", "--json"), {"topic": f"{site.topic}.nowhere", "reasons": []}),
        (("dlq", "purge-report", "--json"), {"partitions": [], "version": 1}),
    ):
        done = call(*command, settings=site.environ | nowhere)
        assert done.returncode == 0
        assert json.loads(done.stdout) == found
        assert f"topic {site.topic}.nowhere does not exist" in done.stderr
    text = call("dlq", "list", settings=site.environ | nowhere)
    assert text.stdout == f"0 dead-letter messages in {site.topic}.nowhere, 0 left\n"
    retried = call("dlq", "retry", "--yes", settings=site.environ | nowhere)
    assert retried.returncode == 0
    assert retried.stdout.startswith("0 dead-letter messages of ")
    with DeadLetterTopic(load(site.environ | nowhere).settings.kafka, client_id="tests") as log:
        assert not log.has_topic(), "reading creates no topic"


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "expected"),
    [
        (["retry", "--yes"], {"CLICKHOUSE_PORT": "1"}, 69, "cannot talk to ClickHouse"),
        (["retry", "--yes"], {"CLICKHOUSE_PASSWORD": "wrong"}, 78, "check CLICKHOUSE_USER"),
        (["retry", "--yes"], {"CLICKHOUSE_TABLE": "nowhere"}, 78, "schema apply"),
        (["retry", "--offsets", "7-3"], {}, 2, "'7-3' is not a range"),
        (["list"], {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 69, "cannot reach a Kafka broker"),
    ],
)
def test_dlq_reports_errors_in_one_line(
    site: Site, arguments: list[str], settings: dict[str, str], code: int, expected: str
) -> None:
    bury(site, (1, event(1)))
    said = site.run("dlq", *arguments, code=code, **settings)
    assert expected in said
    assert said.count("\n") == 1
    assert site.rows() == 0


def test_record_with_foreign_header_names_is_retried(site: Site) -> None:
    foreign = [(b"tr\xffce", b"1"), (b"\xed\xa0\x80", None)]
    trace = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    send = functools.partial(produce_raw, site.kafka.bootstrap_servers)
    good = RawRecord(event(1), b"\xff", [*foreign, trace])
    bad = RawRecord(b"\xff not json", b"\xff", [*foreign, trace])
    send(site.topic.encode(), [good, bad, good])
    # With traces exported to a closed port, which stops no worker.
    site.ingest(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert site.users() == ["1", "1"]
    assert [row["reason"] for row in site.json("dlq", "list")["reasons"]] == ["not_utf8"]
    # Also with a record that another client wrote to the dead-letter topic itself.
    late = RawRecord(b"x", b"\xff", foreign, timestamp_ms=1)
    send(f"{site.topic}.dlq".encode(), [late])
    bury(site, (100, event(2)))
    rows = {row["reason"]: row["left"] for row in site.json("dlq", "list")["reasons"]}
    assert rows == {"not_utf8": 1, "unknown": 1, "wrong_type": 1}
    assert "not_utf8" in site.run("dlq", "list")
    shown = [json.loads(x) for x in site.run("dlq", "show", "--json").splitlines()]
    assert shown[0]["origin"] == {"topic": site.topic, "partition": 0, "offset": 1}
    assert "not sent by a worker" in site.run("dlq", "show")
    outcome = site.json("dlq", "retry", "--yes", code=1)
    assert (outcome["inserted"], outcome["not_retryable"]) == (1, 1)
    assert site.users() == ["1", "1", "2"]


def test_message_without_large_key_is_retried(site: Site) -> None:
    key = random.Random(0).randbytes(1_100_000)
    record = FakeRecord(TopicPartition(site.topic, 0), 5, event(5), key)
    outlet = KafkaDeadLetters(load(site.environ).settings.kafka, client_id="tests")
    outlet.send([RejectedRecord(record, "wrong_type", "is odd")])
    outlet.close()
    assert "(without its key, too large to be kept: 1,100,000 bytes)" in site.run("dlq", "show")
    shown = json.loads(site.run("dlq", "show", "--json"))
    assert (shown["dropped_bytes"], shown["retryable"]) == ({"key": 1_100_000}, True)
    assert "1 inserted, 0 stay" in site.run("dlq", "retry", "--yes")
    assert site.users() == ["5"]
