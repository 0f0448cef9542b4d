"""Bounded transfer of chunks of bytes from a thread to the event loop that sends them.

A small response is buffered completely, so that an error in the middle can still set the HTTP status. A
larger one is streamed, and the thread waits for the reader. Does not depend on the content.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from octane_analytics.errors import OctaneError

MAX_BUFFERED_BYTES = 1 << 20
"""Size up to which a response is buffered completely."""
_MAX_QUEUED_CHUNKS = 4
"""Number of chunks that may wait to be sent."""


class StreamBroken(OctaneError):
    """A streamed response failed in the middle; the connection has to be closed."""


class _ReaderGone(Exception):
    """The reader has stopped reading."""


class ChunkStream:
    """One response. The thread calls `begin`, `put` and `body`; the rest is for the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffered: list[bytes] = []
        self._size = 0
        self._room = threading.Semaphore(_MAX_QUEUED_CHUNKS)
        self._is_abandoned = threading.Event()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.overflowed: asyncio.Future[None] = self._loop.create_future()
        """Done once the response exceeds `MAX_BUFFERED_BYTES`."""
        self._is_streaming = False

    def begin(self) -> None:
        """Start the response, or restart it when the job is repeated.

        Raises StreamBroken if a part has been streamed already.
        """
        if self._is_streaming:
            raise StreamBroken("ClickHouse failed in the middle of a streamed answer")
        self._buffered, self._size = [], 0

    def put(self, chunk: bytes) -> None:
        """Add a chunk. Blocks while the queue is full. Raises _ReaderGone after `abandon`."""
        if self._is_abandoned.is_set():
            raise _ReaderGone
        if not chunk:
            return
        if self._is_streaming:
            self._send(chunk)
            return
        self._buffered.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_BUFFERED_BYTES:
            self._is_streaming = True
            first, self._buffered = b"".join(self._buffered), []
            self._send(first)
            self._loop.call_soon_threadsafe(self._overflow)

    def body(self) -> bytes | None:
        """Return the complete response after the last chunk; None if it was streamed."""
        return None if self._is_streaming else b"".join(self._buffered)

    def _send(self, chunk: bytes) -> None:
        self._room.acquire()
        if self._is_abandoned.is_set():
            raise _ReaderGone
        self._loop.call_soon_threadsafe(self._queue.put_nowait, chunk)

    def _overflow(self) -> None:
        if not self.overflowed.done():
            self.overflowed.set_result(None)

    def abandon(self) -> None:
        """Stop reading, which ends the thread's work at its next chunk."""
        self._is_abandoned.set()
        self._room.release()

    async def read(self, work: "asyncio.Future[Any]") -> AsyncIterator[bytes]:
        """Yield the chunks until `work` is done. Raises StreamBroken if it failed."""
        work.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (chunk := await self._queue.get()) is not None:
                yield chunk
                self._room.release()
            if work.cancelled():
                raise StreamBroken("the response was cancelled in the middle")
            error = work.exception()
            if error is not None:
                raise StreamBroken(f"the response broke off in the middle: {error}") from error
        finally:
            self.abandon()
            work.cancel()


class Stream:
    """A large response that is being streamed. Read it once, or abandon it."""

    def __init__(
        self, chunk_stream: ChunkStream, work: "asyncio.Future[Any]", media_type: str
    ) -> None:
        self._chunk_stream = chunk_stream
        self._work = work
        self.media_type = media_type

    def chunks(self) -> AsyncIterator[bytes]:
        return self._chunk_stream.read(self._work)

    def abandon(self) -> None:
        self._chunk_stream.abandon()
        self._work.cancel()
