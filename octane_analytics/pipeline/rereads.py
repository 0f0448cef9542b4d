"""Batches that are read again: those of previous owners, and those that ClickHouse refused.

They are read outside the group, because a batch has partitions that its worker does not own. A partition
that cannot be read delays only the batches that name it: the others are read meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from octane_analytics.errors import DataRejected, Unavailable
from octane_analytics.interfaces import RangeReader, Trace
from octane_analytics.pipeline.batch import Batch, partitions_of
from octane_analytics.pipeline.batch_writer import BatchWriter, WriteProgress
from octane_analytics.pipeline.context import PipelineContext
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.outages import CLICKHOUSE, DEAD_LETTERS, KAFKA
from octane_analytics.pipeline.split_insert import PlacedRows, SplitInsert
from octane_analytics.runtime.timing import Backoff
from octane_analytics.types import Record, TopicPartition

_POLL_RECORDS = 1_000
_POLL_SECONDS = 0.1
_TURN_SECONDS = 2.0
"""Time of one reading, or of the inserts of parts, after which the loop continues."""


@dataclass(slots=True)
class Reread:
    """One batch that is read again."""

    intent: Intent
    pauses: Backoff
    started_at: float
    is_own: bool
    """True if this worker announced the batch; the dead-letter limit has counted its records then."""
    is_repeat: bool = True
    """True if rows of the batch may be in the table."""
    trace: Trace | None = None
    keeps_records: bool = False
    """True if bad rows must be isolated, for which their records are needed."""
    progress: WriteProgress = field(default_factory=WriteProgress)
    batch: Batch = field(default_factory=Batch)
    records: list[Record] = field(default_factory=list)
    rows: PlacedRows | None = None
    split: SplitInsert | None = None
    retry_at: float = 0.0
    has_begun: bool = False
    is_read: bool = False

    def restart(self) -> None:
        """Discard what was read."""
        self.batch, self.records = Batch(), []
        self.rows = self.split = None
        self.has_begun = self.is_read = False


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """Batch whose rows are in the table, or refused and in the dead-letter topic."""

    intent: Intent
    rows_by_partition: Mapping[int, int]
    payload_bytes: int
    timestamps: Sequence[int]
    started_at: float
    trace: Trace | None


class Rereads:
    """Reader and writer of one batch at a time, step by step."""

    def __init__(
        self, reader: RangeReader, writer: BatchWriter, context: PipelineContext, backoff: Backoff
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._context = context
        self._backoff = backoff
        self._jobs: dict[Intent, Reread] = {}
        self._active: Reread | None = None

    def __contains__(self, intent: Intent) -> bool:
        return intent in self._jobs

    def add_refused(
        self, intent: Intent, progress: WriteProgress, trace: Trace | None, *, is_repeat: bool
    ) -> None:
        """Read a batch of this worker again, with its records, to isolate the rows that are refused."""
        job = Reread(intent, self._backoff.fresh(), self._context.clock.now(), is_own=True)
        job.keeps_records, job.is_repeat = True, is_repeat
        job.progress, job.trace = progress, trace
        self._jobs[intent] = job

    def keep(self, wanted: Iterable[Intent]) -> None:
        """Read exactly these batches again, and abandon all others."""
        jobs = {}
        for intent in wanted:
            jobs[intent] = self._jobs.get(intent) or Reread(
                intent, self._backoff.fresh(), self._context.clock.now(), is_own=False
            )
        for intent, job in self._jobs.items():
            if intent not in jobs and job.trace is not None and not job.is_own:
                job.trace.end(None)
        self._jobs = jobs
        if self._active is not None and self._active.intent not in jobs:
            self._active = None

    def clear(self) -> None:
        self.keep(())

    def wait_seconds(self, now: float) -> float | None:
        """Return the time until a batch is to be read or written; None if there is none."""
        if self._active is not None and self._active.is_read:
            return max(0.0, self._active.retry_at - now)
        return min((max(0.0, job.retry_at - now) for job in self._jobs.values()), default=None)

    def read(self) -> Reread | None:
        """Continue to read; return a batch that was read completely. Blocks for some seconds."""
        job = self._next()
        if job is None:
            return None
        try:
            if not job.is_read:
                with self._context.outages.track(KAFKA, "recover"):
                    self._read(job)
        except Unavailable as error:
            self._wait(job, error)
            job.has_begun = False
            self._active = None
        return job if job.is_read else None

    def write(self, job: Reread, owned: set[int]) -> WrittenBatch | None:
        """Write a batch that was read; None if that is not finished."""
        # An owner of the other partitions may insert them.
        job.is_repeat |= len(owned) < len(job.intent.ranges)
        try:
            return self._write_parts(job, owned) if job.keeps_records else self._write(job, owned)
        except Unavailable as error:
            # Stays the active one: holding one batch in memory is enough during an outage.
            self._wait(job, error)
        except DataRejected as error:
            self._context.observer.bisecting_rejected_rows(job.intent.ranges, str(error))
            job.keeps_records = True
            job.restart()
        return None

    def _next(self) -> Reread | None:
        now, active = self._context.clock.now(), self._active
        if active is not None and (active.is_read or active.retry_at <= now):
            return active if active.retry_at <= now else None
        ready = [job for job in self._jobs.values() if job.retry_at <= now]
        if not ready:
            return None
        job = min(ready, key=lambda job: job.retry_at)
        job.restart()
        self._active = job
        return job

    def _wait(self, job: Reread, error: Unavailable) -> None:
        job.retry_at = self._context.clock.now() + job.pauses.next_seconds()
        self._context.observer.recovery_waits(job.intent.ranges, job.intent.token(), error)

    def _read(self, job: Reread) -> None:
        clock = self._context.clock
        if not job.has_begun:
            job.restart()
            for gone in self._reader.begin(job.intent.ranges):
                where = TopicPartition(job.intent.topic, gone.partition)
                self._context.observer.offsets_gone(where, gone.first, gone.end)
            job.has_begun = True
        deadline = clock.now() + _TURN_SECONDS
        while not self._reader.is_done:
            if clock.now() >= deadline:
                return
            self._add(job, self._reader.poll(_POLL_RECORDS, _POLL_SECONDS))
        job.is_read = True
        if job.trace is None and self._context.tracer is not None:
            job.trace = self._context.tracer.begin(
                job.intent.topic, job.intent.ranges, job.batch.contexts
            )

    def _add(self, job: Reread, records: Sequence[Record]) -> None:
        context = self._context
        if not records:
            return
        if context.tracer is not None and job.trace is None:
            job.batch.add_contexts(records, context.tracer)
        if job.keeps_records:
            job.records += records
            return
        numbers = partitions_of(records)
        rejected = job.batch.append(records, numbers, context.decode, context.clock.now())
        context.observer.consumed(len(records))
        if rejected:
            context.observer.rejected(rejected)

    def _write(self, job: Reread, owned: set[int]) -> WrittenBatch:
        batch, context = job.batch, self._context
        with context.outages.track(DEAD_LETTERS, "send"):
            sent = self._writer.send_rejected(batch.rejected, owned, job.progress)
        context.observer.dead_lettered(sent)
        with step(job.trace, "insert"), context.outages.track(CLICKHOUSE, "insert"):
            self._writer.insert(
                batch.columns, job.intent, is_repeat=True, not_before=batch.not_before
            )
        if batch.rows:
            context.dlq_limit.record_inserted(0)
        return WrittenBatch(
            job.intent,
            batch.rows_by_partition,
            batch.payload_bytes,
            batch.columns[0],
            job.started_at,
            job.trace,
        )

    def _write_parts(self, job: Reread, owned: set[int]) -> WrittenBatch | None:
        context, rows, split = self._context, job.rows, job.split
        if rows is None or split is None:
            rows = job.rows = PlacedRows(job.records, context.decode)
            split = job.split = SplitInsert(
                self._writer.sink(job.intent),
                rows,
                job.intent,
                context.clock,
                context.dlq_limit,
                is_repeat=job.is_repeat,
                is_counted=job.is_own,
            )
        with context.outages.track(DEAD_LETTERS, "send"):
            sent = self._writer.send_rejected(rows.rejected, owned, job.progress)
        context.observer.dead_lettered(sent)
        deadline = context.clock.now() + _TURN_SECONDS
        with step(job.trace, "insert in parts"), context.outages.track(CLICKHOUSE, "insert"):
            if not split.run(deadline):
                return None
        refused = split.refused
        with context.outages.track(DEAD_LETTERS, "send"):
            refused_and_sent = self._writer.send_refused(refused, owned, job.progress)
        context.observer.rejected(refused_and_sent)
        context.observer.dead_lettered(len(refused_and_sent))
        return _written_in_parts(job, rows, [item.record for item in refused])


def _written_in_parts(job: Reread, rows: PlacedRows, refused: Sequence[Record]) -> WrittenBatch:
    counted = Counter(partitions_of(rows.records))
    counted.subtract(partitions_of(refused))
    payload_bytes = sum(len(record.value() or b"") for record in rows.records)
    timestamps = [second for second in rows.columns[0] if isinstance(second, int)]
    return WrittenBatch(job.intent, counted, payload_bytes, timestamps, job.started_at, job.trace)


def step(trace: Trace | None, name: str) -> AbstractContextManager[object]:
    """Return the context of one step of a batch's trace; calls inside belong to it."""
    return nullcontext() if trace is None else trace.step(name)
