"""Outcomes of commits: an error is a refusal only if it proves that nothing was stored."""

import time
from collections.abc import Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, Rebalancing
from octane_analytics.kafka import commit_outcome
from octane_analytics.types import Commit, CommitOutcome, TopicPartition

_REFUSED = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.GROUP_ID_NOT_FOUND,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.INVALID_GROUP_ID,
    KafkaError.INVALID_COMMIT_OFFSET_SIZE,
    KafkaError._WAIT_COORD,
    KafkaError._ASSIGNMENT_LOST,
}
_PARTITION_REFUSED = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.OFFSET_METADATA_TOO_LARGE,
}
_REPLACED = {KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED, KafkaError._FATAL}
_CODES = sorted(
    {
        value
        for name, value in vars(KafkaError).items()
        if name.isupper() and isinstance(value, int) and value not in (0, -200, -100)
    }
    | {4_711, -4_711}
)


class Consumer:
    """Consumer whose commit fails in some partitions: raises the last error as confluent_kafka
    2.x does, or returns the results."""

    def __init__(self, codes: Sequence[int | None], *, returns_results: bool) -> None:
        self._codes = codes
        self._returns_results = returns_results

    def commit(self, *, offsets: Sequence[RawPartition], asynchronous: bool) -> "list[_Answered]":
        assert not asynchronous
        failed = [code for code in self._codes if code is not None]
        if failed and not self._returns_results:
            raise KafkaException(KafkaError(failed[-1]))
        answered = zip(offsets, self._codes, strict=True)
        return [_Answered(raw, code) for raw, code in answered]


class _Answered:
    def __init__(self, raw: RawPartition, code: int | None) -> None:
        self.partition = raw.partition
        self.error = None if code is None else KafkaError(code)


def commit(
    *codes: int | None, lengths: Sequence[int] = (5, 5), returns_results: bool = False
) -> CommitOutcome:
    commits = [
        Commit(TopicPartition("events", number), 3, "x" * length)
        for number, length in zip(range(len(codes)), lengths, strict=False)
    ]
    consumer = Consumer(codes, returns_results=returns_results)
    return commit_outcome.commit(consumer, commits)  # type: ignore[arg-type]


def test_commit_without_errors_is_accepted() -> None:
    assert commit(None, None) == CommitOutcome(frozenset({0, 1}))


@pytest.mark.parametrize("code", _CODES, ids=lambda code: KafkaError(code).name())
def test_raised_error_may_be_that_of_one_partition(code: int) -> None:
    if code in _REPLACED:
        with pytest.raises(AssignmentLost):
            commit(None, code)
        return
    outcome = commit(None, code, lengths=(5, 6))
    assert outcome.error is not None
    assert not outcome.accepted
    assert not outcome.may_be_stored
    assert outcome.is_unknown == (code not in _REFUSED)


@pytest.mark.parametrize("code", _CODES, ids=lambda code: KafkaError(code).name())
def test_raised_error_of_single_partition(code: int) -> None:
    if code in _REPLACED:
        with pytest.raises(AssignmentLost):
            commit(code)
        return
    outcome = commit(code)
    assert not outcome.accepted
    assert outcome.is_unknown == (code not in _REFUSED | _PARTITION_REFUSED)


@pytest.mark.parametrize("code", _CODES, ids=lambda code: KafkaError(code).name())
def test_returned_error_is_that_of_its_partition(code: int) -> None:
    if code in _REPLACED:
        with pytest.raises(AssignmentLost):
            commit(None, code, returns_results=True)
        return
    outcome = commit(None, code, returns_results=True)
    is_refused = code in _REFUSED | _PARTITION_REFUSED
    assert outcome.is_unknown == (not is_refused)
    assert outcome.accepted == (frozenset({0}) if is_refused else frozenset())


def test_unknown_error_beside_refusal_is_unknown() -> None:
    codes = (None, KafkaError.ILLEGAL_GENERATION, KafkaError.REQUEST_TIMED_OUT)
    outcome = commit(*codes, lengths=(5, 5, 5), returns_results=True)
    assert outcome.is_unknown
    assert not outcome.accepted


def test_limit_of_metadata_hides_errors_of_shorter_ones() -> None:
    too_large = KafkaError.OFFSET_METADATA_TOO_LARGE
    assert not commit(too_large, too_large).is_unknown
    assert commit(too_large, too_large, lengths=(5, 6)).is_unknown


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([KafkaError.ILLEGAL_GENERATION] * 2, (False, True)),
        ([None, KafkaError.ILLEGAL_GENERATION], (True, False)),
        ([KafkaError._TIMED_OUT] * 2, (True, False)),
    ],
)
def test_late_refusal_may_follow_stored_request(
    monkeypatch: pytest.MonkeyPatch, codes: Sequence[int | None], expected: tuple[bool, bool]
) -> None:
    times = iter([0.0, 0.75])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    outcome = commit(*codes, returns_results=None in codes)
    assert (outcome.is_unknown, outcome.may_be_stored) == expected


def test_rebalance_is_error_of_outcome() -> None:
    assert isinstance(commit(KafkaError.REBALANCE_IN_PROGRESS).error, Rebalancing)


def test_commit_of_nothing_sends_nothing() -> None:
    # librdkafka would commit all stored offsets.
    assert commit_outcome.commit(None, []) == CommitOutcome()  # type: ignore[arg-type]
