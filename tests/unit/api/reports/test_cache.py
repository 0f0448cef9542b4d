from octane_analytics.api.reports.cache import CachedAnswer, ReportCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(size: int = 10, made_at: float = 0.0) -> CachedAnswer:
    return CachedAnswer(b"x" * size, "application/json", 'W/"1"', False, made_at)


def test_answer_expires_after_its_seconds() -> None:
    clock = Clock()
    cache = ReportCache(1 << 20, clock)
    kept = answer(made_at=100.0)
    clock.now = 101.0
    cache.put(b"k", kept, 30)
    clock.now = 129.9
    assert cache.get(b"k") is kept
    assert cache.get(b"other") is None
    clock.now = 130.0
    assert cache.get(b"k") is None
    assert cache.size_bytes == 0


def test_answer_with_zero_seconds_is_not_kept() -> None:
    cache = ReportCache(1 << 20, Clock())
    cache.put(b"k", answer(), 0)
    assert cache.get(b"k") is None


def test_least_recently_used_answer_is_evicted_first() -> None:
    clock = Clock()
    cache = ReportCache(100_000, clock)
    for number in range(4):
        cache.put(b"%d" % number, answer(23_000), 60)
    clock.now = 1.0
    assert cache.get(b"0")
    cache.put(b"4", answer(23_000), 60)
    assert cache.get(b"1") is None
    assert cache.get(b"0")
    assert cache.size_bytes <= 100_000


def test_answer_above_a_quarter_is_not_kept() -> None:
    clock = Clock()
    cache = ReportCache(100_000, clock)
    cache.put(b"small", answer(), 60)
    cache.put(b"large", answer(25_000), 60)
    clock.now = 1.0
    assert cache.get(b"large") is None
    assert cache.get(b"small")


def test_newer_answer_replaces_the_older() -> None:
    clock = Clock()
    cache = ReportCache(100_000, clock)
    cache.put(b"k", answer(), 60)
    newer = answer(20, made_at=5.0)
    clock.now = 6.0
    cache.put(b"k", newer, 60)
    assert cache.get(b"k") is newer
    assert cache.size_bytes == 1 + 20 + 1000


def test_replacement_that_is_not_kept_removes_the_older() -> None:
    cache = ReportCache(100_000, Clock())
    cache.put(b"k", answer(), 60)
    cache.put(b"k", answer(25_000), 60)
    assert cache.get(b"k") is None
    cache.put(b"k", answer(), 60)
    cache.put(b"k", answer(20), 0)
    assert cache.get(b"k") is None


def test_cache_without_room_keeps_nothing() -> None:
    cache = ReportCache(0, Clock())
    cache.put(b"k", answer(), 60)
    assert cache.get(b"k") is None
