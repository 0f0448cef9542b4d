"""Count of inserted events: exact at any moment at which a process may be killed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.telemetry import inserted_counter
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter


def test_batch_is_counted_once(tmp_path: Path) -> None:
    counter = InsertedEventCounter(tmp_path, "worker-0")
    assert counter.count_batch({3: 10}, "a")
    assert not counter.count_batch({3: 10}, "a")
    assert counter.count_batch({3: 5}, "b")
    assert counter.count_batch({0: 5}, "c")
    assert inserted_counter.total(tmp_path) == 20


def test_batch_without_a_token_is_always_counted(tmp_path: Path) -> None:
    counter = InsertedEventCounter(tmp_path, "worker-0")
    assert counter.count_batch({0: 1}, None)
    assert counter.count_batch({0: 1}, None)
    assert inserted_counter.total(tmp_path) == 2


def test_successor_in_the_slot_continues_the_count(tmp_path: Path) -> None:
    InsertedEventCounter(tmp_path, "worker-0").count_batch({1: 10}, "a")
    successor = InsertedEventCounter(tmp_path, "worker-0")
    assert not successor.count_batch({1: 10}, "a")
    assert successor.count_batch({1: 7}, "b")
    assert inserted_counter.total(tmp_path) == 17


def test_batch_counted_in_another_slot_is_recognized(tmp_path: Path) -> None:
    first, second = (
        InsertedEventCounter(tmp_path, "worker-0"),
        InsertedEventCounter(tmp_path, "worker-1"),
    )
    first.count_batch({1: 10}, "a")
    assert not second.count_batch({1: 10}, "a")
    assert second.count_batch({1: 7}, "b")
    assert not first.count_batch({1: 7}, "b"), "a former owner repeats a batch"
    assert inserted_counter.total(tmp_path) == 17


@given(
    counts=st.lists(
        st.tuples(st.integers(0, 2), st.sets(st.integers(0, 9), min_size=1), st.sampled_from("ab")),
        max_size=12,
    )
)
def test_batch_is_counted_once_in_any_slot(
    counts: list[tuple[int, set[int], str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("counts")
    slots = [InsertedEventCounter(directory, f"worker-{number}") for number in range(3)]
    last: dict[tuple[int, int], str] = {}
    expected = 0
    for slot, partitions, token in counts:
        new = {p for p in partitions if token not in {last.get((s, p)) for s in range(3)}}
        assert slots[slot].count_batch(dict.fromkeys(partitions, 1), token) is bool(new)
        last |= {(slot, p): token for p in new}
        expected += len(new)
    for counter in slots:
        counter.close()
    assert inserted_counter.total(directory) == expected


def test_each_partition_of_batch_is_counted_once(tmp_path: Path) -> None:
    first, second = (
        InsertedEventCounter(tmp_path, "worker-0"),
        InsertedEventCounter(tmp_path, "worker-1"),
    )
    first.count_batch({0: 3, 2: 5}, "a")
    # Killed before partition 4: its next owners complete what it had inserted.
    assert second.count_batch({2: 5, 4: 7}, "a")
    assert not second.count_batch({2: 5, 4: 7}, "a")
    assert not first.count_batch({0: 3}, "a")
    assert inserted_counter.total(tmp_path) == 15


def test_partitions_far_apart_share_a_file(tmp_path: Path) -> None:
    counter = InsertedEventCounter(tmp_path, "worker-0")
    assert counter.count_batch({0: 1}, "a")
    assert counter.count_batch({5000: 2}, "b")
    assert counter.count_batch({0: 4}, "c")
    assert inserted_counter.total(tmp_path) == 7


def test_reset_keeps_the_digests_of_counted_batches(tmp_path: Path) -> None:
    counter = InsertedEventCounter(tmp_path, "worker-0")
    counter.count_batch({0: 1}, "other")
    counter.count_batch({200: 10}, "a")
    inserted_counter.reset_counts(tmp_path, "worker")
    assert inserted_counter.total(tmp_path) == 0
    successor = InsertedEventCounter(tmp_path, "worker-1")
    assert not successor.count_batch({200: 10}, "a")
    assert successor.count_batch({200: 5}, "b")
    assert inserted_counter.total(tmp_path) == 5


@given(
    batches=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    written=st.integers(0, 24),
)
def test_interrupted_count_is_complete_or_absent(
    tmp_path_factory: object, batches: list[int], written: int
) -> None:
    """Simulate a kill after any byte of the last record's write."""
    directory = tmp_path_factory.mktemp("tally")  # type: ignore[attr-defined]
    counter = InsertedEventCounter(directory, "worker-0")
    for number, rows in enumerate(batches[:-1]):
        counter.count_batch({0: rows}, f"{number}")
    path = directory / "worker-0.tally"
    before = path.read_bytes() if path.exists() else b""
    counter.count_batch({0: batches[-1]}, "last")
    after = path.read_bytes()
    before = before.ljust(len(after), b"\0")
    at = 0 if before[:24] != after[:24] else 24
    partial = bytearray(before)
    # Order of the writes: sequence cleared, rows and digest, sequence.
    if written:
        partial[at : at + 8] = bytes(8)
        partial[at + 8 : at + 8 + min(16, written)] = after[at + 8 : at + 8 + min(16, written)]
    if written > 16:
        partial[at : at + 8] = after[at : at + 8]
    path.write_bytes(partial)
    was_counted = written > 16
    assert inserted_counter.total(directory) == sum(batches[:-1]) + (
        batches[-1] if was_counted else 0
    )
    successor = InsertedEventCounter(directory, "worker-0")
    assert successor.count_batch({0: batches[-1]}, "last") is not was_counted
    assert inserted_counter.total(directory) == sum(batches)
