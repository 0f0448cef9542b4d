"""Exact count of inserted events, correct at any moment at which a process may be killed.

An insert and its count are two steps, and `kill -9` may come between them. The count is therefore stored
with a digest of the last counted batch's token, per partition, and both change in one step: a process
that repeats a batch finds out for each of its partitions whether it was counted, in its own slot's file
or in another's. Of a batch with several partitions each is counted by the worker that completes it.

A file is an array of records, one per partition. A record has two halves of three integers:

    sequence    the half with the higher one is current; 0 while the half is being written
    rows        events inserted so far
    digest      of the last counted batch's token, 0 for a batch without one

A count is written to the older half, its sequence last. The sequence is one aligned word, so a reader or
a successor sees the count before or the count after, never a part of it.
"""

import contextlib
import hashlib
import mmap
import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

_HALF = struct.Struct("=QQQ")
_WORD = struct.Struct("=Q")
_RECORD = struct.Struct("=QQQQQQ")
_RECORD_BYTES = _RECORD.size
_GROWTH_BYTES = 4096
_SUFFIX = ".tally"


class InsertedEventCounter:
    """Counter of one slot, kept in a file that is created if missing. For one process at a time."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._path = directory / f"{name}{_SUFFIX}"
        self._memory: mmap.mmap | None = None
        self._others: dict[Path, int] = {}
        self._directory_mtime: int | None = None
        """Modification time of the directory, in nanoseconds, when it was last listed."""

    def count_batch(self, rows_by_partition: Mapping[int, int], token: str | None) -> bool:
        """Add the rows of partitions that no slot has counted; return whether there was one.

        A batch without a token cannot be recognized and is always added.
        """
        if not rows_by_partition:
            return True
        digest = 0 if token is None else token_digest(token)
        counted = self._counted_elsewhere(rows_by_partition, digest) if digest else frozenset()
        added = [
            self._count(partition, rows, digest)
            for partition, rows in rows_by_partition.items()
            if partition not in counted
        ]
        return any(added)

    def _count(self, partition: int, rows: int, digest: int) -> bool:
        at = partition * _RECORD_BYTES
        memory = self._mapped(at + _RECORD_BYTES)
        sequence, counted, last = _current_half(memory[at : at + _RECORD_BYTES])
        if digest and last == digest:
            return False
        if _WORD.unpack_from(memory, at)[0] == sequence:
            at += _HALF.size
        memory[at : at + 8] = _WORD.pack(0)
        memory[at + 8 : at + _HALF.size] = _HALF.pack(0, counted + rows, digest)[8:]
        memory[at : at + 8] = _WORD.pack(sequence + 1)
        return True

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        for descriptor in self._others.values():
            os.close(descriptor)
        self._others.clear()

    def _mapped(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            with self._path.open("ab") as file:
                file_bytes = max(
                    os.fstat(file.fileno()).st_size, -(-size // _GROWTH_BYTES) * _GROWTH_BYTES
                )
                file.truncate(file_bytes)
            with self._path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), file_bytes)
        return self._memory

    def _open_others(self) -> None:
        directory_mtime = self._directory.stat().st_mtime_ns
        if directory_mtime != self._directory_mtime:
            self._directory_mtime = directory_mtime
            for path in self._directory.glob(f"*{_SUFFIX}"):
                if path != self._path and path not in self._others:
                    with contextlib.suppress(FileNotFoundError):
                        self._others[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _counted_elsewhere(self, partitions: Collection[int], digest: int) -> frozenset[int]:
        """Return the partitions whose last counted batch in another slot has the digest.

        One read of each slot's file: one for each partition took four times as long.
        """
        self._open_others()
        first = min(partitions) * _RECORD_BYTES
        size = (max(partitions) + 1) * _RECORD_BYTES - first
        found = set()
        for descriptor in self._others.values():
            content = os.pread(descriptor, size, first)
            if _WORD.pack(digest) not in content:
                continue  # as of every batch that was not recovered: not a look at each record
            for partition in partitions:
                at = partition * _RECORD_BYTES - first
                record = content[at : at + _RECORD_BYTES]
                if len(record) == _RECORD_BYTES and _current_half(record)[2] == digest:
                    found.add(partition)
        return frozenset(found)


def token_digest(token: str) -> int:
    """Return 64 bits that identify the batch; never 0."""
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest()) | 1


def total(directory: Path) -> int:
    """Return the number of events that all slots have inserted."""
    return sum(
        rows if sequence > other_sequence else other_rows if other_sequence else 0
        for path in directory.glob(f"*{_SUFFIX}")
        for sequence, rows, _, other_sequence, other_rows, _ in _RECORD.iter_unpack(
            _read_records(path)
        )
    )


def reset_counts(directory: Path, role: str) -> None:
    """Reset the counts of the role's slots to zero for a new start, and keep the digests.

    Batches that the previous start counted and did not complete are inserted again and must not be
    counted twice.
    """
    for path in directory.glob(f"{role}-*{_SUFFIX}"):
        content = _read_records(path)
        records = (content[at : at + _RECORD_BYTES] for at in range(0, len(content), _RECORD_BYTES))
        new = path.with_suffix(".new")
        new.write_bytes(b"".join(_RECORD.pack(1, 0, _current_half(r)[2], 0, 0, 0) for r in records))
        new.replace(path)


def _read_records(path: Path) -> bytes:
    """Return the file's complete records; empty if the file does not exist."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: len(content) // _RECORD_BYTES * _RECORD_BYTES]


def _current_half(record: bytes) -> tuple[int, int, int]:
    """Return sequence, rows and digest of the half that was written last."""
    first: tuple[int, int, int] = _HALF.unpack_from(record)
    second: tuple[int, int, int] = _HALF.unpack_from(record, _HALF.size)
    if first[0] == second[0]:
        return 0, 0, 0  # nothing was counted, or the first write was interrupted
    return first if first[0] > second[0] else second
