"""Stalled partitions distinguished from partitions without new records."""

from collections.abc import Callable

import pytest

from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.types import OffsetRange, TopicPartition

ONE, OTHER = TopicPartition("events", 0), TopicPartition("events", 1)
QUIET, GRACE, REVIVAL = 20.0, 5.0, 4.0


def detector_at(position: int = 10) -> StallDetector:
    detector = StallDetector(QUIET, GRACE, REVIVAL)
    detector.assign(ONE, position, 0.0)
    return detector


def test_partition_is_quiet_after_quiet_time() -> None:
    detector = detector_at()
    assert detector.quiet(QUIET - 0.1) == []
    assert detector.quiet(QUIET) == [ONE]


def test_partition_with_later_end_is_stalled() -> None:
    detector = detector_at(10)
    detector.compare_ends([ONE], {ONE: 11}, QUIET)
    assert detector.stalled(QUIET + GRACE - 0.1) == {}
    assert detector.stalled(QUIET + GRACE) == {ONE: 10}
    assert detector.quiet(QUIET * 3) == [], "its end is requested once"


def test_partition_with_earlier_end_is_reported_and_stalled() -> None:
    detector = detector_at(10)
    detector.assign(OTHER, 3, 0.0)
    assert detector.compare_ends([ONE, OTHER], {ONE: 3, OTHER: 4}, QUIET) == [ONE]
    assert detector.stalled(QUIET + GRACE) == {ONE: 10, OTHER: 3}


def test_partition_at_its_end_is_never_stalled() -> None:
    detector = detector_at(10)
    detector.compare_ends([ONE], {ONE: 10}, QUIET)
    assert detector.stalled(QUIET * 9) == {}
    assert detector.quiet(QUIET * 2 - 0.1) == []
    assert detector.quiet(QUIET * 2) == [ONE]


def test_partition_with_unknown_end_is_not_stalled() -> None:
    detector = detector_at()
    detector.compare_ends([ONE], {}, QUIET)
    assert detector.stalled(QUIET * 9) == {}


def test_partition_with_recent_record_is_not_stalled() -> None:
    detector = detector_at(10)
    detector.awaiting_first_record.discard(ONE)
    detector.compare_ends([ONE], {ONE: 11}, QUIET)
    detector.moved({ONE: 11}, QUIET + 1)
    assert detector.stalled(QUIET * 9) == {}


def test_position_before_first_record_is_ignored() -> None:
    # Otherwise the partition would be reassigned there, and earlier records skipped.
    detector = detector_at(10)
    detector.moved({ONE: 500}, 1.0)
    detector.compare_ends([ONE], {ONE: 501}, QUIET)
    assert detector.stalled(QUIET + GRACE) == {ONE: 10}
    detector.awaiting_first_record.discard(ONE)
    detector.moved({ONE: 11}, QUIET + GRACE)
    detector.compare_ends([ONE], {ONE: 501}, QUIET * 3)
    assert detector.stalled(QUIET * 4) == {ONE: 11}


def test_settled_position_is_returned_once() -> None:
    detector = detector_at(10)
    assert detector.settled(QUIET, 1.0) == {}, "not before the first record"
    detector.records_received({("events", 0)})
    detector.moved({ONE: 12}, 1.0)
    assert detector.settled(1.5, 1.0) == {}
    assert detector.settled(2.0, 1.0) == {ONE: 12}
    assert detector.settled(9.0, 1.0) == {}
    detector.moved({ONE: 13}, 10.0)
    assert detector.settled(11.0, 1.0) == {ONE: 13}


def test_partition_that_continues_is_quiet_after_grace() -> None:
    detector = detector_at(10)
    assert detector.quiet(GRACE - 0.1, lambda partition: 11) == []
    assert detector.quiet(GRACE, lambda partition: 11) == [ONE]
    assert detector.quiet(GRACE, lambda partition: 10) == []
    assert detector.quiet(GRACE, lambda partition: None) == []
    assert detector.quiet(QUIET, lambda partition: 10) == [ONE]


def test_unread_offsets_begin_at_position() -> None:
    detector = detector_at(10)
    detector.assign(OTHER, 5, 0.0)
    detector.compare_ends([ONE, OTHER], {ONE: 13, OTHER: 4}, QUIET)
    assert detector.unread([ONE, OTHER]) == {ONE: OffsetRange(10, 13)}
    assert detector.stalled(QUIET + GRACE) == {ONE: 10, OTHER: 5}


def test_postponed_partition_is_not_stalled_yet() -> None:
    detector = detector_at(10)
    detector.compare_ends([ONE], {ONE: 13}, QUIET)
    detector.postpone([ONE], QUIET + GRACE)
    assert detector.stalled(QUIET + 2 * GRACE) == {}
    assert detector.quiet(QUIET + 2 * GRACE, lambda partition: 13) == [ONE]


def test_reached_end_counts_as_position() -> None:
    detector = detector_at(10)
    detector.reached_end(ONE, 12, 1.0)
    detector.compare_ends([ONE], {ONE: 12}, QUIET + 1)
    assert detector.stalled(QUIET * 9) == {}


def test_seek_restarts_stall_detection() -> None:
    detector = detector_at(10)
    detector.compare_ends([ONE], {ONE: 11}, QUIET)
    detector.assign(ONE, 3, QUIET + GRACE)
    assert detector.stalled(QUIET * 9) == {}
    assert detector.quiet(QUIET * 2) == []


def test_restart_after_pause_clears_stalls() -> None:
    detector = detector_at()
    detector.compare_ends([ONE], {ONE: 11}, QUIET)
    detector.restart(100.0)
    assert detector.stalled(100.0 + GRACE) == {}
    assert detector.quiet(100.0 + QUIET) == [ONE]


def test_unassigned_partition_is_not_watched() -> None:
    detector = detector_at()
    detector.assign(OTHER, 0, 0.0)
    detector.unassign([ONE])
    detector.reached_end(ONE, 5, 1.0)
    detector.moved({ONE: 6}, 1.0)
    assert ONE not in detector
    assert detector.partitions() == [OTHER]
    assert detector.quiet(QUIET) == [OTHER]


def test_reassigned_partition_without_records_beyond_revival() -> None:
    detector = detector_at()
    detector.reassigned([ONE], 100.0)
    assert not detector.beyond_revival(100.0 + REVIVAL - 0.1)
    assert detector.beyond_revival(100.0 + REVIVAL)


PROGRESS: dict[str, Callable[[StallDetector], None]] = {
    "a record": lambda detector: detector.records_received({("events", 0)}),
    "the end": lambda detector: detector.reached_end(ONE, 10, 101.0),
    "another owner": lambda detector: detector.unassign([ONE]),
}


@pytest.mark.parametrize("receive", PROGRESS.values(), ids=PROGRESS)
def test_reassigned_partition_with_progress_is_revived(
    receive: Callable[[StallDetector], None],
) -> None:
    detector = detector_at()
    detector.assign(OTHER, 0, 0.0)
    detector.reassigned([ONE, OTHER], 100.0)
    receive(detector)
    assert detector.beyond_revival(100.0 + REVIVAL), "the other one is not"
    detector.records_received({("events", 1)})
    assert not detector.beyond_revival(100.0 + REVIVAL)


def test_received_record_is_no_longer_awaited() -> None:
    detector = detector_at()
    detector.assign(OTHER, 0, 0.0)
    detector.records_received({("events", 0), ("others", 1)})
    assert detector.awaiting_first_record == {OTHER}
