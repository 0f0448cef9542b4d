"""Who stands still, told from who has nothing to hand out."""

from collections.abc import Callable

import pytest

from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.types import TopicPartition

ONE, OTHER = TopicPartition("events", 0), TopicPartition("events", 1)
PATIENCE, GRACE, REVIVAL = 20.0, 5.0, 4.0


def progress(position: int = 10) -> StallDetector:
    made = StallDetector(PATIENCE, GRACE, REVIVAL)
    made.assign(ONE, position, 0.0)
    return made


def test_quiet_partition_is_asked_for_once_its_patience_is_over() -> None:
    watched = progress()
    assert watched.quiet(PATIENCE - 0.1) == []
    assert watched.quiet(PATIENCE) == [ONE]


def test_partition_that_stays_behind_is_stalled_at_its_position() -> None:
    watched = progress(10)
    watched.ends([ONE], {ONE: 11}, PATIENCE)
    assert watched.stalled(PATIENCE + GRACE - 0.1) == {}
    assert watched.stalled(PATIENCE + GRACE) == {ONE: 10}
    assert watched.quiet(PATIENCE * 3) == [], "it is asked for once"


def test_partition_that_ends_before_its_position_is_told_and_stalled_all_the_same() -> None:
    watched = progress(10)
    watched.assign(OTHER, 3, 0.0)
    assert watched.ends([ONE, OTHER], {ONE: 3, OTHER: 4}, PATIENCE) == [ONE]
    assert watched.stalled(PATIENCE + GRACE) == {ONE: 10, OTHER: 3}


def test_partition_at_its_end_is_asked_for_again_later_and_never_stalled() -> None:
    watched = progress(10)
    watched.ends([ONE], {ONE: 10}, PATIENCE)
    assert watched.stalled(PATIENCE * 9) == {}
    assert watched.quiet(PATIENCE * 2 - 0.1) == []
    assert watched.quiet(PATIENCE * 2) == [ONE]


def test_partition_that_nobody_tells_of_is_not_stalled() -> None:
    watched = progress()
    watched.ends([ONE], {}, PATIENCE)
    assert watched.stalled(PATIENCE * 9) == {}


def test_record_that_just_came_in_is_no_stall() -> None:
    watched = progress(10)
    watched.unseen.discard(ONE)
    watched.ends([ONE], {ONE: 11}, PATIENCE)
    watched.moved({ONE: 11}, PATIENCE + 1)
    assert watched.stalled(PATIENCE * 9) == {}


def test_position_of_before_is_not_taken_for_the_one_that_was_assigned() -> None:
    # Were it, the partition would be read anew from there, and all before it left out.
    watched = progress(10)
    watched.moved({ONE: 500}, 1.0)
    watched.ends([ONE], {ONE: 501}, PATIENCE)
    assert watched.stalled(PATIENCE + GRACE) == {ONE: 10}
    watched.unseen.discard(ONE)
    watched.moved({ONE: 11}, PATIENCE + GRACE)
    watched.ends([ONE], {ONE: 501}, PATIENCE * 3)
    assert watched.stalled(PATIENCE * 4) == {ONE: 11}


def test_end_behind_which_there_are_no_records_counts_as_position() -> None:
    watched = progress(10)
    watched.reached_end(ONE, 12, 1.0)
    watched.ends([ONE], {ONE: 12}, PATIENCE + 1)
    assert watched.stalled(PATIENCE * 9) == {}


def test_seek_starts_anew() -> None:
    watched = progress(10)
    watched.ends([ONE], {ONE: 11}, PATIENCE)
    watched.assign(ONE, 3, PATIENCE + GRACE)
    assert watched.stalled(PATIENCE * 9) == {}
    assert watched.quiet(PATIENCE * 2) == []


def test_pause_is_no_reason_to_suspect_anybody() -> None:
    watched = progress()
    watched.ends([ONE], {ONE: 11}, PATIENCE)
    watched.restart(100.0)
    assert watched.stalled(100.0 + GRACE) == {}
    assert watched.quiet(100.0 + PATIENCE) == [ONE]


def test_partition_that_left_is_not_watched() -> None:
    watched = progress()
    watched.assign(OTHER, 0, 0.0)
    watched.unassign([ONE])
    watched.reached_end(ONE, 5, 1.0)
    watched.moved({ONE: 6}, 1.0)
    assert ONE not in watched
    assert watched.partitions() == [OTHER]
    assert watched.quiet(PATIENCE) == [OTHER]


def test_partition_that_was_read_anew_is_beyond_revival_when_nothing_comes_of_it() -> None:
    watched = progress()
    watched.revived([ONE], 100.0)
    assert not watched.is_beyond_revival(100.0 + REVIVAL - 0.1)
    assert watched.is_beyond_revival(100.0 + REVIVAL)


COMES: dict[str, Callable[[StallDetector], None]] = {
    "a record": lambda watched: watched.records_received({("events", 0)}),
    "the end": lambda watched: watched.reached_end(ONE, 10, 101.0),
    "another owner": lambda watched: watched.unassign([ONE]),
}


@pytest.mark.parametrize("come", COMES.values(), ids=COMES)
def test_partition_that_was_read_anew_is_alive_once_something_comes_of_it(
    come: Callable[[StallDetector], None],
) -> None:
    watched = progress()
    watched.assign(OTHER, 0, 0.0)
    watched.revived([ONE, OTHER], 100.0)
    come(watched)
    assert watched.is_beyond_revival(100.0 + REVIVAL), "the other one is not"
    watched.records_received({("events", 1)})
    assert not watched.is_beyond_revival(100.0 + REVIVAL)


def test_what_was_handed_out_is_seen() -> None:
    watched = progress()
    watched.assign(OTHER, 0, 0.0)
    watched.records_received({("events", 0), ("others", 1)})
    assert watched.unseen == {OTHER}
