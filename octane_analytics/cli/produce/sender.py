"""Send lines to a topic with keys, rate limit, backpressure and delivery counts.

Does not depend on Kafka's client: producer and lag are Protocols.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from octane_analytics.cli.produce.line_reader import Line, TooLong
from octane_analytics.errors import DecodeError, NeedsOperator, Unavailable
from octane_analytics.events.decode import decode
from octane_analytics.interfaces import Clock

FLUSH_SECONDS = 10.0
"""Time for records in flight after a signal."""
_SLICE_SECONDS = 0.1
_POLL_EVERY = 500
_REASONS_KEPT = 10
_UNKNOWN_LINE_BYTES = 1024


class Producer(Protocol):
    """Methods of `kafka.event_producer.EventProducer` that the sender uses."""

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None: ...
    def poll(self) -> None: ...
    def flush(self, timeout_seconds: float) -> int: ...


class GroupLag(Protocol):
    """Method of `kafka.topics.TopicInspector` that the backlog uses."""

    def lag(self, topic: str) -> int: ...


@dataclass(slots=True)
class FailureReason:
    """Failed lines with the same error."""

    count: int
    first_line: int


@dataclass(slots=True)
class SendStats:
    """Counts of the lines so far."""

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    failed: int = 0
    reasons: dict[str, FailureReason] = field(default_factory=dict)
    """Failures by error text; a bounded number of them."""

    @property
    def outstanding(self) -> int:
        """Number of lines sent and not acknowledged."""
        return self.sent - self.delivered - self.failed

    def record_failure(self, line: int, why: str) -> None:
        self.failed += 1
        if why in self.reasons:
            self.reasons[why].count += 1
        elif len(self.reasons) < _REASONS_KEPT:
            self.reasons[why] = FailureReason(1, line)


def key_of(line: bytes) -> bytes | None:
    """Return the event's `user_id`, so that a user's events share a partition and keep their order.

    Returns None for an invalid event, which goes to any partition.
    """
    try:
        _, _, _, user_id, _ = decode(line)
    except DecodeError:
        return None
    return user_id.encode()


@dataclass(frozen=True, slots=True)
class Backlog:
    """Limit of records that are sent and not yet committed by the consumer group."""

    inspector: GroupLag
    topic: str
    max_messages: int
    max_bytes: int | None = None
    """Additional limit, applied with the average size of the lines so far; None for no limit."""

    def room(self, stats: SendStats) -> int:
        """Return how many records may be sent now; 0 while it is less than a quarter of the limit.

        Queries the broker: blocks, raises Unavailable.
        """
        limit = self.max_messages
        if self.max_bytes is not None:
            average = stats.sent_bytes / stats.sent if stats.sent else _UNKNOWN_LINE_BYTES
            limit = max(1, min(limit, int(self.max_bytes / average)))
        room = limit - self.inspector.lag(self.topic) - stats.outstanding
        return room if room >= max(1, limit // 4) else 0


class EventSender:
    """Sends lines once. `stats` is valid at any time, also after an exception."""

    def __init__(
        self,
        producer: Producer,
        clock: Clock,
        *,
        key: Callable[[bytes], bytes | None] = key_of,
        rate: float | None = None,
        backlog: Backlog | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        on_progress: Callable[[SendStats], None] = lambda stats: None,
    ) -> None:
        """`rate` is in lines per second. `on_progress` is called about ten times per second."""
        self.stats = SendStats()
        self._producer = producer
        self._clock = clock
        self._key = key
        self._rate = rate
        self._backlog = backlog
        self._room = 0
        self._is_stopping = is_stopping
        self._on_progress = on_progress
        self._line = 0
        self._due_at = self._reported_at = 0.0

    def run(self, lines: Iterable[Line]) -> None:
        """Send every line that is not blank, and block until all of them are acknowledged or failed.

        None among the lines means that there is nothing to send at present. Once `is_stopping` returns
        True, sends nothing more and waits at most FLUSH_SECONDS for records in flight. Raises
        Unavailable if the producer's queue stays full. A line that is not acknowledged in time has
        failed.
        """
        self._due_at = self._reported_at = self._clock.now()
        for line in lines:
            if self._is_stopping():
                break
            if line is None:
                self._poll()
                continue
            self._line += 1
            if isinstance(line, TooLong):
                self.stats.sent += 1
                self.stats.sent_bytes += line.size
                self.stats.record_failure(
                    self._line, f"longer than this command sends ({line.size:,} bytes)"
                )
            elif line and not line.isspace():
                self._wait_until_due()
                if self._is_stopping():
                    break
                self._send(line)
        self._finish()

    def _send(self, line: bytes) -> None:
        # Counted first, because the delivery callback may run within the call.
        self.stats.sent += 1
        self.stats.sent_bytes += len(line) + 1
        self._room -= 1
        try:
            self._producer.send(line, self._key(line), partial(self._record_result, self._line))
        except NeedsOperator as error:  # only this line: the client rejects its size
            self.stats.record_failure(self._line, str(error))
        except Unavailable:
            self.stats.record_failure(self._line, "not sent")
            if not self._is_stopping():
                raise
        if self.stats.sent % _POLL_EVERY == 0:
            self._poll()

    def _record_result(self, line: int, why: str | None) -> None:
        if why is None:
            self.stats.delivered += 1
        else:
            self.stats.record_failure(line, why)

    def _wait_until_due(self) -> None:
        """Block until the backlog and the rate allow a line."""
        while self._backlog is not None and self._room <= 0 and not self._is_stopping():
            self._room = self._backlog.room(self.stats)
            if self._room <= 0:
                self._pause(_SLICE_SECONDS)
        if self._rate is not None:
            while (early := self._due_at - self._clock.now()) > 0 and not self._is_stopping():
                self._pause(min(early, _SLICE_SECONDS))
            # A short delay is caught up with, a long one is not, because that would be a burst.
            self._due_at = max(self._due_at, self._clock.now() - _SLICE_SECONDS) + 1.0 / self._rate

    def _pause(self, seconds: float) -> None:
        self._poll()
        self._clock.sleep(seconds)

    def _poll(self) -> None:
        """Process delivery results and report progress."""
        self._producer.poll()
        now = self._clock.now()
        if now - self._reported_at >= _SLICE_SECONDS:
            self._reported_at = now
            self._on_progress(self.stats)

    def _finish(self) -> None:
        """Block until no records are in flight, FLUSH_SECONDS at most after a stop."""
        stopping_since = None
        while self.stats.outstanding:
            self._producer.flush(_SLICE_SECONDS)
            self._poll()
            if self._is_stopping():
                stopping_since = stopping_since or self._clock.now()
                if self._clock.now() - stopping_since > FLUSH_SECONDS:
                    break
        self._on_progress(self.stats)
