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
    """Producer that acknowledges everything at the next poll or flush."""

    clock: FakeClock
    sent: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    waiting: list[Callable[[str | None], None]] = field(default_factory=list)
    failure: str | None = None
    error: Exception | None = None
    is_acknowledging: bool = True
    on_reject: Callable[[], object] = lambda: None

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None:
        if self.error is not None:
            self.on_reject()
            raise self.error
        self.sent.append((value, key))
        self.times.append(self.clock.now())
        self.waiting.append(on_result)

    def poll(self) -> None:
        if self.is_acknowledging:
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


def test_sender_sends_lines_unchanged(producer: FakeProducer, clock: FakeClock) -> None:
    sender = EventSender(producer, clock)
    sender.run([b"broken", EVENT, b' {"x": 1}'])
    assert producer.sent == [(b"broken", None), (EVENT, b"user_1"), (b' {"x": 1}', None)]
    assert (sender.stats.sent, sender.stats.delivered, sender.stats.failed) == (3, 3, 0)


def test_sender_skips_blank_lines_but_numbers_them(
    producer: FakeProducer, clock: FakeClock
) -> None:
    producer.failure = "rejected"
    sender = EventSender(producer, clock)
    sender.run([b"", b" \t", None, b"a", b"b"])
    assert [value for value, _ in producer.sent] == [b"a", b"b"]
    assert sender.stats.failed == 2
    assert sender.stats.reasons["rejected"].count == 2
    assert sender.stats.reasons["rejected"].first_line == 3


def test_sender_counts_too_long_line_as_failed(producer: FakeProducer, clock: FakeClock) -> None:
    sender = EventSender(producer, clock)
    sender.run([TooLong(99), b"a"])
    assert (sender.stats.delivered, sender.stats.failed, sender.stats.outstanding) == (1, 1, 0)


def test_sender_continues_after_a_rejected_line(producer: FakeProducer, clock: FakeClock) -> None:
    producer.error = NeedsOperator("too large")
    sender = EventSender(producer, clock)
    sender.run([b"a", b"b"])
    assert sender.stats.failed == 2
    assert sender.stats.reasons["too large"].first_line == 1


def test_sender_raises_when_the_queue_stays_full(producer: FakeProducer, clock: FakeClock) -> None:
    producer.error = Unavailable("the queue is full")
    sender = EventSender(producer, clock)
    with pytest.raises(Unavailable):
        sender.run([b"a", b"b"])
    assert (sender.stats.sent, sender.stats.failed) == (1, 1)


def test_stats_keep_a_bounded_number_of_reasons() -> None:
    stats = SendStats()
    for line in range(100):
        stats.record_failure(line, f"reason {line}")
    assert stats.failed == 100
    assert len(stats.reasons) == 10


def test_sender_with_rate_sends_evenly(producer: FakeProducer, clock: FakeClock) -> None:
    EventSender(producer, clock, rate=10.0).run([b"x"] * 21)
    assert producer.times[0] == 1000.0
    assert producer.times[-1] == pytest.approx(1002.0, abs=0.01)
    gaps = [b - a for a, b in zip(producer.times, producer.times[1:], strict=False)]
    assert max(gaps) == pytest.approx(0.1, abs=0.01)


def test_sender_does_not_burst_after_a_pause(producer: FakeProducer, clock: FakeClock) -> None:
    def lines() -> Iterator[Line]:
        yield b"a"
        clock.sleep(60.0)
        yield from [b"b"] * 11

    EventSender(producer, clock, rate=10.0).run(lines())
    assert producer.times[-1] - producer.times[1] == pytest.approx(0.9, abs=0.11)


@dataclass
class FakeLag:
    """Lag of delivered and not consumed records; each query consumes some."""

    producer: FakeProducer
    consumed_each: int
    consumed: int = 0
    highest: int = 0

    def lag(self, topic: str) -> int:
        lag = len(self.producer.sent) - len(self.producer.waiting) - self.consumed
        self.highest = max(self.highest, lag)
        self.consumed += min(lag, self.consumed_each)
        return lag


def test_sender_keeps_the_lag_below_the_limit(producer: FakeProducer, clock: FakeClock) -> None:
    lag = FakeLag(producer, consumed_each=10)
    sender = EventSender(producer, clock, backlog=Backlog(lag, "t", 100))
    sender.run([b"x"] * 1000)
    assert sender.stats.delivered == 1000
    assert lag.highest <= 100


def test_backlog_without_a_free_quarter_has_no_room(producer: FakeProducer) -> None:
    lag = FakeLag(producer, consumed_each=0)
    backlog = Backlog(lag, "t", 100)
    producer.sent = [(b"", None)] * 76
    assert backlog.room(SendStats()) == 0
    producer.sent.pop()
    assert backlog.room(SendStats()) == 25
    assert backlog.room(SendStats(sent=20)) == 0


def test_backlog_estimates_bytes_from_the_average_line(producer: FakeProducer) -> None:
    backlog = Backlog(FakeLag(producer, consumed_each=0), "t", 1000, max_bytes=10_240)
    assert backlog.room(SendStats()) == 10
    assert backlog.room(SendStats(sent=100, sent_bytes=10_240, delivered=100)) == 100
    assert backlog.room(SendStats(sent=10, sent_bytes=50, delivered=10)) == 1000


def test_sender_waits_for_records_in_flight_on_stop(
    producer: FakeProducer, clock: FakeClock
) -> None:
    sender = EventSender(producer, clock, is_stopping=lambda: len(producer.sent) >= 3)
    sender.run([b"x"] * 10)
    assert (sender.stats.sent, sender.stats.delivered) == (3, 3)


def test_sender_stops_in_time_without_acknowledgements(
    producer: FakeProducer, clock: FakeClock
) -> None:
    producer.is_acknowledging = False
    sender = EventSender(producer, clock, is_stopping=lambda: bool(producer.sent))
    sender.run([b"x"] * 10)
    assert sender.stats.outstanding == 1
    assert clock.now() - 1000.0 == pytest.approx(FLUSH_SECONDS, abs=0.5)


def test_sender_stops_while_rate_limited(producer: FakeProducer, clock: FakeClock) -> None:
    sender = EventSender(producer, clock, rate=0.001, is_stopping=lambda: clock.now() > 1005.0)
    sender.run([b"x"] * 3)
    assert sender.stats.sent == 1
    assert clock.now() < 1006.0


def test_sender_reports_progress_and_the_final_counts(
    producer: FakeProducer, clock: FakeClock
) -> None:
    reported: list[int] = []
    sender = EventSender(
        producer, clock, rate=10.0, on_progress=lambda stats: reported.append(stats.delivered)
    )
    sender.run([b"x"] * 30)
    assert reported == sorted(reported)
    assert reported[-1] == 30
    assert len(reported) > 10


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
def test_key_is_the_user_id_of_an_event(line: bytes, key: bytes | None) -> None:
    assert key_of(line) == key


def test_full_queue_while_stopping_fails_the_line_only(
    producer: FakeProducer, clock: FakeClock
) -> None:
    stop_requests: list[bool] = []
    sender = EventSender(producer, clock, is_stopping=lambda: bool(stop_requests))

    def lines() -> Iterator[Line]:
        yield b"a"
        producer.error = Unavailable("the queue is full")
        # The signal arrives while the producer waits for room in its queue.
        producer.on_reject = lambda: stop_requests.append(True)
        yield b"b"
        yield b"c"

    sender.run(lines())
    assert (sender.stats.sent, sender.stats.delivered, sender.stats.failed) == (2, 1, 1)
    assert sender.stats.reasons["not sent"].first_line == 2
