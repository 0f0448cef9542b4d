import json
import re
from typing import Any

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.operations.offset_snapshot import Snapshot, changes, parse_snapshot, plan
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.types import Commit, Committed, LogIdentity, PartitionRange, TopicPartition

TOPIC = "octane.events"
LOG = LogIdentity("cluster", "topic-id", "")
OTHER = LogIdentity("elsewhere", "other-id", "")
PENDING = "octane1;5-9;cluster;topic-id;"
SNAPSHOT = Snapshot("workers", TOPIC, LOG, (Committed(5, PENDING), Committed(None, "")))
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
BOUNDS = {P0: (0, 20), P1: (0, 0)}
LIVE = {P0: Committed(9, completed(TOPIC, LOG)), P1: Committed(None, "")}
NOTHING = Committed(None, "")
BATCH = Intent(TOPIC, LOG, (PartitionRange(0, 9, 12), PartitionRange(1, 0, 3)))


def test_snapshot_round_trips() -> None:
    document = json.loads(json.dumps(SNAPSHOT.as_object()))
    assert parse_snapshot(document) == SNAPSHOT
    assert document["partitions"][0]["pending"] == "5-9"


def test_same_log_restores_pending_intents() -> None:
    assert plan(SNAPSHOT, TOPIC, LOG, BOUNDS, LIVE) == [
        Commit(TopicPartition(TOPIC, 0), 5, PENDING)
    ]


@pytest.mark.parametrize(
    "live",
    [
        {P0: Committed(9, BATCH.metadata()), P1: Committed(0, BATCH.metadata())},
        # Partition 0 was completed by its owner; the batch is pending for the other one.
        {P0: Committed(12, completed(TOPIC, LOG)), P1: Committed(0, BATCH.metadata())},
    ],
)
def test_import_is_refused_while_batch_names_partition(
    live: dict[TopicPartition, Committed],
) -> None:
    with pytest.raises(ConfigError, match="pending for partitions 0"):
        plan(SNAPSHOT, TOPIC, LOG, BOUNDS, live)
    commits = plan(SNAPSHOT, TOPIC, LOG, BOUNDS, live, drop_intents=True)
    # Else the next owner of partition 1 would insert the range of partition 0 again.
    assert {c.partition: (c.offset, c.metadata) for c in commits} == {
        P0: (5, PENDING),
        P1: (0, completed(TOPIC, LOG)),
    }


def test_import_that_removes_an_intent_is_refused() -> None:
    """The offset stays, and only the batch that begins there would be forgotten."""
    done = Snapshot("workers", TOPIC, LOG, (Committed(9, completed(TOPIC, LOG)), NOTHING))
    live = {P0: Committed(9, BATCH.metadata()), P1: NOTHING}
    with pytest.raises(ConfigError, match="pending for partitions 0"):
        plan(done, TOPIC, LOG, BOUNDS, live)


def test_import_of_unchanged_offsets_keeps_the_batch() -> None:
    same = (Committed(9, BATCH.metadata()), Committed(0, BATCH.metadata()))
    live = {P0: same[0], P1: same[1]}
    commits = plan(Snapshot("workers", TOPIC, LOG, same), TOPIC, LOG, BOUNDS, live)
    assert changes(live, commits) == []


def test_unreadable_intent_of_group_needs_drop_intents() -> None:
    live = {P0: Committed(9, completed(TOPIC, LOG)), P1: Committed(0, "octane3;x")}
    with pytest.raises(ConfigError, match=r"a newer version, or damaged.*--drop-intents"):
        plan(SNAPSHOT, TOPIC, LOG, BOUNDS, live)
    assert plan(SNAPSHOT, TOPIC, LOG, BOUNDS, live, drop_intents=True)


def test_unreadable_intent_of_export_is_refused() -> None:
    damaged = Snapshot("workers", TOPIC, LOG, (Committed(5, "octane3;x"), Committed(None, "")))
    with pytest.raises(ConfigError, match=r"octane\.events\[0\] is not an intent"):
        plan(damaged, TOPIC, LOG, BOUNDS, LIVE)


def test_other_log_restores_only_completed_offsets() -> None:
    with pytest.raises(ConfigError, match="--other-log"):
        plan(SNAPSHOT, TOPIC, OTHER, BOUNDS, LIVE)
    with pytest.raises(ConfigError, match="pending for partitions 0"):
        plan(SNAPSHOT, TOPIC, OTHER, BOUNDS, LIVE, other_log=True)
    (commit,) = plan(SNAPSHOT, TOPIC, OTHER, BOUNDS, LIVE, other_log=True, drop_intents=True)
    assert (commit.offset, commit.metadata) == (5, completed(TOPIC, OTHER))


@pytest.mark.parametrize(
    ("topic", "bounds", "expected"),
    [
        ("other", BOUNDS, "of topic octane.events, and KAFKA_TOPIC is other"),
        (TOPIC, {TopicPartition(TOPIC, 0): (0, 20)}, "has 2 partitions, octane.events has 1"),
        (TOPIC, BOUNDS | {TopicPartition(TOPIC, 0): (6, 20)}, "from 6 to 20, the export has 5"),
        (TOPIC, BOUNDS | {TopicPartition(TOPIC, 0): (0, 4)}, "from 0 to 4, the export has 5"),
    ],
)
def test_snapshot_of_other_shape_is_refused(
    topic: str, bounds: dict[TopicPartition, tuple[int, int]], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan(SNAPSHOT, topic, LOG, bounds, LIVE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"partitions": [{"partition": 1, "offset": 1, "metadata": ""}]},
        {"partitions": [{"partition": 0, "offset": -1, "metadata": ""}]},
        {"partitions": [{"partition": 0, "offset": "1", "metadata": ""}]},
        {"partitions": 7},
        {"cluster_id": None, "partitions": [{}]},
    ],
)
def test_damaged_export_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="export"):
        parse_snapshot(SNAPSHOT.as_object() | change)


def test_snapshot_that_is_not_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an export"):
        parse_snapshot([])


def test_changes_list_moved_partitions() -> None:
    where = TopicPartition(TOPIC, 0)
    assert changes({where: Committed(None, "")}, [Commit(where, 5, "")]) == [
        "octane.events[0]: nothing committed -> 5"
    ]
    assert changes({where: Committed(5, "")}, [Commit(where, 5, "")]) == []


HELD = {P0: (0, 20), P1: (0, 20)}
IDLE = {P0: Committed(20, completed(TOPIC, LOG)), P1: Committed(20, completed(TOPIC, LOG))}


def exported(*partitions: Committed) -> Snapshot:
    return Snapshot("workers", TOPIC, LOG, partitions)


@pytest.mark.parametrize(
    ("beyond", "named"),
    [
        (PartitionRange(0, 9, 21), "9 to 21 of octane.events[0]"),
        (PartitionRange(0, 9, 2**40), "9 to 1099511627776 of octane.events[0]"),
        (PartitionRange(7, 0, 3), "0 to 3 of octane.events[7]"),
    ],
)
def test_import_of_batch_outside_log_is_refused(beyond: PartitionRange, named: str) -> None:
    ranges = (beyond,) if beyond.partition == 0 else (PartitionRange(0, 9, 12), beyond)
    edited = exported(Committed(9, Intent(TOPIC, LOG, ranges).metadata()), IDLE[P1])
    with pytest.raises(ConfigError, match=re.escape(named)):
        plan(edited, TOPIC, LOG, HELD, IDLE)


@pytest.mark.parametrize(
    "other", [Committed(1, BATCH.metadata()), Committed(2, completed(TOPIC, LOG)), Committed(0, "")]
)
def test_import_of_part_of_a_batch_is_refused(other: Committed) -> None:
    """The batch is inserted for partition 0, and partition 1 would be read again from within it."""
    edited = exported(Committed(9, BATCH.metadata()), other)
    with pytest.raises(ConfigError, match=r"\[1\] would be read from .*inserted twice"):
        plan(edited, TOPIC, LOG, HELD, IDLE)


def test_import_of_whole_batch_is_accepted() -> None:
    for other in (Committed(0, BATCH.metadata()), Committed(3, completed(TOPIC, LOG))):
        commits = plan(exported(Committed(9, BATCH.metadata()), other), TOPIC, LOG, HELD, IDLE)
        assert [(c.offset, c.metadata) for c in commits] == [
            (9, BATCH.metadata()), (other.offset, other.metadata)
        ]  # fmt: skip


def test_dropped_intent_that_is_unreadable_is_not_restored() -> None:
    damaged = exported(Committed(5, "octane3;x"), IDLE[P1])
    commits = plan(damaged, TOPIC, LOG, HELD, IDLE, drop_intents=True)
    assert commits[0] == Commit(P0, 5, completed(TOPIC, LOG))


@pytest.mark.parametrize("metadata", [None, 7, ["octane2"], "\ud800"])
def test_metadata_that_is_not_text_is_damage(metadata: object) -> None:
    document = SNAPSHOT.as_object()
    document["partitions"][0]["metadata"] = metadata
    with pytest.raises(ConfigError, match="the export is damaged"):
        parse_snapshot(document)
