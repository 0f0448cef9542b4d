"""Identical concurrent requests joined to one execution. For one event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from octane_analytics.api.reports.cache import CachedAnswer

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Executions in progress, by key.

    All waiters receive the same CachedAnswer. Any other result can be consumed once only: the first
    waiter receives it, the others receive None and have to execute for themselves.
    """

    def __init__(self) -> None:
        self._executions: dict[bytes, _Execution[T]] = {}

    async def join(self, key: bytes, execute: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """Return the result, and whether another request started the execution.

        Raises what `execute` raises. The execution is cancelled when its last waiter is.
        """
        execution = self._executions.get(key)
        is_shared = execution is not None
        if execution is None:
            task = asyncio.ensure_future(execute())
            execution = self._executions[key] = _Execution(task)
            task.add_done_callback(lambda _: self._remove(key, task))
        execution.waiters += 1
        try:
            result = await asyncio.shield(execution.task)
        finally:
            execution.waiters -= 1
            if not execution.waiters and not execution.task.done():
                execution.task.cancel()
                del self._executions[key]
        if isinstance(result, CachedAnswer):
            return result, is_shared
        if execution.is_consumed:
            return None, is_shared
        execution.is_consumed = True
        return result, is_shared

    def _remove(self, key: bytes, task: "asyncio.Future[T]") -> None:
        execution = self._executions.get(key)
        if execution is not None and execution.task is task:
            del self._executions[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio logs nothing if all waiters have gone


@dataclass(slots=True)
class _Execution(Generic[T]):
    task: "asyncio.Future[T]"
    waiters: int = 0
    is_consumed: bool = False
