"""Sends lines to a topic: their keys, their pace, backpressure, and the count of what arrived.

Knows Kafka only by the Protocols it needs.
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
"""What is under way gets this long after a signal."""
_SLICE_SECONDS = 0.1
_POLL_EVERY = 500
_REASONS_KEPT = 10
_UNKNOWN_LINE_BYTES = 1024


class Producer(Protocol):
    """`kafka.EventProducer`, as far as it is needed here."""

    def send(
        self, value: bytes, key: bytes | None, on_result: Callable[[str | None], None]
    ) -> None: ...
    def poll(self) -> None: ...
    def flush(self, timeout_seconds: float) -> int: ...


class GroupLag(Protocol):
    """`kafka.GroupView`, as far as it is needed here."""

    def lag(self, topic: str) -> int: ...


@dataclass(slots=True)
class Reason:
    count: int
    first_line: int


@dataclass(slots=True)
class SendStats:
    """What became of the lines so far."""

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    failed: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)
    """Why lines failed; a bounded number of reasons."""

    @property
    def outstanding(self) -> int:
        return self.sent - self.delivered - self.failed

    def fail(self, line: int, why: str) -> None:
        self.failed += 1
        if why in self.reasons:
            self.reasons[why].count += 1
        elif len(self.reasons) < _REASONS_KEPT:
            self.reasons[why] = Reason(1, line)


def key_of(line: bytes) -> bytes | None:
    """The event's `user_id`, so that a user's events share a partition and keep their order.

    None for a line that is no event: it goes to any partition.
    """
    try:
        _, _, _, user_id, _ = decode(line)
    except DecodeError:
        return None
    return user_id.encode()


@dataclass(frozen=True, slots=True)
class Backlog:
    """Keeps the messages that the group has not committed yet at or below a limit."""

    view: GroupLag
    topic: str
    max_messages: int
    max_bytes: int | None = None
    """Reckoned from the average line so far; None where bytes do not matter."""

    def room(self, tally: SendStats) -> int:
        """How many messages may be sent now; 0 while there is room for less than a quarter.

        Asks the broker: blocks, raises Unavailable.
        """
        limit = self.max_messages
        if self.max_bytes is not None:
            average = tally.sent_bytes / tally.sent if tally.sent else _UNKNOWN_LINE_BYTES
            limit = max(1, min(limit, int(self.max_bytes / average)))
        room = limit - self.view.lag(self.topic) - tally.outstanding
        return room if room >= max(1, limit // 4) else 0


class EventSender:
    """One run over some lines. `tally` holds at any time, also after an exception."""

    def __init__(
        self,
        producer: Producer,
        clock: Clock,
        *,
        key: Callable[[bytes], bytes | None] = key_of,
        rate: float | None = None,
        backlog: Backlog | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        on_progress: Callable[[SendStats], None] = lambda tally: None,
    ) -> None:
        """`rate` in lines a second. `on_progress` is called about ten times a second."""
        self.tally = SendStats()
        self._producer = producer
        self._clock = clock
        self._key = key
        self._rate = rate
        self._backlog = backlog
        self._room = 0
        self._is_stopping = is_stopping
        self._on_progress = on_progress
        self._line = 0
        self._due = self._looked = 0.0

    def run(self, lines: Iterable[Line]) -> None:
        """Sends every line that is not blank, and waits until all of them are answered for.

        A None among the lines means that there is nothing to send right now. Once `is_stopping`
        holds, nothing more is sent and what is under way gets FLUSH_SECONDS. Raises Unavailable when
        the producer's queue stays full; a line that is not acknowledged in time has failed.
        """
        self._due = self._looked = self._clock.now()
        for line in lines:
            if self._is_stopping():
                break
            if line is None:
                self._look()
                continue
            self._line += 1
            if isinstance(line, TooLong):
                self.tally.sent += 1
                self.tally.sent_bytes += line.size
                self.tally.fail(self._line, f"longer than this command sends ({line.size:,} bytes)")
            elif line and not line.isspace():
                self._wait_for_turn()
                if self._is_stopping():
                    break
                self._send(line)
        self._finish()

    def _send(self, line: bytes) -> None:
        # Counted first: the answer may come from within the call.
        self.tally.sent += 1
        self.tally.sent_bytes += len(line) + 1
        self._room -= 1
        try:
            self._producer.send(line, self._key(line), partial(self._result, self._line))
        except NeedsOperator as error:  # about this one line: the client refuses its size
            self.tally.fail(self._line, str(error))
        except Unavailable:
            self.tally.fail(self._line, "not sent")
            if not self._is_stopping():
                raise
        if self.tally.sent % _POLL_EVERY == 0:
            self._look()

    def _result(self, line: int, why: str | None) -> None:
        if why is None:
            self.tally.delivered += 1
        else:
            self.tally.fail(line, why)

    def _wait_for_turn(self) -> None:
        while self._backlog is not None and self._room <= 0 and not self._is_stopping():
            self._room = self._backlog.room(self.tally)
            if self._room <= 0:
                self._pause(_SLICE_SECONDS)
        if self._rate is not None:
            while (early := self._due - self._clock.now()) > 0 and not self._is_stopping():
                self._pause(min(early, _SLICE_SECONDS))
            # Being late by a little is made up for, by much is not: that would be a burst.
            self._due = max(self._due, self._clock.now() - _SLICE_SECONDS) + 1.0 / self._rate

    def _pause(self, seconds: float) -> None:
        self._look()
        self._clock.sleep(seconds)

    def _look(self) -> None:
        """Takes in results and tells of progress."""
        self._producer.poll()
        now = self._clock.now()
        if now - self._looked >= _SLICE_SECONDS:
            self._looked = now
            self._on_progress(self.tally)

    def _finish(self) -> None:
        """Waits for what is under way."""
        asked_at = None
        while self.tally.outstanding:
            self._producer.flush(_SLICE_SECONDS)
            self._look()
            if self._is_stopping():
                asked_at = asked_at or self._clock.now()
                if self._clock.now() - asked_at > FLUSH_SECONDS:
                    break
        self._on_progress(self.tally)
