"""From a thread that makes chunks of bytes to an event loop that sends them, in bounded memory.

A small answer is gathered and handed over whole, so that an error in the middle can still become an
error's status. A larger one streams: the thread then waits for whoever reads. Refuses to know what the
bytes are.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from octane_analytics.errors import OctaneError

WHOLE_BYTES = 1 << 20
"""An answer up to this size is whole."""
_CHUNKS = 4
"""How many chunks may wait to be sent."""


class StreamBroken(OctaneError):
    """The answer ended before its end: all that can be done is to cut the connection."""


class _ReaderGone(Exception):
    """Nobody reads any more."""


class ChunkStream:
    """One answer's way. `put` and `body` are for the thread, the rest is for the loop it is made in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._size = 0
        self._room = threading.Semaphore(_CHUNKS)
        self._is_abandoned = threading.Event()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.overflowed: asyncio.Future[None] = self._loop.create_future()
        """Done once there is more than a whole answer may have."""
        self._is_streaming = False

    def begin(self) -> None:
        """Called before the first chunk: a job that is repeated begins anew.

        Raises StreamBroken where some of it is on its way already.
        """
        if self._is_streaming:
            raise StreamBroken("ClickHouse failed in the middle of a streamed answer")
        self._gathered, self._size = [], 0

    def put(self, chunk: bytes) -> None:
        """Blocks while the reader is behind. Raises where nobody reads any more."""
        if self._is_abandoned.is_set():
            raise _ReaderGone
        if not chunk:
            return
        if self._is_streaming:
            self._send(chunk)
            return
        self._gathered.append(chunk)
        self._size += len(chunk)
        if self._size > WHOLE_BYTES:
            self._is_streaming = True
            first, self._gathered = b"".join(self._gathered), []
            self._send(first)
            self._loop.call_soon_threadsafe(self._overflow)

    def body(self) -> bytes | None:
        """After the last chunk: the whole answer; None where it has been streamed."""
        return None if self._is_streaming else b"".join(self._gathered)

    def _send(self, chunk: bytes) -> None:
        self._room.acquire()
        if self._is_abandoned.is_set():
            raise _ReaderGone
        self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)

    def _overflow(self) -> None:
        if not self.overflowed.done():
            self.overflowed.set_result(None)

    def abandon(self) -> None:
        """Nobody reads any more: ends the thread's work at its next chunk."""
        self._is_abandoned.set()
        self._room.release()

    async def read(self, work: "asyncio.Future[Any]") -> AsyncIterator[bytes]:
        """The chunks as they come, until `work` is done. Raises StreamBroken where that failed."""
        work.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (chunk := await self._queue.get()) is not None:
                yield chunk
                self._room.release()
            if work.cancelled():
                raise StreamBroken("the answer was cancelled in the middle")
            error = work.exception()
            if error is not None:
                raise StreamBroken(f"the answer broke off in the middle: {error}") from error
        finally:
            self.abandon()
            work.cancel()


class Stream:
    """A large answer that is on its way. To be read once, or abandoned."""

    def __init__(self, conduit: ChunkStream, work: "asyncio.Future[Any]", media_type: str) -> None:
        self._conduit = conduit
        self._work = work
        self.media_type = media_type

    def chunks(self) -> AsyncIterator[bytes]:
        return self._conduit.read(self._work)

    def abandon(self) -> None:
        self._conduit.abandon()
        self._work.cancel()
