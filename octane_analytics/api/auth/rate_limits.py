"""How often and how many at once: limits per key that all processes of one API keep together.

The state is memory that the processes share through the fork. A lock of the kernel's guards it, which
a process that dies gives back. Rates are kept as in ATM's generic cell rate algorithm: one number per
key, the time at which its bucket will be empty again. Requests under way are counted per process, so
that what one had under way that was killed can be forgotten.

Owns the arithmetic and the memory; refuses to know what is limited.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator

from octane_analytics.api.auth.tokens import TokenRate

KEY_BYTES = 16
_FREE = bytes(KEY_BYTES)
_TIME = struct.Struct("=d")
_COUNT = struct.Struct("=H")


class RateLimiter:
    """To be made before the fork; `open` in each process. Holds `keys` keys, for `processes` processes.

    `monotonic` must be one clock for all processes, as Linux' is.
    """

    def __init__(
        self, *, keys: int, processes: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._processes = processes
        self._monotonic = monotonic
        self._times_at = keys * KEY_BYTES
        self._counts_at = self._times_at + keys * _TIME.size
        size = self._counts_at + keys * processes * _COUNT.size
        self._file = os.memfd_create("octane-analytics-rates")
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        self._process = 0

    def open(self, process: int) -> None:
        """This process is from now on the one of that number, and has nothing under way.

        Those beyond the last number share the last one's count.
        """
        self._process = min(process, self._processes - 1)
        self.forget(process)

    def forget(self, process: int) -> None:
        """The process of that number has ended; what it had under way is so no more."""
        if process >= self._processes:
            return
        with self._locked():
            for slot in range(self._keys):
                _COUNT.pack_into(self._memory, self._count_at(slot, process), 0)

    def acquire_token(self, key: bytes, rate: TokenRate) -> float:
        """0 for a request that may go on; otherwise the seconds after which to try again."""
        with self._locked():
            now = self._monotonic()
            slot = self._slot(key, now)
            if slot is None:
                return 1.0
            interval = 1 / rate.per_second
            at = self._times_at + slot * _TIME.size
            # Of an earlier time nothing is left, nor of what a larger burst had let through.
            empty = min(
                max(_TIME.unpack_from(self._memory, at)[0], now), now + interval * rate.burst
            )
            wait = empty + interval - interval * rate.burst - now
            if wait > 1e-9:
                return float(wait)
            _TIME.pack_into(self._memory, at, empty + interval)
            return 0.0

    def acquire_slot(self, key: bytes, limit: int) -> bool:
        """Whether one more may be under way; if so, `leave` it."""
        with self._locked():
            slot = self._slot(key, self._monotonic())
            if slot is None or self._under_way(slot) >= limit:
                return False
            self._add(slot, 1)
            return True

    def release_slot(self, key: bytes) -> None:
        with self._locked():
            slot = self._find(key)
            if slot is not None:
                self._add(slot, -1)

    def _add(self, slot: int, change: int) -> None:
        at = self._count_at(slot, self._process)
        count = _COUNT.unpack_from(self._memory, at)[0] + change
        _COUNT.pack_into(self._memory, at, max(count, 0))

    def _under_way(self, slot: int) -> int:
        return sum(
            _COUNT.unpack_from(self._memory, self._count_at(slot, process))[0]
            for process in range(self._processes)
        )

    def _count_at(self, slot: int, process: int) -> int:
        return self._counts_at + (slot * self._processes + process) * _COUNT.size

    def _slot(self, key: bytes, now: float) -> int | None:
        """The key's, or a new one; None where all are in use."""
        slot = self._find(key)
        if slot is not None:
            return slot
        slot = self._find(_FREE)
        if slot is None:
            slot = next((n for n in range(self._keys) if self._is_spent(n, now)), None)
        if slot is not None:
            self._memory[slot * KEY_BYTES : (slot + 1) * KEY_BYTES] = key
            _TIME.pack_into(self._memory, self._times_at + slot * _TIME.size, now)
        return slot

    def _find(self, key: bytes) -> int | None:
        at = self._memory.find(key, 0, self._times_at)
        while at >= 0 and at % KEY_BYTES:
            at = self._memory.find(key, at + 1, self._times_at)
        return at // KEY_BYTES if at >= 0 else None

    def _is_spent(self, slot: int, now: float) -> bool:
        """Whether nothing would be forgotten with it."""
        empty: float = _TIME.unpack_from(self._memory, self._times_at + slot * _TIME.size)[0]
        return empty <= now and self._under_way(slot) == 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Not flock, which the forks of one process share. Nobody holds it for longer than it takes to
        # change a few bytes; the kernel gives it back for one who dies.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
