"""Confirmations of the topic's identity that workers of one host share."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.pipeline.log_confirmation import FRESH_SECONDS, LogConfirmation, OwnWord
from octane_analytics.types import LogIdentity
from tests.fakes.kafka import TOPIC
from tests.support.ingest_rig import LOG, Rig, names, once

_TIMES = st.floats(0, 2**40)


def confirmation(topic: str = TOPIC, word: ctypes.c_uint64 | None = None) -> LogConfirmation:
    return LogConfirmation(topic, OwnWord() if word is None else word)


def test_nothing_is_fresh_before_an_answer() -> None:
    assert not confirmation().is_fresh(LOG, 0.0)
    assert not confirmation(word=ctypes.c_uint64()).is_fresh(LOG, 12.5)


@given(asked_at=_TIMES, age=st.floats(0, FRESH_SECONDS - 0.002))
def test_answer_counts_for_every_reader(asked_at: float, age: float) -> None:
    word = ctypes.c_uint64()
    confirmation(word=word).record(LOG, asked_at)
    assert confirmation(word=word).is_fresh(LOG, asked_at + age)


@given(asked_at=_TIMES, age=st.floats(FRESH_SECONDS + 0.002, 1e9) | st.floats(-1e9, -0.002))
def test_old_and_future_answers_do_not_count(asked_at: float, age: float) -> None:
    shared = confirmation()
    shared.record(LOG, asked_at)
    assert not shared.is_fresh(LOG, max(0.0, asked_at + age)) or asked_at + age < 0


@given(other=st.builds(LogIdentity, st.text(), st.text(), st.text()), asked_at=_TIMES)
def test_answer_about_another_log_does_not_count(other: LogIdentity, asked_at: float) -> None:
    word = ctypes.c_uint64()
    confirmation(word=word).record(other, asked_at)
    assert not confirmation(word=word).is_fresh(LOG, asked_at) or other == LOG
    assert not confirmation("another", word).is_fresh(other, asked_at)


@pytest.mark.parametrize(("age", "requests"), [(0.5, 1), (FRESH_SECONDS + 0.1, 2)])
def test_workers_share_answers(age: float, requests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(size=2, partitions=2)
    workers = rig.worker(), rig.worker()
    rig.settle(*workers)
    for worker in workers:
        worker.turn(3)  # both have a partition
    rig.clock.sleep(FRESH_SECONDS)
    asked = []

    def identity(topic: str) -> LogIdentity:
        asked.append(topic)
        return LOG

    for number, worker in enumerate(workers):
        monkeypatch.setattr(worker.source, "log_identity", identity)
        for partition in worker.source.assignment:
            rig.produce(4 * number, 4 * number + 4, partition.partition)
    workers[0].turn(1)
    rig.clock.sleep(age)
    workers[1].turn(1)
    assert rig.table.count() == once(names(0, 8))
    assert len(asked) == requests
