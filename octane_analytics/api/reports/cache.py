"""Size-bounded cache of complete report answers. For one event loop; does not depend on formats."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache

from octane_analytics.clickhouse.results import DataRead

_OVERHEAD_BYTES = 1_000
"""Estimated size of an entry without its key and body."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """Complete answer; `made_at` is a monotonic time, `seconds` how long it took to make.

    `read` is None if the client may not know it.
    """

    body: bytes
    media_type: str
    etag: str
    is_truncated: bool
    made_at: float
    seconds: float = 0.0
    read: DataRead | None = None


@dataclass(frozen=True, slots=True)
class _CacheEntry:
    answer: CachedAnswer
    expires_at: float
    size_bytes: int


class ReportCache:
    """Least-recently-used cache of at most `max_bytes`; skips answers larger than a quarter of it."""

    def __init__(self, max_bytes: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._max_entry_bytes = max_bytes // 4
        self._entries: TLRUCache[bytes, _CacheEntry] = TLRUCache(
            max_bytes,
            ttu=lambda _key, entry, _now: entry.expires_at,
            timer=monotonic,
            getsizeof=lambda entry: entry.size_bytes,
        )

    @property
    def size_bytes(self) -> int:
        return int(self._entries.currsize)

    def get(self, key: bytes) -> CachedAnswer | None:
        """Return the answer; None if there is none or it has expired."""
        entry = self._entries.get(key)
        return None if entry is None else entry.answer

    def put(self, key: bytes, answer: CachedAnswer, seconds: float) -> None:
        """Keep the answer until `seconds` after it was made, in place of the previous one."""
        size = len(key) + len(answer.body) + _OVERHEAD_BYTES
        self._entries.pop(key, None)
        if size <= self._max_entry_bytes:
            self._entries[key] = _CacheEntry(answer, answer.made_at + seconds, size)
