from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from octane_analytics.cli.produce.line_reader import Line, TooLong
from octane_analytics.cli.produce.sender import (
    FLUSH_SECONDS,
    Backlog,
    EventSender,
    SendStats,
    key_of,
)
from octane_analytics.errors import NeedsOperator, Unavailable

EVENT = (
    b'{"app_id": "a", "event_name": "e", "user_id": "user_1", "timestamp": "2026-02-02T12:00:00Z"}'
)


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class FakeProducer:
    """Acknowledges everything at the next poll or flush."""

    clock: FakeClock
    sent: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    waiting: list[Callable[[str | None], None]] = field(default_factory=list)
    failure: str | None = None
    error: Exception | None = None
    is_answering: bool = True
    on_refusal: Callable[[], object] = lambda: None

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None:
        if self.error is not None:
            self.on_refusal()
            raise self.error
        self.sent.append((value, key))
        self.times.append(self.clock.now())
        self.waiting.append(on_result)

    def poll(self) -> None:
        if self.is_answering:
            waiting, self.waiting = self.waiting, []
            for on_result in waiting:
                on_result(self.failure)

    def flush(self, timeout_seconds: float) -> int:
        self.clock.sleep(timeout_seconds)
        self.poll()
        return len(self.waiting)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def producer(clock: FakeClock) -> FakeProducer:
    return FakeProducer(clock)


def test_feed_sends_lines_as_they_are(producer: FakeProducer, clock: FakeClock) -> None:
    feed = EventSender(producer, clock)
    feed.run([b"broken", EVENT, b' {"x": 1}'])
    assert producer.sent == [(b"broken", None), (EVENT, b"user_1"), (b' {"x": 1}', None)]
    assert (feed.tally.sent, feed.tally.delivered, feed.tally.failed) == (3, 3, 0)


def test_feed_skips_blank_lines_but_numbers_them(producer: FakeProducer, clock: FakeClock) -> None:
    producer.failure = "refused"
    feed = EventSender(producer, clock)
    feed.run([b"", b" \t", None, b"a", b"b"])
    assert [value for value, _ in producer.sent] == [b"a", b"b"]
    assert feed.tally.failed == 2
    assert feed.tally.reasons["refused"].count == 2
    assert feed.tally.reasons["refused"].first_line == 3


def test_feed_counts_a_line_that_was_too_long_as_failed(
    producer: FakeProducer, clock: FakeClock
) -> None:
    feed = EventSender(producer, clock)
    feed.run([TooLong(99), b"a"])
    assert (feed.tally.delivered, feed.tally.failed, feed.tally.outstanding) == (1, 1, 0)


def test_feed_goes_on_after_a_line_the_client_refuses(
    producer: FakeProducer, clock: FakeClock
) -> None:
    producer.error = NeedsOperator("too large")
    feed = EventSender(producer, clock)
    feed.run([b"a", b"b"])
    assert feed.tally.failed == 2
    assert feed.tally.reasons["too large"].first_line == 1


def test_feed_ends_when_the_queue_stays_full(producer: FakeProducer, clock: FakeClock) -> None:
    producer.error = Unavailable("the queue is full")
    feed = EventSender(producer, clock)
    with pytest.raises(Unavailable):
        feed.run([b"a", b"b"])
    assert (feed.tally.sent, feed.tally.failed) == (1, 1)


def test_tally_keeps_a_bounded_number_of_reasons() -> None:
    tally = SendStats()
    for line in range(100):
        tally.fail(line, f"reason {line}")
    assert tally.failed == 100
    assert len(tally.reasons) == 10


def test_feed_paces_evenly(producer: FakeProducer, clock: FakeClock) -> None:
    EventSender(producer, clock, rate=10.0).run([b"x"] * 21)
    assert producer.times[0] == 1000.0
    assert producer.times[-1] == pytest.approx(1002.0, abs=0.01)
    gaps = [b - a for a, b in zip(producer.times, producer.times[1:], strict=False)]
    assert max(gaps) == pytest.approx(0.1, abs=0.01)


def test_feed_does_not_make_up_for_a_pause_with_a_burst(
    producer: FakeProducer, clock: FakeClock
) -> None:
    def lines() -> Iterator[Line]:
        yield b"a"
        clock.sleep(60.0)
        yield from [b"b"] * 11

    EventSender(producer, clock, rate=10.0).run(lines())
    assert producer.times[-1] - producer.times[1] == pytest.approx(0.9, abs=0.11)


@dataclass
class FakeLag:
    """What was delivered and not yet consumed; each question consumes some."""

    producer: FakeProducer
    consumed_each: int
    consumed: int = 0
    highest: int = 0

    def lag(self, topic: str) -> int:
        lag = len(self.producer.sent) - len(self.producer.waiting) - self.consumed
        self.highest = max(self.highest, lag)
        self.consumed += min(lag, self.consumed_each)
        return lag


def test_feed_keeps_the_lag_below_the_limit(producer: FakeProducer, clock: FakeClock) -> None:
    view = FakeLag(producer, consumed_each=10)
    feed = EventSender(producer, clock, backlog=Backlog(view, "t", 100))
    feed.run([b"x"] * 1000)
    assert feed.tally.delivered == 1000
    assert view.highest <= 100


def test_backlog_has_no_room_until_a_quarter_is_free(producer: FakeProducer) -> None:
    view = FakeLag(producer, consumed_each=0)
    backlog = Backlog(view, "t", 100)
    producer.sent = [(b"", None)] * 76
    assert backlog.room(SendStats()) == 0
    producer.sent.pop()
    assert backlog.room(SendStats()) == 25
    assert backlog.room(SendStats(sent=20)) == 0


def test_backlog_reckons_bytes_from_the_average_line(producer: FakeProducer) -> None:
    backlog = Backlog(FakeLag(producer, consumed_each=0), "t", 1000, max_bytes=10_240)
    assert backlog.room(SendStats()) == 10
    assert backlog.room(SendStats(sent=100, sent_bytes=10_240, delivered=100)) == 100
    assert backlog.room(SendStats(sent=10, sent_bytes=50, delivered=10)) == 1000


def test_feed_stops_and_waits_for_what_is_under_way(
    producer: FakeProducer, clock: FakeClock
) -> None:
    feed = EventSender(producer, clock, is_stopping=lambda: len(producer.sent) >= 3)
    feed.run([b"x"] * 10)
    assert (feed.tally.sent, feed.tally.delivered) == (3, 3)


def test_feed_stops_within_its_time_when_nobody_answers(
    producer: FakeProducer, clock: FakeClock
) -> None:
    producer.is_answering = False
    feed = EventSender(producer, clock, is_stopping=lambda: bool(producer.sent))
    feed.run([b"x"] * 10)
    assert feed.tally.outstanding == 1
    assert clock.now() - 1000.0 == pytest.approx(FLUSH_SECONDS, abs=0.5)


def test_feed_stops_while_it_waits_for_its_turn(producer: FakeProducer, clock: FakeClock) -> None:
    feed = EventSender(producer, clock, rate=0.001, is_stopping=lambda: clock.now() > 1005.0)
    feed.run([b"x"] * 3)
    assert feed.tally.sent == 1
    assert clock.now() < 1006.0


def test_feed_tells_of_progress_with_the_last_word_at_the_end(
    producer: FakeProducer, clock: FakeClock
) -> None:
    told: list[int] = []
    feed = EventSender(
        producer, clock, rate=10.0, on_progress=lambda tally: told.append(tally.delivered)
    )
    feed.run([b"x"] * 30)
    assert told == sorted(told)
    assert told[-1] == 30
    assert len(told) > 10


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (EVENT, b"user_1"),
        (EVENT.replace(b"user_1", "ü".encode()), "ü".encode()),
        (b'{"user_id": "user_1"}', None),
        (EVENT.replace(b'"user_1"', b"5"), None),
        (b"\xff", None),
    ],
)
def test_key_is_the_user_of_an_event(line: bytes, key: bytes | None) -> None:
    assert key_of(line) == key


def test_line_that_a_full_queue_does_not_take_is_no_error_once_it_is_to_stop(
    producer: FakeProducer, clock: FakeClock
) -> None:
    asked: list[bool] = []
    feed = EventSender(producer, clock, is_stopping=lambda: bool(asked))

    def lines() -> Iterator[Line]:
        yield b"a"
        producer.error = Unavailable("the queue is full")
        # The signal comes while the producer waits.
        producer.on_refusal = lambda: asked.append(True)
        yield b"b"
        yield b"c"

    feed.run(lines())
    assert (feed.tally.sent, feed.tally.delivered, feed.tally.failed) == (2, 1, 1)
    assert feed.tally.reasons["not sent"].first_line == 2
