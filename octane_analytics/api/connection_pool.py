"""A bounded pool of ClickHouse connections for an event loop, each with a thread while it works.

Owns who may run when, deadlines, and the one retry that spares a caller ClickHouse's restarts; refuses
to know what is run.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from octane_analytics.clickhouse.results import Excerpt, Result, RowStream
from octane_analytics.errors import Abandoned, NeedsOperator, QueryError, Unavailable

RETRY_WITHIN_SECONDS = 1.0
"""A failure that comes later than this was no stale connection: the server was at work on the job."""
_ABORT_AGAIN_SECONDS = 0.25

T = TypeVar("T")


class PooledConnection(Protocol):
    """What a job gets; `ClickHouse` satisfies it. Heals itself: a call after a failure connects anew."""

    def select(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
    ) -> Result: ...

    def stream(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object] | None = None,
        query_id: str | None = None,
        max_block_bytes: int | None = None,
    ) -> AbstractContextManager[RowStream]: ...

    def excerpt(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        *,
        settings: Mapping[str, object],
        max_rows: int,
        max_bytes: int,
    ) -> Excerpt: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class PoolJob:
    """One job on its way, so that it can be given up from the event loop while a thread works on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: PooledConnection | None = None
        self.is_abandoned = False

    def begin(self, connection: PooledConnection) -> None:
        with self._lock:
            if self.is_abandoned:
                raise Abandoned("given up before it began")
            self._connection = connection

    def end(self) -> bool:
        """Whether the connection can be used again."""
        with self._lock:
            self._connection = None
            return not self.is_abandoned

    def abandon(self) -> None:
        with self._lock:
            self.is_abandoned = True
            if self._connection is not None:
                self._connection.abort()


class ConnectionPool:
    """Owns its threads and connections, which are made when first needed. For one event loop."""

    def __init__(
        self,
        connect: Callable[[], PooledConnection],
        *,
        size: int,
        queue_seconds: float,
        deadline_seconds: float,
        on_cancelled: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_cancelled` is told of each job that is given up while it is under way."""
        self._connect = connect
        self._on_cancelled = on_cancelled
        self._size = size
        self._queue_seconds = queue_seconds
        self._deadline_seconds = deadline_seconds
        self._free = asyncio.Semaphore(size)
        self._idle: deque[PooledConnection] = deque()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="clickhouse")

    async def run(self, job: Callable[[PooledConnection], T]) -> T:
        """The job's result; it must be one that can be repeated, for it may run twice.

        Raises what the job raises, and QueryError where no connection got free in time (503) or the
        job took too long (504). It is then given up, as it is when the caller is cancelled: its
        connection is cut, at which the server cancels the query.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), self._queue_seconds)
        except TimeoutError:
            raise QueryError(
                503,
                "overloaded",
                f"{self._size} reports and queries are running already: try again later",
            ) from None
        errand = PoolJob()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, self._work, job, errand)
        future.add_done_callback(self._finish)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._deadline_seconds)
        except asyncio.CancelledError:
            self._cancel(errand, future)
            raise
        except TimeoutError:
            self._cancel(errand, future)
            raise QueryError(
                504, "timeout", f"no answer within {self._deadline_seconds:g} seconds"
            ) from None

    def _cancel(self, errand: PoolJob, future: asyncio.Future[T]) -> None:
        if not future.done():
            self._on_cancelled()
        _abandon(errand, future)

    def close(self) -> None:
        """Takes no more jobs and closes what is idle; blocks on nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _finish(self, future: asyncio.Future[T]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # so that nobody complains if the caller has gone

    def _work(self, job: Callable[[PooledConnection], T], errand: PoolJob) -> T:
        connection = self._idle.pop() if self._idle else self._connect()
        started = time.monotonic()
        try:
            errand.begin(connection)
            return job(connection)
        except NeedsOperator:
            raise
        except Unavailable:
            if errand.is_abandoned or time.monotonic() - started > RETRY_WITHIN_SECONDS:
                raise
            return job(connection)
        finally:
            if errand.end():
                self._idle.append(connection)
            else:
                connection.close()


def _abandon(errand: PoolJob, future: asyncio.Future[T]) -> None:
    """Again and again until the thread is done: it may be just about to connect."""
    if not future.done():
        errand.abandon()
        asyncio.get_running_loop().call_later(_ABORT_AGAIN_SECONDS, _abandon, errand, future)
