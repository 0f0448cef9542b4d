"""Brings the target to what the log says: compares, inserts what is lacking, compares again.

**What fill promises.** Afterwards every valid event of the range is in the target as often as in the
whole log (`Compare.LOG`), up to what the workers have committed. Rows do not tell their offset, so equal
events elsewhere in the log count too: of two equal events of which one is lost, nobody can say which
one it was. Counting over the log gives the right number whatever the range is, however ranges overlap,
and inserts nothing where nothing is lost. The price is reading the log; `Compare.RANGE` reads the range
alone, never inserts too much either, and leaves a lost event out where an equal one outside of the range
stands in for it. In both, a row whose record retention has removed stands in for an equal one that is
still in the log: a gap may stay, a duplicate never comes. Surplus rows are left as they are.

**Beside live workers.** Committed offsets say: everything before is inserted. Intents say: nothing at or
behind the announced end is, for the announcement comes first. So a pass reads the offsets (C), counts
the log up to C and then the target; whatever the target has less than that is lost for certain, since
live rows can only make it look fuller. Inserting that much is always right. Then the pass reads offsets
and intents once more (E). An event that does not stand in the log between C and E was counted exactly
and is done with; the others, few, are looked at again by the next pass with younger C and E, until none
is left. Workers that announce nothing (at least once) may have inserted up to the log's end.

**Crashes.** What a pass found is written down before it is inserted, in numbered chunks, each with a
token of its own (replay, pass, slice, chunk). After a crash the chunk in doubt is inserted again under
its token, while that is young enough to be remembered; then fill compares anew and append goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from octane_analytics.errors import DataRejected, OctaneError
from octane_analytics.interfaces import Clock
from octane_analytics.pipeline.delivery_ledger import parse_intent
from octane_analytics.replay.interfaces import ReplayLog, StagedChunk, StagedSlice, StagingStore
from octane_analytics.replay.pacing import (
    AttemptFailed,
    Interrupted,
    RateLimit,
    retry_while_unavailable,
)
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.replay.staging_reader import StagingReader
from octane_analytics.types import Committed, OffsetRange

_SETTLE_SECONDS = 60.0
"""How long to go after events that the workers are inserting equal ones of."""
_STILL_SECONDS = 10.0
"""Workers that have not moved on for so long are away, and what they announced stays announced."""
_SETTLE_PAUSE_SECONDS = 0.5
_DOUBT_SECONDS = 600.0
"""An insert that was begun longer ago has ended; what the target holds tells how."""
_MAX_PASSES = 1000

_T = TypeVar("_T")


@dataclass(slots=True)
class FillOutcome:
    inserted: int = 0
    refused: int = 0
    """Rows that ClickHouse does not take for what is in them."""
    refusal: str = ""
    undecided: int = 0
    """Different events that could not be counted beside the workers."""


@dataclass(frozen=True, slots=True)
class ReplayControl:
    """Whom it tells how far it is, and asks whether to go on."""

    say: Callable[[str], None]
    is_stopping: Callable[[], bool]

    def check(self) -> None:
        if self.is_stopping():
            raise Interrupted


class FillReplay:
    """Of one replay whose range is staged. Not for use by several threads."""

    def __init__(
        self,
        plan: ReplayPlan,
        bench: StagingStore,
        log: ReplayLog,
        reader: StagingReader,
        clock: Clock,
        pace: RateLimit,
        steps: ReplayControl,
    ) -> None:
        self._plan = plan
        self._bench = bench
        self._log = log
        self._reader = reader
        self._clock = clock
        self._pace = pace
        self._steps = steps
        self._outcome = FillOutcome()
        self._pass = 0
        self._staged: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    def run(self, *, is_dry: bool = False) -> FillOutcome:
        """Blocks until the target holds what it should. Raises Interrupted between two chunks.

        Dry, it answers as inserted what it would insert.
        """
        self._staged = dict(self._bench.positions())
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
        """Instead of `run`, for who uses the steps below; answers as `read_on`."""
        self._staged = dict(self._bench.positions())
        self._recover()
        return self.read_on()

    def fill_questioned(self, number: int) -> None:
        """As `run`, for the events that pass `number` left undecided."""
        self._fill_live(number, is_dry=False)

    def next_pass(self) -> int:
        self._pass += 1
        self._bench.journal("pass", str(self._pass))
        return self._pass

    def _recover(self) -> None:
        """Finishes the chunk that a predecessor had under way."""
        begun: dict[str, float] = {}
        done: set[str] = set()
        for note in self._bench.journal_entries():
            if note.kind == "pass":
                self._pass = max(self._pass, int(note.body))
            elif note.kind == "chunk":
                begun[note.body] = note.age_seconds
            elif note.kind == "done":
                name, _, rows = note.body.partition(" ")
                done.add(name)
                self._outcome.inserted += int(rows)
        for name, age_seconds in begun.items():
            is_young = age_seconds < _DOUBT_SECONDS or self._plan.mode is Mode.APPEND
            if is_young and name not in done:
                self._deliver(StagedChunk(*map(int, name.split("/"))))

    def _append(self) -> None:
        notes = self._bench.journal_entries()
        planned = [int(note.body) for note in notes if note.kind == "planned"]
        if planned:
            number = planned[-1]
        else:
            number = self._plan_pass(self._bench.take_all)
            self._bench.journal("planned", str(number))
        done = {note.body.partition(" ")[0] for note in notes if note.kind == "done"}
        for chunk in self._bench.chunks(number):
            if _name(chunk) not in done:
                self._steps.check()
                self._deliver(chunk)

    def _fill_alone(self, *, is_dry: bool) -> None:
        limits = None
        if self._plan.compare is Compare.LOG:
            limits = {p: span.end for p, span in self._plan.reading.items()}
        for _ in range(_MAX_PASSES):
            inserted, is_doubtful = self._pass_over(limits, None, is_dry=is_dry)
            if is_dry or not is_doubtful or not inserted:
                return

    def _fill_live(self, after: int | None, *, is_dry: bool) -> None:
        asked, stood_since = after, self._clock.now()
        deadline = stood_since + _SETTLE_SECONDS
        stood: tuple[dict[int, int], dict[int, int]] | None = None
        for _ in range(_MAX_PASSES):
            limits = self.read_on()
            _, is_doubtful = self._pass_over(limits, after, is_dry=is_dry)
            if is_dry:
                return
            if is_doubtful:
                after = asked
                continue
            number = self._pass
            ends = self.read_ends(limits)
            left = self._bench.mark_undecided(number, after, limits, ends)
            after = number
            if not left:
                self._outcome.undecided = 0
                return
            self._outcome.undecided = left
            self._steps.say(f"{left:,} events equal to what the workers insert now: once more")
            now = self._clock.now()
            if (limits, ends) != stood:
                stood, stood_since = (limits, ends), now
            if now >= deadline or now - stood_since >= _STILL_SECONDS:
                return
            self._clock.sleep(_SETTLE_PAUSE_SECONDS)
            self._steps.check()

    def read_on(self) -> dict[int, int]:
        """Stages what the workers have committed meanwhile; up to where that is, by partition.

        Of a target that is not the workers' own: the end of what was planned.
        """
        if not self._plan.is_live:
            return {p: span.end for p, span in self._plan.reading.items()}
        partitions, committed, _ = self._patiently(self._facts).value
        limits = {p: committed[p].offset or 0 for p in partitions}
        for p, offset in self._committed.items():
            if limits.get(p, 0) < offset:
                raise OctaneError(
                    f"partition {p}: the group's offset went back from {offset} to "
                    f"{limits.get(p, 0)} during the replay: run it again"
                )
        self._committed = limits
        self._stage_up_to(limits)
        return limits

    def read_ends(self, limits: Mapping[int, int]) -> dict[int, int]:
        """Stages what the workers may have inserted by now; up to where that is, by partition."""
        if not self._plan.is_live:
            return dict(limits)
        partitions, committed, held = self._patiently(self._facts).value
        ends = {}
        for p in partitions:
            intent = parse_intent(committed[p].metadata)
            if intent is None or intent.span.first != committed[p].offset:
                end = held[p].end
            else:
                end = intent.span.end
            ends[p] = min(max(end, limits.get(p, 0)), held[p].end)
        self._stage_up_to(ends)
        return ends

    def _facts(self) -> tuple[list[int], Mapping[int, Committed], Mapping[int, OffsetRange]]:
        partitions = self._log.partitions()
        return partitions, self._log.committed(partitions), self._log.held(partitions)

    def _stage_up_to(self, ends: Mapping[int, int]) -> None:
        held = self._patiently(lambda: self._log.held(list(ends))).value
        spans = {}
        for p, end in ends.items():
            first = max(self._staged.get(p, 0), held[p].first)
            if first < end:
                spans[p] = OffsetRange(first, end)
        if spans and not self._reader.copy(spans, is_stopping=self._steps.is_stopping):
            raise Interrupted
        self._staged |= {p: span.end for p, span in spans.items()}

    def _pass_over(
        self, limits: Mapping[int, int] | None, after: int | None, *, is_dry: bool
    ) -> tuple[int, bool]:
        """How many rows were lacking and are inserted, and whether to look again at everything."""
        number = self._plan_pass(lambda n, part: self._bench.find_missing(n, part, limits, after))
        if is_dry:
            self._outcome.inserted = self._bench.missing_rows(number)
            return self._outcome.inserted, False
        before = self._outcome.inserted
        is_doubtful = False
        for chunk in self._bench.chunks(number):
            self._steps.check()
            is_doubtful |= self._deliver(chunk)
        return self._outcome.inserted - before, is_doubtful

    def _plan_pass(self, find: Callable[[int, StagedSlice], None]) -> int:
        """A number whose pass is written down completely; one that failed halfway is never used."""

        def attempt() -> None:
            self.next_pass()
            self._bench.sync()
            slices = self._bench.slices()
            for part in slices:
                self._steps.check()
                self._steps.say(f"comparing {part.number + 1:,} of {len(slices):,}")
                find(self._pass, part)

        self._patiently(attempt)
        return self._pass

    def _deliver(self, chunk: StagedChunk) -> bool:
        """Inserts the chunk; whether it had to be repeated."""
        name = _name(chunk)
        columns = self._bench.rows(chunk)
        self._bench.journal("chunk", name)
        token = f"octane-replay/{self._plan.id}/{name}"
        refused_before = self._outcome.refused
        is_repeated = self._insert(columns, token, 0, len(columns[0]))
        rows = len(columns[0]) - (self._outcome.refused - refused_before)
        self._bench.journal("done", f"{name} {rows}")
        self._outcome.inserted += rows
        self._steps.say(f"{self._outcome.inserted:,} inserted")
        self._pace.wait(rows)
        return is_repeated

    def _insert(
        self, columns: Sequence[Sequence[object]], token: str, first: int, end: int
    ) -> bool:
        """Halves what the server refuses for its data until the bad rows are alone."""
        part = [column[first:end] for column in columns]
        try:
            return self._patiently(
                lambda: self._bench.insert(part, f"{token}/{first}-{end}")
            ).was_repeated
        except DataRejected as error:
            if end - first == 1:
                self._outcome.refused += 1
                self._outcome.refusal = str(error)
                return False
        middle = (first + end) // 2
        lower = self._insert(columns, token, first, middle)
        return self._insert(columns, token, middle, end) or lower

    def _patiently(self, call: Callable[[], _T]) -> AttemptFailed[_T]:
        return retry_while_unavailable(call, self._clock, self._steps.is_stopping)


def _name(chunk: StagedChunk) -> str:
    return "/".join(map(str, chunk))
