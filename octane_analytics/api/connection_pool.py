"""A bounded pool of ClickHouse connections for an event loop, each used from a thread.

Owns admission, deadlines, and the single retry that hides a restart of ClickHouse from callers. Does
not depend on the SQL that jobs run.
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
"""A failure after this time is not a stale connection: the server was running the job."""
_ABORT_RETRY_SECONDS = 0.25

T = TypeVar("T")


class PooledConnection(Protocol):
    """Interface that jobs use; `ClickHouse` implements it. Reconnects in the call after a failure."""

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
    """A submitted job, which the event loop can abandon while a thread runs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: PooledConnection | None = None
        self.is_abandoned = False

    def attach(self, connection: PooledConnection) -> None:
        with self._lock:
            if self.is_abandoned:
                raise Abandoned("abandoned before it started")
            self._connection = connection

    def detach(self) -> bool:
        """Detach the connection; return whether it can be reused."""
        with self._lock:
            self._connection = None
            return not self.is_abandoned

    def abandon(self) -> None:
        with self._lock:
            self.is_abandoned = True
            if self._connection is not None:
                self._connection.abort()


class ConnectionPool:
    """Owns its threads and connections, which are created on first use. For one event loop."""

    def __init__(
        self,
        connect: Callable[[], PooledConnection],
        *,
        size: int,
        queue_seconds: float,
        deadline_seconds: float,
        on_cancelled: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_cancelled` is called for each job that is abandoned while it runs."""
        self._connect = connect
        self._on_cancelled = on_cancelled
        self._size = size
        self._queue_seconds = queue_seconds
        self._deadline_seconds = deadline_seconds
        self._free = asyncio.Semaphore(size)
        self._idle: deque[PooledConnection] = deque()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="clickhouse")

    async def run(self, job: Callable[[PooledConnection], T]) -> T:
        """Return the job's result. The job must be repeatable, because it may run twice.

        Raises the job's exceptions, and QueryError if no connection became free in time (503) or the
        job exceeded its deadline (504). At the deadline, and if the caller is cancelled, the job is
        abandoned: its connection is closed, upon which the server cancels the query.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), self._queue_seconds)
        except TimeoutError:
            raise QueryError(
                503,
                "overloaded",
                f"{self._size} reports and queries are running already: try again later",
            ) from None
        pool_job = PoolJob()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, self._work, job, pool_job)
        future.add_done_callback(self._finish)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._deadline_seconds)
        except asyncio.CancelledError:
            self._cancel(pool_job, future)
            raise
        except TimeoutError:
            self._cancel(pool_job, future)
            raise QueryError(
                504, "timeout", f"no answer within {self._deadline_seconds:g} seconds"
            ) from None

    def _cancel(self, pool_job: PoolJob, future: asyncio.Future[T]) -> None:
        if not future.done():
            self._on_cancelled()
        _abandon(pool_job, future)

    def close(self) -> None:
        """Reject further jobs and close idle connections. Does not block."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _finish(self, future: asyncio.Future[T]) -> None:
        self._free.release()
        if not future.cancelled():
            # Else asyncio would log it as never retrieved when the caller was cancelled.
            future.exception()

    def _work(self, job: Callable[[PooledConnection], T], pool_job: PoolJob) -> T:
        connection = self._idle.pop() if self._idle else self._connect()
        started = time.monotonic()
        try:
            pool_job.attach(connection)
            return job(connection)
        except NeedsOperator:
            raise
        except Unavailable:
            if pool_job.is_abandoned or time.monotonic() - started > RETRY_WITHIN_SECONDS:
                raise
            return job(connection)
        finally:
            if pool_job.detach():
                self._idle.append(connection)
            else:
                connection.close()


def _abandon(pool_job: PoolJob, future: asyncio.Future[T]) -> None:
    """Abort, and repeat until the thread has finished: it may be about to connect."""
    if not future.done():
        pool_job.abandon()
        asyncio.get_running_loop().call_later(_ABORT_RETRY_SECONDS, _abandon, pool_job, future)
