import asyncio

import pytest

from octane_analytics.api.reports.cache import CachedAnswer, ReportCache, SingleFlight


def whole(size: int = 10, made_at: float = 0.0) -> CachedAnswer:
    return CachedAnswer(b"x" * size, "application/json", 'W/"1"', False, made_at)


def test_answer_is_kept_for_its_seconds() -> None:
    cache = ReportCache(1 << 20)
    kept = whole(made_at=100.0)
    cache.put(b"k", kept, 30)
    assert cache.get(b"k", 129.9) is kept
    assert cache.get(b"other", 129.9) is None
    assert cache.get(b"k", 130.0) is None
    assert cache.size_bytes == 0


def test_zero_seconds_keep_nothing() -> None:
    cache = ReportCache(1 << 20)
    cache.put(b"k", whole(), 0)
    assert cache.get(b"k", 0.0) is None


def test_what_was_not_asked_for_longest_goes_first() -> None:
    cache = ReportCache(100_000)
    for number in range(4):
        cache.put(b"%d" % number, whole(23_000), 60)
    assert cache.get(b"0", 1.0)
    cache.put(b"4", whole(23_000), 60)
    assert cache.get(b"1", 1.0) is None
    assert cache.get(b"0", 1.0)
    assert cache.size_bytes <= 100_000


def test_answer_that_would_take_too_much_room_is_not_kept() -> None:
    cache = ReportCache(100_000)
    cache.put(b"small", whole(), 60)
    cache.put(b"large", whole(25_000), 60)
    assert cache.get(b"large", 1.0) is None
    assert cache.get(b"small", 1.0)


def test_newer_answer_takes_the_place_of_the_older() -> None:
    cache = ReportCache(100_000)
    cache.put(b"k", whole(), 60)
    newer = whole(20, made_at=5.0)
    cache.put(b"k", newer, 60)
    assert cache.get(b"k", 6.0) is newer
    assert cache.size_bytes == 1 + 20 + 1000


class Work:
    """Counts its runs, and waits to be told to end."""

    def __init__(self, result: CachedAnswer | str | Exception) -> None:
        self.runs = 0
        self.was_cancelled = False
        self.go = asyncio.Event()
        self._result = result

    async def __call__(self) -> CachedAnswer | str:
        self.runs += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_many_who_ask_the_same_wait_for_one_answer() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        answer = whole()
        work = Work(answer)
        asking = [asyncio.ensure_future(flights.join(b"k", work)) for _ in range(200)]
        await _turns()
        work.go.set()
        told = await asyncio.gather(*asking)
        assert work.runs == 1
        assert all(each[0] is answer for each in told)
        assert [each[1] for each in told] == [False] + [True] * 199
        await flights.join(b"k", work)
        assert work.runs == 2

    asyncio.run(run())


def test_failure_is_everybodys_and_is_forgotten() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        work = Work(ValueError("no"))
        asking = [asyncio.ensure_future(flights.join(b"k", work)) for _ in range(3)]
        await _turns()
        work.go.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(each) for each in told] == [ValueError] * 3
        with pytest.raises(ValueError, match="no"):
            await flights.join(b"k", work)
        assert work.runs == 2

    asyncio.run(run())


def test_work_goes_on_while_one_waits_and_is_cancelled_with_the_last() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        work = Work(whole())
        first, second = (asyncio.ensure_future(flights.join(b"k", work)) for _ in range(2))
        await _turns()
        first.cancel()
        await _turns()
        after_one = work.was_cancelled
        second.cancel()
        await _turns()
        assert (after_one, work.was_cancelled) == (False, True)
        third = asyncio.ensure_future(flights.join(b"k", work))
        await _turns()
        work.go.set()
        assert (await third)[0] is not None

    asyncio.run(run())


def test_stream_has_one_taker_and_the_others_are_told() -> None:
    async def run() -> None:
        flights: SingleFlight[CachedAnswer | str] = SingleFlight()
        work = Work("a stream")
        asking = [asyncio.ensure_future(flights.join(b"k", work)) for _ in range(3)]
        await _turns()
        work.go.set()
        told = await asyncio.gather(*asking)
        assert [each[0] for each in told] == ["a stream", None, None]

    asyncio.run(run())
