import asyncio

import pytest

from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.single_flight import SingleFlight

ANSWER = CachedAnswer(b"x" * 10, "application/json", 'W/"1"', False, 0.0)


class Execution:
    """Counts its runs; each waits for `release`."""

    def __init__(self, result: CachedAnswer | str | Exception) -> None:
        self.runs = 0
        self.was_cancelled = False
        self.release = asyncio.Event()
        self._result = result

    async def __call__(self) -> CachedAnswer | str:
        self.runs += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


async def _run_pending_callbacks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_identical_requests_share_one_answer() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        execution = Execution(ANSWER)
        waiters = [asyncio.ensure_future(flights.join(b"k", execution)) for _ in range(200)]
        await _run_pending_callbacks()
        execution.release.set()
        results = await asyncio.gather(*waiters)
        assert execution.runs == 1
        assert all(each[0] is ANSWER for each in results)
        assert [each[1] for each in results] == [False] + [True] * 199
        await flights.join(b"k", execution)
        assert execution.runs == 2

    asyncio.run(run())


def test_failure_reaches_all_waiters_and_is_forgotten() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        execution = Execution(ValueError("no"))
        waiters = [asyncio.ensure_future(flights.join(b"k", execution)) for _ in range(3)]
        await _run_pending_callbacks()
        execution.release.set()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(each) for each in results] == [ValueError] * 3
        with pytest.raises(ValueError, match="no"):
            await flights.join(b"k", execution)
        assert execution.runs == 2

    asyncio.run(run())


def test_execution_is_cancelled_with_its_last_waiter() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        execution = Execution(ANSWER)
        first, second = (asyncio.ensure_future(flights.join(b"k", execution)) for _ in range(2))
        await _run_pending_callbacks()
        first.cancel()
        await _run_pending_callbacks()
        after_first = execution.was_cancelled
        second.cancel()
        await _run_pending_callbacks()
        assert (after_first, execution.was_cancelled) == (False, True)
        third = asyncio.ensure_future(flights.join(b"k", execution))
        await _run_pending_callbacks()
        execution.release.set()
        assert (await third)[0] is not None

    asyncio.run(run())


def test_stream_goes_to_one_waiter_only() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        execution = Execution("a stream")
        waiters = [asyncio.ensure_future(flights.join(b"k", execution)) for _ in range(3)]
        await _run_pending_callbacks()
        execution.release.set()
        results = await asyncio.gather(*waiters)
        assert [each[0] for each in results] == ["a stream", None, None]

    asyncio.run(run())
