"""Shared memory through which each child reports its status to the supervisor, one record per slot.

Each record has one writer, the child in that slot; the word beside the records is written by all
workers. Every number is one aligned word, so a reader sees the old or the new value; two numbers of a
record may stem from different iterations of the child's loop. Times are of the machine's monotonic clock
(clock_gettime(2)), which parent and child share; zero means never.
"""

import ctypes
import mmap
from dataclasses import dataclass

_ERROR_BYTES = 256


class _SharedRecord(ctypes.Structure):
    _fields_ = (
        ("heartbeat_at", ctypes.c_double),
        ("assigned_at", ctypes.c_double),
        ("flushed_at", ctypes.c_double),
        ("error_at", ctypes.c_double),
        ("events", ctypes.c_uint64),
        ("partitions", ctypes.c_int64),
        ("lag", ctypes.c_int64),
        ("held_back", ctypes.c_int64),
        ("is_waiting", ctypes.c_int64),
        ("error", ctypes.c_char * _ERROR_BYTES),
    )


@dataclass(frozen=True, slots=True)
class SlotStatusRecord:
    """Immutable copy of one slot's record."""

    heartbeat_at: float
    """Time of the last heartbeat; in the future while the child waits for ClickHouse until then."""
    assigned_at: float
    """Time of the last assignment by the group, including an empty one."""
    flushed_at: float
    error_at: float
    events: int
    """Events in inserts that ClickHouse acknowledged to this process."""
    partitions: int
    lag: int | None
    """Uncommitted messages: a worker's own partitions, or all partitions in the metrics process's
    record; None while unknown."""
    held_back: int
    """Part of `lag` that open transactions keep from every consumer."""
    is_waiting: bool
    """The child is retrying a dependency that fails."""
    error: str
    """Last error; empty if there was none."""


class SlotStatusWriter:
    """Writing side of one record. For one process at a time."""

    def __init__(self, record: _SharedRecord) -> None:
        self._record = record
        self._failing: set[str] = set()

    def heartbeat(self, now: float) -> None:
        """Record that the child's loop runs."""
        self._record.heartbeat_at = now

    def extend_deadline(self, until: float) -> None:
        """Announce that no heartbeat may follow before `until`: the child waits on purpose."""
        self._record.heartbeat_at = until

    def assigned(self, partitions: int, now: float) -> None:
        self._record.partitions = partitions
        self._record.assigned_at = now

    def set_partitions(self, partitions: int) -> None:
        self._record.partitions = partitions

    def set_lag(self, messages: int | None, held_back: int = 0) -> None:
        self._record.lag = -1 if messages is None else messages
        self._record.held_back = held_back

    def flushed(self, events: int, now: float) -> None:
        self._record.events += events
        self._record.flushed_at = now

    def failed(self, dependency: str, error: Exception, now: float) -> None:
        self._failing.add(dependency)
        self._record.is_waiting = 1
        # Cut to the field's size; a concurrent reader stops at the terminating zero byte.
        self._record.error = f"{dependency}: {error}".encode()[: _ERROR_BYTES - 1]
        self._record.error_at = now

    def resumed(self, dependency: str) -> None:
        self._failing.discard(dependency)
        self._record.is_waiting = int(bool(self._failing))


class StatusBoard:
    """Records of all slots. Created by the supervisor before it forks."""

    def __init__(self, slots: int) -> None:
        word = ctypes.sizeof(ctypes.c_int64)
        memory = mmap.mmap(-1, 2 * word + slots * ctypes.sizeof(_SharedRecord))
        self._target_workers = ctypes.c_int64.from_buffer(memory)
        self.log_confirmation = ctypes.c_uint64.from_buffer(memory, word)
        """Word of all workers; see `pipeline.log_confirmation`."""
        self._records = (_SharedRecord * slots).from_buffer(memory, 2 * word)
        self.capacity = slots

    @property
    def target_workers(self) -> int:
        """Target number of workers, numbered from 0; written by the supervisor, read by its children."""
        return self._target_workers.value

    @target_workers.setter
    def target_workers(self, number: int) -> None:
        self._target_workers.value = number

    def clear(self, slot: int) -> None:
        """Reset the record for a new process."""
        ctypes.memset(ctypes.byref(self._records[slot]), 0, ctypes.sizeof(_SharedRecord))
        self._records[slot].lag = -1

    def writer(self, slot: int) -> SlotStatusWriter:
        return SlotStatusWriter(self._records[slot])

    def read(self, slot: int) -> SlotStatusRecord:
        record = self._records[slot]
        return SlotStatusRecord(
            heartbeat_at=record.heartbeat_at,
            assigned_at=record.assigned_at,
            flushed_at=record.flushed_at,
            error_at=record.error_at,
            events=record.events,
            partitions=record.partitions,
            lag=None if record.lag < 0 else record.lag,
            held_back=record.held_back,
            is_waiting=bool(record.is_waiting),
            error=record.error.decode(errors="ignore"),
        )
