"""Insert the rows of the log that the target is missing: compare, insert, compare again.

**Guarantee.** After a fill every valid event of the range is in the target as often as in the whole log
(`Compare.LOG`), up to the committed offsets of the workers. Rows do not carry their offset, so equal
events elsewhere in the log count too: if one of two equal events is lost, it is unknown which one.
Counting over the log gives the right number for any range, also if ranges overlap, and inserts nothing
if nothing is lost. The cost is reading the log. `Compare.RANGE` reads only the range. It never inserts
too much either, but misses a lost event if an equal one outside of the range is in the target. In both,
a row whose record was removed by retention substitutes for an equal one that is still in the log: a gap
may remain, a duplicate never appears. Surplus rows are left unchanged.

**Concurrent workers.** Everything before a committed offset is inserted. Nothing at or after the end of
an intent is inserted, because the intent is committed first. A pass therefore reads the offsets (C),
counts the log up to C and then the target. If the target has fewer rows than that, the difference is
lost for certain, since live rows can only raise the target's count; inserting the difference is always
right. Then the pass reads offsets and intents once more (E). An event that does not occur in the log
between C and E was counted exactly and is finished. The few others are compared again by the next pass
with newer C and E, until none remains. Workers without intents (at-least-once delivery) may have
inserted up to the end of the log.

**Crashes.** A pass stores the missing rows before it inserts them, in numbered chunks, each with its
own token (replay, pass, slice, chunk). After a crash the chunk in doubt is inserted again under its
token if the server still remembers tokens of that age; then fill compares again and append continues.
`chunk_inserts` divides a chunk that ClickHouse refuses. The journal survives the server of the staging
tables if that has replicas; fill and rebuild then read the log again, append waits for the server.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from octane_analytics.errors import OctaneError
from octane_analytics.interfaces import Clock
from octane_analytics.replay.chunk_inserts import ChunkInserts, chunk_name
from octane_analytics.replay.group_offsets import announced_ends, settled_offsets
from octane_analytics.replay.interfaces import ReplayLog, StagedChunk, StagedSlice, StagingStore
from octane_analytics.replay.pacing import (
    Interrupted,
    RateLimit,
    retry_while_unavailable,
)
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.replay.staging_reader import StagingReader
from octane_analytics.types import Committed, OffsetRange

_SETTLE_SECONDS = 60.0
"""Time limit for events that are equal to those the workers are inserting."""
_STILL_SECONDS = 10.0
"""Workers whose offsets stay unchanged for so long are stopped; their intents remain."""
_SETTLE_PAUSE_SECONDS = 0.5
_DOUBT_SECONDS = 600.0
"""An insert that started longer ago has ended; the rows of the target show its result."""
_MAX_PASSES = 1000
_LOST_PASSES = 100_000
"""Exceeds the number of passes whose journal entries another server may lack."""
MOVED = "moved"
"""Kind of journal entries: from here on the staging tables are on another server, and empty before."""

_T = TypeVar("_T")


@dataclass(slots=True)
class FillOutcome:
    inserted: int = 0
    refused: int = 0
    """Rows that ClickHouse rejects because of their data."""
    refusal: str = ""
    undecided: int = 0
    """Distinct events that could not be counted while the workers insert equal ones."""


@dataclass(frozen=True, slots=True)
class ReplayControl:
    """Callbacks of a running replay: where progress is reported, and when to stop."""

    report: Callable[[str], None]
    is_stopping: Callable[[], bool]

    def raise_if_stopping(self) -> None:
        """Raise Interrupted once a stop is requested."""
        if self.is_stopping():
            raise Interrupted


class FillReplay:
    """The insertion of missing rows for one replay whose range is staged. Not thread-safe."""

    def __init__(
        self,
        plan: ReplayPlan,
        staging: StagingStore,
        log: ReplayLog,
        reader: StagingReader,
        clock: Clock,
        pace: RateLimit,
        control: ReplayControl,
        *,
        late_insert_seconds: float = 0.0,
        is_sharded: bool = False,
    ) -> None:
        """`late_insert_seconds` is the time in which an insert has ended that a lost server runs.
        `is_sharded` means that the target is in several shards."""
        self._late_insert_seconds = late_insert_seconds
        self._is_sharded = is_sharded
        self._plan = plan
        self._staging = staging
        self._log = log
        self._reader = reader
        self._clock = clock
        self._pace = pace
        self._control = control
        self._chunks = ChunkInserts(
            plan.id,
            staging,
            clock,
            control.is_stopping,
            is_compared_again=plan.mode is not Mode.APPEND,
        )
        self._outcome = FillOutcome()
        self._pass = 0
        self._staged: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    def run(self, *, is_dry: bool = False) -> FillOutcome:
        """Block until the target holds the rows of the range; raise Interrupted between two chunks.

        A dry run inserts nothing and returns the number of missing rows as `inserted`.
        """
        self._staged = dict(self._staging.positions())
        if not is_dry:
            self._recover()
        if self._plan.mode is Mode.APPEND:
            self._append()
        elif self._plan.compare is Compare.RANGE or not self._plan.is_live:
            self._fill_alone(is_dry=is_dry)
        else:
            self._fill_live(None, is_dry=is_dry)
        return self._outcome

    def start(self) -> dict[int, int]:
        """Prepare for the steps below, in place of `run`; return the same as `stage_committed`."""
        self._staged = dict(self._staging.positions())
        self._recover()
        return self.stage_committed()

    def fill_undecided(self, number: int) -> None:
        """Block as `run`, over the events that pass `number` left undecided."""
        self._fill_live(number, is_dry=False)

    def next_pass(self) -> int:
        """Start a pass and return its number."""
        self._pass += 1
        self._staging.journal("pass", str(self._pass))
        return self._pass

    def note_replacement(self, month: int) -> None:
        """Write to the journal that the month is replaced now. Raise OctaneError without a journal: then
        another replay has dropped it, and may be at work."""
        self._retry(lambda: self._staging.journal("replacing", str(month)))

    def _recover(self) -> None:
        """Finish the chunk that a previous process was inserting when it ended.

        Its rows are not known if the staging tables were lost with their server. Then all events are
        compared again, after the time in which that server could still insert them.
        """
        started: dict[str, float] = {}
        done: set[str] = set()
        entries = self._staging.journal_entries()
        self._chunks.recover(entries)
        for entry in entries:
            if entry.kind == "pass":
                self._pass = max(self._pass, int(entry.body))
            elif entry.kind == "chunk":
                started[entry.body] = entry.age_seconds
            elif entry.kind == "done":
                name, _, rows = entry.body.partition(" ")
                self._outcome.inserted += int(rows) if name not in done else 0
                done.add(name)
            elif entry.kind == MOVED:
                self._pass += _LOST_PASSES
                self._wait_for_late_inserts(entry.age_seconds)
        for name, age_seconds in started.items():
            is_young = age_seconds < _DOUBT_SECONDS or self._plan.mode is Mode.APPEND
            if is_young and name not in done:
                chunk = StagedChunk(*map(int, name.split("/")))
                if self._staging.rows(chunk):
                    self._deliver(chunk, is_repeat=True)
                else:
                    self._wait_for_late_inserts(age_seconds)

    def _wait_for_late_inserts(self, age_seconds: float) -> None:
        until = self._clock.now() + self._late_insert_seconds - age_seconds
        while (left := until - self._clock.now()) > 0:
            self._control.raise_if_stopping()
            self._clock.sleep(min(left, _SETTLE_PAUSE_SECONDS))

    def _append(self) -> None:
        entries = self._staging.journal_entries()
        planned = [int(entry.body) for entry in entries if entry.kind == "planned"]
        if planned:
            number = planned[-1]
        else:
            number = self._plan_pass(self._staging.select_all)
            self._staging.journal("planned", str(number))
        done = {entry.body.partition(" ")[0] for entry in entries if entry.kind == "done"}
        for chunk in self._staging.chunks(number):
            if chunk_name(chunk) not in done:
                self._control.raise_if_stopping()
                self._deliver(chunk)

    def _fill_alone(self, *, is_dry: bool) -> None:
        limits = None
        if self._plan.compare is Compare.LOG:
            limits = {p: offsets.end for p, offsets in self._plan.reading.items()}
        for _ in range(_MAX_PASSES):
            inserted, is_doubtful = self._compare_and_insert(limits, None, is_dry=is_dry)
            if is_dry or not is_doubtful or not inserted:
                return

    def _fill_live(self, after: int | None, *, is_dry: bool) -> None:
        selected, unchanged_since = after, self._clock.now()
        deadline = unchanged_since + _SETTLE_SECONDS
        last_offsets: tuple[dict[int, int], dict[int, int]] | None = None
        for _ in range(_MAX_PASSES):
            limits = self.stage_committed()
            _, is_doubtful = self._compare_and_insert(limits, after, is_dry=is_dry)
            if is_dry:
                return
            if is_doubtful:
                after = selected
                continue
            number = self._pass
            ends = self.stage_intents(limits)
            left = self._staging.mark_undecided(number, after, limits, ends)
            after = number
            if not left:
                self._outcome.undecided = 0
                return
            self._outcome.undecided = left
            self._control.report(
                f"{left:,} events equal those that the workers insert; comparing again"
            )
            now = self._clock.now()
            if (limits, ends) != last_offsets:
                last_offsets, unchanged_since = (limits, ends), now
            if now >= deadline or now - unchanged_since >= _STILL_SECONDS:
                return
            self._clock.sleep(_SETTLE_PAUSE_SECONDS)
            self._control.raise_if_stopping()

    def stage_committed(self) -> dict[int, int]:
        """Stage the records up to the committed offsets; return those offsets by partition.

        For several shards, return the settled offsets in their place. For a target that is not the
        workers' own, return the planned ends. Raise OctaneError if a committed offset went back.
        """
        if not self._plan.is_live:
            return {p: offsets.end for p, offsets in self._plan.reading.items()}
        partitions, committed, _ = self._retry(self._read_offsets)
        limits = {p: committed[p].offset or 0 for p in partitions}
        for p, offset in self._committed.items():
            if limits.get(p, 0) < offset:
                raise OctaneError(
                    f"partition {p}: the group's offset went back from {offset} to "
                    f"{limits.get(p, 0)} during the replay: run it again"
                )
        self._committed = limits
        self._stage_up_to(limits)
        return limits | settled_offsets(self._log.topic, committed) if self._is_sharded else limits

    def stage_intents(self, limits: Mapping[int, int]) -> dict[int, int]:
        """Stage all records that the workers may have inserted; return their ends by partition."""
        if not self._plan.is_live:
            return dict(limits)
        partitions, committed, held = self._retry(self._read_offsets)
        announced = announced_ends(self._log.topic, committed)
        ends = {
            p: min(max(announced.get(p, held[p].end), limits.get(p, 0)), held[p].end)
            for p in partitions
        }
        self._stage_up_to(ends)
        return ends

    def _read_offsets(self) -> tuple[list[int], Mapping[int, Committed], Mapping[int, OffsetRange]]:
        partitions = self._log.partitions()
        return partitions, self._log.committed(partitions), self._log.retained_ranges(partitions)

    def _stage_up_to(self, ends: Mapping[int, int]) -> None:
        held = self._retry(lambda: self._log.retained_ranges(list(ends)))
        ranges = {}
        for p, end in ends.items():
            first = max(self._staged.get(p, 0), held[p].first)
            if first < end:
                ranges[p] = OffsetRange(first, end)
        if ranges and not self._reader.copy(ranges, is_stopping=self._control.is_stopping):
            raise Interrupted
        self._staged |= {p: offsets.end for p, offsets in ranges.items()}

    def _compare_and_insert(
        self, limits: Mapping[int, int] | None, after: int | None, *, is_dry: bool
    ) -> tuple[int, bool]:
        """Return the number of inserted rows, and whether all events must be compared again."""
        number = self._plan_pass(lambda n, part: self._staging.find_missing(n, part, limits, after))
        if is_dry:
            self._outcome.inserted = self._staging.missing_rows(number)
            return self._outcome.inserted, False
        before = self._outcome.inserted
        is_doubtful = False
        for chunk in self._staging.chunks(number):
            self._control.raise_if_stopping()
            is_doubtful |= self._deliver(chunk)
        return self._outcome.inserted - before, is_doubtful

    def _plan_pass(self, write_missing: Callable[[int, StagedSlice], None]) -> int:
        """Write a pass completely and return its number; the number of a failed one is not reused."""

        def attempt() -> None:
            self.next_pass()
            self._staging.sync()
            slices = self._staging.slices()
            for part in slices:
                self._control.raise_if_stopping()
                self._control.report(f"comparing {part.number + 1:,} of {len(slices):,}")
                write_missing(self._pass, part)

        self._retry(attempt)
        return self._pass

    def _deliver(self, chunk: StagedChunk, *, is_repeat: bool = False) -> bool:
        """Insert the chunk; return whether all events must be compared again."""
        name = chunk_name(chunk)
        columns = self._staging.rows(chunk)
        self._retry(lambda: self._staging.place(name))
        self._retry(lambda: self._staging.journal("chunk", name))
        done = self._chunks.insert(chunk, columns, is_repeat=is_repeat)
        self._retry(lambda: self._staging.journal("done", f"{name} {done.inserted}"))
        self._outcome.inserted += done.inserted
        self._outcome.refused += done.refused
        self._outcome.refusal = done.refusal or self._outcome.refusal
        self._control.report(f"{self._outcome.inserted:,} inserted")
        self._pace.wait(done.inserted)
        return done.is_doubtful

    def _retry(self, call: Callable[[], _T]) -> _T:
        return retry_while_unavailable(call, self._clock, self._control.is_stopping)
