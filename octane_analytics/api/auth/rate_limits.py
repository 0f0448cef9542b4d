"""Rate and concurrency limits per key, shared by all processes of one API.

The state is memory that the processes share through the fork, guarded by a lock of the kernel, which is
released when its holder dies. Rates use ATM's generic cell rate algorithm: one number per key, the time
at which its bucket will be empty. Requests in progress are counted per process, so that the count of a
killed process can be cleared.

Does not depend on what the keys stand for.
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
    """Limiter of `keys` keys and `processes` processes.

    Create it before the fork and call `attach_process` in each process. `monotonic` must be one clock
    for all processes, as Linux' is.
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

    def attach_process(self, process: int) -> None:
        """Make this process the one of that number, with no request in progress.

        Numbers after the last one share its count.
        """
        self._process = min(process, self._processes - 1)
        self.forget_process(process)

    def forget_process(self, process: int) -> None:
        """Clear the count of a process that has ended."""
        if process >= self._processes:
            return
        with self._locked():
            for index in range(self._keys):
                _COUNT.pack_into(self._memory, self._count_at(index, process), 0)

    def acquire_token(self, key: bytes, rate: TokenRate) -> float:
        """Return 0 if the request may proceed, otherwise the seconds to wait before the next try."""
        with self._locked():
            now = self._monotonic()
            index = self._index_or_new(key, now)
            if index is None:
                return 1.0
            interval = 1 / rate.per_second
            at = self._times_at + index * _TIME.size
            # A time in the past counts as now. The upper bound applies a smaller burst at once.
            empty = min(
                max(_TIME.unpack_from(self._memory, at)[0], now), now + interval * rate.burst
            )
            wait = empty + interval - interval * rate.burst - now
            if wait > 1e-9:
                return float(wait)
            _TIME.pack_into(self._memory, at, empty + interval)
            return 0.0

    def remaining(self, key: bytes, rate: TokenRate) -> tuple[int, float]:
        """Return the requests that may be sent at once now, and the seconds until all may be."""
        with self._locked():
            now, index = self._monotonic(), self._index_of(key)
            if index is None:
                return rate.burst, 0.0
            empty: float = _TIME.unpack_from(self._memory, self._times_at + index * _TIME.size)[0]
        wait = max(empty - now, 0.0)
        return max(int(rate.burst - wait * rate.per_second + 1e-9), 0), wait

    def acquire_slot(self, key: bytes, limit: int) -> bool:
        """Return whether another request may proceed; if so, call `release_slot` after it."""
        with self._locked():
            index = self._index_or_new(key, self._monotonic())
            if index is None or self._in_progress(index) >= limit:
                return False
            self._adjust_count(index, 1)
            return True

    def release_slot(self, key: bytes) -> None:
        with self._locked():
            index = self._index_of(key)
            if index is not None:
                self._adjust_count(index, -1)

    def _adjust_count(self, index: int, change: int) -> None:
        at = self._count_at(index, self._process)
        count = _COUNT.unpack_from(self._memory, at)[0] + change
        _COUNT.pack_into(self._memory, at, max(count, 0))

    def _in_progress(self, index: int) -> int:
        return sum(
            _COUNT.unpack_from(self._memory, self._count_at(index, process))[0]
            for process in range(self._processes)
        )

    def _count_at(self, index: int, process: int) -> int:
        return self._counts_at + (index * self._processes + process) * _COUNT.size

    def _index_or_new(self, key: bytes, now: float) -> int | None:
        """Return the index of the key, or a new one; None if all are in use."""
        index = self._index_of(key)
        if index is not None:
            return index
        index = self._index_of(_FREE)
        if index is None:
            index = next((n for n in range(self._keys) if self._is_reusable(n, now)), None)
        if index is not None:
            self._memory[index * KEY_BYTES : (index + 1) * KEY_BYTES] = key
            _TIME.pack_into(self._memory, self._times_at + index * _TIME.size, now)
        return index

    def _index_of(self, key: bytes) -> int | None:
        at = self._memory.find(key, 0, self._times_at)
        while at >= 0 and at % KEY_BYTES:
            at = self._memory.find(key, at + 1, self._times_at)
        return at // KEY_BYTES if at >= 0 else None

    def _is_reusable(self, index: int, now: float) -> bool:
        """Return whether the entry holds no state: its bucket is empty and no request is in progress."""
        empty: float = _TIME.unpack_from(self._memory, self._times_at + index * _TIME.size)[0]
        return empty <= now and self._in_progress(index) == 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Not flock, which forks share. It is held only to change a few bytes, and the kernel releases
        # it if the holder dies.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
