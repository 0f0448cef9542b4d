"""Offsets up to which workers may have inserted, by the group's committed offsets and intents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.replay.group_offsets import announced_ends, settled_offsets
from octane_analytics.types import Committed, LogIdentity, OffsetRange, PartitionRange
from tests.support import version_1

TOPIC = "octane.events"
LOG = LogIdentity("cluster", "topic-id", "")
BATCH = Intent(TOPIC, LOG, (PartitionRange(0, 10, 20), PartitionRange(2, 5, 9)))
DONE = completed(TOPIC, LOG)


def test_batch_of_one_partition_names_ends_of_all() -> None:
    committed = {
        0: Committed(20, DONE),  # completed by its owner
        1: Committed(7, DONE),
        2: Committed(5, BATCH.metadata()),
        3: Committed(4, version_1.Intent(OffsetRange(4, 6), LOG).metadata()),
        4: Committed(3, "of another program"),
        5: Committed(None, ""),
    }
    assert announced_ends(TOPIC, committed) == {0: 20, 1: 7, 2: 9, 3: 6}


def test_batch_without_its_member_still_extends_it() -> None:
    """A withdrawal that did not reach every partition: take the later end."""
    committed = {0: Committed(10, DONE), 2: Committed(5, BATCH.metadata())}
    assert announced_ends(TOPIC, committed) == {0: 20, 2: 9}


def test_intent_of_moved_offset_announces_nothing() -> None:
    committed = {0: Committed(12, BATCH.metadata()), 2: Committed(6, BATCH.metadata())}
    assert announced_ends(TOPIC, committed) == settled_offsets(TOPIC, committed) == {0: 12, 2: 6}


def test_batch_completed_in_part_is_not_settled() -> None:
    """Its next owner repeats all of it, also what the offset of another partition has passed."""
    committed = {
        0: Committed(25, DONE),
        1: Committed(7, DONE),
        2: Committed(5, BATCH.metadata()),
        3: Committed(4, "of another program"),
        4: Committed(None, ""),
    }
    assert settled_offsets(TOPIC, committed) == {0: 10, 1: 7, 2: 5, 3: 4}


def test_unreadable_intent_raises_config_error() -> None:
    for read in (announced_ends, settled_offsets):
        with pytest.raises(ConfigError, match=r"octane\.events\[1\]"):
            read(TOPIC, {0: Committed(1, DONE), 1: Committed(1, "octane9;")})


@given(st.sets(st.sampled_from([0, 1, 2]), min_size=1), st.data())
def test_some_carrier_is_enough_for_every_end(carriers: set[int], data: st.DataObject) -> None:
    starts = {n: data.draw(st.integers(0, 100), str(n)) for n in range(3)}
    batch = Intent(TOPIC, LOG, tuple(PartitionRange(n, at, at + 5) for n, at in starts.items()))
    committed = {
        n: Committed(at, batch.metadata()) if n in carriers else Committed(at + 5, DONE)
        for n, at in starts.items()
    }
    assert announced_ends(TOPIC, committed) == {n: at + 5 for n, at in starts.items()}
    assert settled_offsets(TOPIC, committed) == starts
