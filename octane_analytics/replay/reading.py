"""Copies spans of the log into staging, decoded, in bounded memory and at a bounded rate."""

from collections.abc import Callable, Mapping
from operator import methodcaller

from octane_analytics.errors import DecodeError, NeedsOperator, Unavailable
from octane_analytics.replay.ports import Bench, Log, Staged
from octane_analytics.timing import Backoff
from octane_analytics.types import Clock, Row, Span

BATCH_ROWS = 100_000
BATCH_BYTES = 32 << 20
_POLL_RECORDS = 10_000
_POLL_SECONDS = 0.2
_NO_ROW: Row = Row(0, "", "", "", b"")
PATIENCE_SECONDS = 60.0
_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS = 0.2, 5.0

Decode = Callable[[bytes | None], Row]


class Pace:
    """Holds a rate of events; None is none."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._started = clock.now()
        self._done = 0

    @property
    def at_once(self) -> int:
        """How many events to ask for, so that they come evenly."""
        return _POLL_RECORDS if self._rate is None else max(1, min(_POLL_RECORDS, int(self._rate)))

    def wait(self, events: int) -> None:
        """Blocks until so many more are due, a second at most."""
        self._done += events
        if self._rate is not None:
            ahead = self._done / self._rate - (self._clock.now() - self._started)
            while ahead > 0:
                self._clock.sleep(min(ahead, 1.0))
                ahead = self._done / self._rate - (self._clock.now() - self._started)


def patiently(call: Callable[[], None], clock: Clock) -> bool:
    """Repeats a call that may be repeated while it raises Unavailable, for a minute.

    Whether it had to be. What waiting does not mend is raised at once.
    """
    backoff = Backoff(_FIRST_BACKOFF_SECONDS, _CAP_BACKOFF_SECONDS)
    deadline = clock.now() + PATIENCE_SECONDS
    while True:
        try:
            call()
        except NeedsOperator:
            raise
        except Unavailable:
            if clock.now() >= deadline:
                raise
            clock.sleep(backoff.next_seconds())
        else:
            return backoff.attempts > 0


class Reader:
    """Not for use by several threads; one for each process that reads."""

    def __init__(
        self,
        log: Log,
        bench: Bench,
        decode: Decode,
        wanted: Mapping[int, Span],
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._log = log
        self._bench = bench
        self._decode = decode
        self._wanted = wanted
        self._clock = clock
        self._pace = pace

    def copy(
        self,
        spans: Mapping[int, Span],
        on_progress: Callable[[int], None] = lambda _: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Blocks until the spans are staged (True) or it is to stop (False).

        `on_progress` hears how many more records are staged. Raises Unavailable.
        """
        log, staged = self._log, Staged()
        log.begin(spans)
        while not log.is_done and not is_stopping():
            records = log.poll(self._pace.at_once, _POLL_SECONDS).records
            # In offset order within each partition, so that what is staged has no gap.
            for record in sorted(records, key=methodcaller("partition")):
                self._take(record, staged)
                if len(staged) >= BATCH_ROWS or staged.payload_bytes >= BATCH_BYTES:
                    staged = self._flush(staged, on_progress)
            self._pace.wait(len(records))
        self._flush(staged, on_progress)
        return log.is_done

    def _take(self, record: "object", staged: Staged) -> None:
        value = record.value()  # type: ignore[attr-defined]
        partition, offset = record.partition(), record.offset()  # type: ignore[attr-defined]
        reason = ""
        try:
            row = self._decode(value)
        except DecodeError as error:
            row, reason = _NO_ROW, error.reason
        for column, field in zip(staged.columns, row, strict=True):
            column.append(field)
        span = self._wanted.get(partition)
        staged.partitions.append(partition)
        staged.offsets.append(offset)
        staged.is_wanted.append(int(span is not None and span.first <= offset < span.end))
        staged.reasons.append(reason)
        staged.payload_bytes += len(value or b"")

    def _flush(self, staged: Staged, on_progress: Callable[[int], None]) -> Staged:
        if len(staged):
            patiently(lambda: self._bench.stage(staged), self._clock)
            on_progress(len(staged))
        return Staged()
