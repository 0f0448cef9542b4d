"""A bounded pool of ClickHouse connections for an event loop, each with a thread while it works.

Owns who may run when, deadlines, and the one retry that spares a caller ClickHouse's restarts; refuses
to know what is run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from octane_analytics.clickhouse import Result, RowStream
from octane_analytics.errors import NeedsOperator, QueryError, Unavailable

RETRY_WITHIN_SECONDS = 1.0
"""A failure that comes later than this was no stale connection: the server was at work on the job."""

T = TypeVar("T")


class Connection(Protocol):
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
    ) -> AbstractContextManager[RowStream]: ...

    def close(self) -> None: ...


class Pool:
    """Owns its threads and connections, which are made when first needed. For one event loop."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        size: int,
        queue_seconds: float,
        deadline_seconds: float,
    ) -> None:
        self._connect = connect
        self._size = size
        self._queue_seconds = queue_seconds
        self._deadline_seconds = deadline_seconds
        self._free = asyncio.Semaphore(size)
        self._idle: deque[Connection] = deque()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="clickhouse")

    async def run(self, job: Callable[[Connection], T]) -> T:
        """The job's result; it must be one that can be repeated, for it may run twice.

        Raises what the job raises, and QueryError where no connection got free in time (503) or the
        job took too long (504); it goes on then, and its connection is taken until it ends.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), self._queue_seconds)
        except TimeoutError:
            raise QueryError(
                503,
                "overloaded",
                f"{self._size} reports and queries are running already: try again later",
            ) from None
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._work, job)
        future.add_done_callback(self._finish)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._deadline_seconds)
        except TimeoutError:
            raise QueryError(
                504, "timeout", f"no answer within {self._deadline_seconds:g} seconds"
            ) from None

    def close(self) -> None:
        """Takes no more jobs and closes what is idle; blocks on nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _finish(self, future: asyncio.Future[T]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # so that nobody complains if the caller has gone

    def _work(self, job: Callable[[Connection], T]) -> T:
        connection = self._idle.pop() if self._idle else self._connect()
        started = time.monotonic()
        try:
            return job(connection)
        except NeedsOperator:
            raise
        except Unavailable:
            if time.monotonic() - started > RETRY_WITHIN_SECONDS:
                raise
            return job(connection)
        finally:
            self._idle.append(connection)
