import json
from typing import Any

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.operations.offset_snapshot import Snapshot, changes, parse_snapshot, plan
from octane_analytics.types import Commit, Committed, LogIdentity, TopicPartition

TOPIC = "octane.events"
LOG = LogIdentity("cluster", "topic-id", "")
OTHER = LogIdentity("elsewhere", "other-id", "")
PENDING = "octane1;5-9;cluster;topic-id;"
SNAPSHOT = Snapshot("workers", TOPIC, LOG, (Committed(5, PENDING), Committed(None, "")))
BOUNDS = {TopicPartition(TOPIC, 0): (0, 20), TopicPartition(TOPIC, 1): (0, 0)}


def test_snapshot_round_trips() -> None:
    document = json.loads(json.dumps(SNAPSHOT.as_object()))
    assert parse_snapshot(document) == SNAPSHOT
    assert document["partitions"][0]["pending"] == "5-9"


def test_same_log_restores_pending_intents() -> None:
    assert plan(SNAPSHOT, TOPIC, LOG, BOUNDS) == [Commit(TopicPartition(TOPIC, 0), 5, PENDING)]


def test_other_log_restores_only_completed_offsets() -> None:
    with pytest.raises(ConfigError, match="--other-log"):
        plan(SNAPSHOT, TOPIC, OTHER, BOUNDS)
    with pytest.raises(ConfigError, match="partitions 0 have announced ranges"):
        plan(SNAPSHOT, TOPIC, OTHER, BOUNDS, other_log=True)
    (commit,) = plan(SNAPSHOT, TOPIC, OTHER, BOUNDS, other_log=True, drop_intents=True)
    assert (commit.offset, commit.metadata) == (5, "octane1;5-5;elsewhere;other-id;")


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
        plan(SNAPSHOT, topic, LOG, bounds)


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
