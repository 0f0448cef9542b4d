"""Answers that may be used again, and requests that wait for one and the same answer.

For one event loop. Owns age, size and who waits for whom; refuses to know what an answer is made of.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

_OVERHEAD_BYTES = 1_000
"""What an entry takes beside its body and key, roughly."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer that is all there. `made_at` is monotonic."""

    body: bytes
    media_type: str
    etag: str
    is_truncated: bool
    made_at: float


class ReportCache:
    """Keeps what was asked for last, up to `max_bytes`; an answer larger than a quarter of that is not
    kept at all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, tuple[CachedAnswer, float]] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes, now: float) -> CachedAnswer | None:
        """None where there is none, or where it is too old by now."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        whole, until = entry
        if now >= until:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return whole

    def put(self, key: bytes, whole: CachedAnswer, seconds: float) -> None:
        """Keeps it until `seconds` after it was made."""
        if key in self._kept:
            self._drop(key)
        size = _size(key, whole)
        if size > self._max_bytes // 4 or seconds <= 0:
            return
        self._kept[key] = (whole, whole.made_at + seconds)
        self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        whole, _ = self._kept.pop(key)
        self.size_bytes -= _size(key, whole)


def _size(key: bytes, whole: CachedAnswer) -> int:
    return len(key) + len(whole.body) + _OVERHEAD_BYTES


T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Work that is under way, by key: who asks for the same waits for the same.

    What is no Whole can have one taker only: the first who asked gets it, the others get None and
    have to work for themselves.
    """

    def __init__(self) -> None:
        self._flights: dict[bytes, _SharedQuery[T]] = {}

    async def join(self, key: bytes, work: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """The work's result, and whether it was somebody else who had begun it.

        Raises what the work raises. It is cancelled when the last of those who wait for it is.
        """
        flight = self._flights.get(key)
        is_shared = flight is not None
        if flight is None:
            task = asyncio.ensure_future(work())
            flight = self._flights[key] = _SharedQuery(task)
            task.add_done_callback(lambda _: self._land(key, task))
        flight.waiting += 1
        try:
            result = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                del self._flights[key]
        if isinstance(result, CachedAnswer):
            return result, is_shared
        if flight.is_taken:
            return None, is_shared
        flight.is_taken = True
        return result, is_shared

    def _land(self, key: bytes, task: "asyncio.Future[T]") -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # so that nobody complains where all who waited have gone


@dataclass(slots=True)
class _SharedQuery(Generic[T]):
    task: "asyncio.Future[T]"
    waiting: int = 0
    is_taken: bool = False
