"""What each worker tells its supervisor: one record a slot, in memory that parent and child share.

Each record has one writer, the child in that slot, and every number is one aligned word: a reader sees
the value before or after, and two numbers may be a turn of the loop apart. Times are of the machine's
monotonic clock (clock_gettime(2)), so that parent and child may compare them; zero is never.
"""

import ctypes
import mmap
from dataclasses import dataclass

_ERROR_BYTES = 256


class _Record(ctypes.Structure):
    _fields_ = (
        ("beat_at", ctypes.c_double),
        ("assigned_at", ctypes.c_double),
        ("flushed_at", ctypes.c_double),
        ("error_at", ctypes.c_double),
        ("events", ctypes.c_uint64),
        ("partitions", ctypes.c_int64),
        ("lag", ctypes.c_int64),
        ("held_back", ctypes.c_int64),
        ("waits", ctypes.c_int64),
        ("error", ctypes.c_char * _ERROR_BYTES),
    )


@dataclass(frozen=True, slots=True)
class SlotStatusRecord:
    """One slot at one moment."""

    beat_at: float
    """When the loop last turned, or in the future while it waits for ClickHouse until then at most."""
    assigned_at: float
    """When the group last gave it an assignment, be it an empty one."""
    flushed_at: float
    error_at: float
    events: int
    """In inserts that ClickHouse has acknowledged to this process."""
    partitions: int
    lag: int | None
    """Messages that the group has not committed: of its partitions, or of all where the metrics process
    reports; None while that is not known."""
    held_back: int
    """Those of `lag` that open transactions keep from every consumer."""
    waits: bool
    """For a dependency that fails, on purpose."""
    error: str
    """The last one, empty where there was none."""


class SlotStatusWriter:
    """The writing side. For one process at a time."""

    def __init__(self, record: _Record) -> None:
        self._record = record
        self._failing: set[str] = set()

    def heartbeat(self, now: float) -> None:
        """The loop has turned."""
        self._record.beat_at = now

    def extend_deadline(self, then: float) -> None:
        """The loop will not turn for so long perhaps, on purpose."""
        self._record.beat_at = then

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
        self._record.waits = 1
        # Cut to what fits; the zero byte ends it for a reader in between.
        self._record.error = f"{dependency}: {error}".encode()[: _ERROR_BYTES - 1]
        self._record.error_at = now

    def resumed(self, dependency: str) -> None:
        self._failing.discard(dependency)
        self._record.waits = int(bool(self._failing))


class StatusBoard:
    """All slots' records. Made by the supervisor before it forks."""

    def __init__(self, slots: int) -> None:
        word = ctypes.sizeof(ctypes.c_int64)
        memory = mmap.mmap(-1, word + slots * ctypes.sizeof(_Record))
        self._workers = ctypes.c_int64.from_buffer(memory)
        self._records = (_Record * slots).from_buffer(memory, word)
        self.capacity = slots

    @property
    def workers(self) -> int:
        """How many there are to be, numbered from 0; set by the supervisor, read by its children."""
        return self._workers.value

    @workers.setter
    def workers(self, number: int) -> None:
        self._workers.value = number

    def clear(self, slot: int) -> None:
        """For a new process in the slot."""
        ctypes.memset(ctypes.byref(self._records[slot]), 0, ctypes.sizeof(_Record))
        self._records[slot].lag = -1

    def writer(self, slot: int) -> SlotStatusWriter:
        return SlotStatusWriter(self._records[slot])

    def read(self, slot: int) -> SlotStatusRecord:
        record = self._records[slot]
        return SlotStatusRecord(
            beat_at=record.beat_at,
            assigned_at=record.assigned_at,
            flushed_at=record.flushed_at,
            error_at=record.error_at,
            events=record.events,
            partitions=record.partitions,
            lag=None if record.lag < 0 else record.lag,
            held_back=record.held_back,
            waits=bool(record.waits),
            error=record.error.decode(errors="ignore"),
        )
