"""How many events were inserted, exactly, whenever a process is killed.

An insert and the counter that tells of it are two steps, and `kill -9` may come between them. So the
count stands beside a mark of the last batch that it holds, for each partition, and both change in one
step: whoever repeats a batch sees whether it is counted already, in its own slot's file or another's.

A file is an array of records, one for each partition. A record has two halves of three integers:

    sequence    which half is the newer; 0 while the half is being written
    rows        events inserted so far
    mark        of the last batch counted, 0 for one that had no token

A count goes into the older half, its sequence last: a single aligned word, so that a reader or a
successor sees the count before or the count after, never half of it.
"""

import contextlib
import hashlib
import mmap
import os
import struct
from pathlib import Path

_HALF = struct.Struct("=QQQ")
_WORD = struct.Struct("=Q")
_RECORD = struct.Struct("=QQQQQQ")
_RECORD_BYTES = _RECORD.size
_GROWTH_BYTES = 4096
_SUFFIX = ".tally"


class InsertedEventCounter:
    """One slot's count; the file is made where it is missing. For one process at a time."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._path = directory / f"{name}{_SUFFIX}"
        self._memory: mmap.mmap | None = None
        self._others: dict[Path, int] = {}
        self._changed_at: int | None = None
        """When the directory had last got or lost a file, as of the last look."""

    def count(self, partition: int, rows: int, token: str | None) -> bool:
        """Adds the batch unless some slot has counted it; answers whether it was added.

        Without a token a batch cannot be told from another, and is always added.
        """
        mark = 0 if token is None else mark_of(token)
        at = partition * _RECORD_BYTES
        memory = self._mapped(at + _RECORD_BYTES)
        sequence, counted, last = _newer(memory[at : at + _RECORD_BYTES])
        if mark and (last == mark or self._is_counted_elsewhere(partition, mark)):
            return False
        if _WORD.unpack_from(memory, at)[0] == sequence:
            at += _HALF.size
        memory[at : at + 8] = _WORD.pack(0)
        memory[at + 8 : at + _HALF.size] = _HALF.pack(0, counted + rows, mark)[8:]
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
                whole = max(
                    os.fstat(file.fileno()).st_size, -(-size // _GROWTH_BYTES) * _GROWTH_BYTES
                )
                file.truncate(whole)
            with self._path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), whole)
        return self._memory

    def _is_counted_elsewhere(self, partition: int, mark: int) -> bool:
        changed_at = self._directory.stat().st_mtime_ns
        if changed_at != self._changed_at:
            self._changed_at = changed_at
            for path in self._directory.glob(f"*{_SUFFIX}"):
                if path != self._path and path not in self._others:
                    with contextlib.suppress(FileNotFoundError):
                        self._others[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return any(
            _newer(record)[2] == mark
            for descriptor in self._others.values()
            if len(record := os.pread(descriptor, _RECORD_BYTES, partition * _RECORD_BYTES))
            == _RECORD_BYTES
        )


def mark_of(token: str) -> int:
    """Tells one batch from another; never 0."""
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest()) | 1


def total(directory: Path) -> int:
    """Events inserted by all slots together."""
    return sum(
        rows if sequence > of_other else other if of_other else 0
        for path in directory.glob(f"*{_SUFFIX}")
        for sequence, rows, _, of_other, other, _ in _RECORD.iter_unpack(_content(path))
    )


def reset_counts(directory: Path, role: str) -> None:
    """Counts from zero again, for a new boot; keeps which batches the last one had counted.

    What that one had counted and not completed is inserted again, and must not be counted twice.
    """
    for path in directory.glob(f"{role}-*{_SUFFIX}"):
        content = _content(path)
        records = (content[at : at + _RECORD_BYTES] for at in range(0, len(content), _RECORD_BYTES))
        fresh = path.with_suffix(".new")
        fresh.write_bytes(b"".join(_RECORD.pack(1, 0, _newer(r)[2], 0, 0, 0) for r in records))
        fresh.replace(path)


def _content(path: Path) -> bytes:
    """Whole records only."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: len(content) // _RECORD_BYTES * _RECORD_BYTES]


def _newer(record: bytes) -> tuple[int, int, int]:
    """Sequence, rows and mark of the half that was written last."""
    first: tuple[int, int, int] = _HALF.unpack_from(record)
    second: tuple[int, int, int] = _HALF.unpack_from(record, _HALF.size)
    if first[0] == second[0]:
        return 0, 0, 0  # nothing was ever counted, or the first count was cut short
    return first if first[0] > second[0] else second
