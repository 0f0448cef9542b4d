"""Decode offset ranges of the log into the staging table, in bounded memory and at a limited rate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octane_analytics.events.event import Decoded
from octane_analytics.interfaces import Clock
from octane_analytics.replay.interfaces import ReplayLog, Staged, StagingStore
from octane_analytics.replay.pacing import RateLimit, retry_while_unavailable
from octane_analytics.types import OffsetRange, Record

BATCH_ROWS = 100_000
BATCH_BYTES = 32 << 20
_POLL_SECONDS = 0.2
_NO_ROW = (0, b"", b"", b"", b"")
DecodeAll = Callable[[Sequence[bytes | None]], Decoded]


class StagingReader:
    """Reader of one process. Not thread-safe."""

    def __init__(
        self,
        log: ReplayLog,
        staging: StagingStore,
        decode: DecodeAll,
        wanted: Mapping[int, OffsetRange],
        clock: Clock,
        pace: RateLimit,
    ) -> None:
        self._log = log
        self._staging = staging
        self._decode = decode
        self._wanted = wanted
        self._clock = clock
        self._pace = pace

    def copy(
        self,
        ranges: Mapping[int, OffsetRange],
        on_progress: Callable[[int], None] = lambda _: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Block until the offset ranges are staged; return False if a stop was requested before.

        `on_progress` is called with the number of records that were added. Raise Unavailable, or
        Interrupted if a stop is requested during an outage.
        """
        log, staged = self._log, Staged()
        log.start_reading(ranges)
        while not log.is_done and not is_stopping():
            records = log.poll(self._pace.available, _POLL_SECONDS).records
            self._decode_into(records, staged)
            # The records of one poll are staged together, so that a partition is staged without gaps.
            if len(staged) >= BATCH_ROWS or staged.payload_bytes >= BATCH_BYTES:
                staged = self._flush(staged, on_progress, is_stopping)
            self._pace.wait(len(records))
        self._flush(staged, on_progress, is_stopping)
        return log.is_done

    def _decode_into(self, records: Sequence[Record], staged: Staged) -> None:
        # Runs for millions of records: list operations in place of loops.
        values = [record.value() for record in records]
        decoded = self._decode(values)
        staged.payload_bytes += sum(map(len, filter(None, values)))
        for column, more in zip(staged.columns, decoded.columns, strict=True):
            column += more
        if not decoded.invalid:
            self._append_offsets(records, staged)
            return
        reasons = {index: reason for index, reason, _ in decoded.invalid}
        self._append_offsets([r for index, r in enumerate(records) if index not in reasons], staged)
        self._append_offsets([records[index] for index in reasons], staged)
        for column, field in zip(staged.columns, _NO_ROW, strict=True):
            column += [field] * len(reasons)
        first = len(staged) - len(reasons)
        staged.reasons |= dict(enumerate(reasons.values(), first))

    def _append_offsets(self, records: Sequence[Record], staged: Staged) -> None:
        """Append partition, offset and range membership of each record, in their order."""
        partitions: list[Any] = [record.partition() for record in records]
        offsets: list[Any] = [record.offset() for record in records]
        staged.partitions += partitions
        staged.offsets += offsets
        # Offsets ascend within a partition: if first and last are wanted, all between are.
        firsts = dict(zip(reversed(partitions), reversed(offsets), strict=True))
        lasts = dict(zip(partitions, offsets, strict=True))
        if all(self._is_wanted(p, firsts[p]) and self._is_wanted(p, lasts[p]) for p in lasts):
            staged.is_wanted += [1] * len(offsets)
        else:
            staged.is_wanted += map(self._is_wanted, partitions, offsets)

    def _is_wanted(self, partition: int, offset: int) -> bool:
        offset_range = self._wanted.get(partition)
        return offset_range is not None and offset_range.first <= offset < offset_range.end

    def _flush(
        self, staged: Staged, on_progress: Callable[[int], None], is_stopping: Callable[[], bool]
    ) -> Staged:
        if len(staged):
            retry_while_unavailable(lambda: self._staging.stage(staged), self._clock, is_stopping)
            on_progress(len(staged))
        return Staged()
