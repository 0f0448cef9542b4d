"""Replace whole months of the target by the events of the log, each in one atomic step.

A month is built in a separate table, counted, and moved into the target with REPLACE PARTITION, so a
reader sees the old month or the new one. Several shards are replaced one after the other: until the last
one is, a reader sees the new month of some shards and the old one of others. Rows that are not in the
build are lost; a month is therefore refused if Kafka does not hold it completely: the range leaves out
some of its events, or the target has rows of it that do not occur in the log. A month is only replaced
while the workers have no events of it in progress after those that were built. If they start an insert
between this check and the replacement, the lost rows are inserted again at once, by fill.

The replacement drops the deduplication tokens of the month. An insert that stalls in ClickHouse although
another worker has inserted its batch as well, through another replica, would add its rows afterwards. A
replacement therefore waits for the end of all inserts that were running when the build began. A worker
looks for the rows of a batch that it inserts late.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from octane_analytics.errors import OctaneError
from octane_analytics.interfaces import Clock
from octane_analytics.replay.fill import FillOutcome, FillReplay, ReplayControl
from octane_analytics.replay.pacing import retry_while_unavailable

_QUIET_SECONDS = 30.0
_QUIET_PAUSE_SECONDS = 0.5
_RUNNING_PAUSE_SECONDS = 0.1
RunningInserts = Callable[[], frozenset[tuple[str, str]]]
"""Return server and query id of each insert that is running; may raise Unavailable."""

_T = TypeVar("_T")


class MonthRefused(OctaneError):
    """The month cannot be rebuilt without losing rows; the target is unchanged."""


@dataclass(frozen=True, slots=True)
class MonthFacts:
    in_log: int
    """Staged events of the month."""
    outside_range: int
    """Staged events of the month that the range leaves out."""
    rows_unknown_to_kafka: int
    """Distinct rows of the target that do not occur in the log."""
    in_target: int
    """Rows of the month in the target."""


class MonthBuilder(Protocol):
    """The staging tables of a replay, as far as a rebuild uses them. All methods block."""

    def month_facts(self, month: int, limits: Mapping[int, int]) -> MonthFacts:
        """Return the counts that decide whether a month may be replaced."""
        ...

    def build(self, month: int, limits: Mapping[int, int]) -> int:
        """Recreate the build of the month from the events before the limits; return its rows."""
        ...

    def count_between(self, month: int, limits: Mapping[int, int], ends: Mapping[int, int]) -> int:
        """Return the number of events of the month between limits and ends."""
        ...

    def replace(self, month: int) -> None:
        """Replace the month of the target by the build: atomically in each shard. May be repeated."""
        ...

    def mark_month_undecided(
        self, number: int, month: int, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        """Mark the events of the month between limits and ends as undecided by pass `number`."""
        ...


class RebuildReplay:
    """The replacement of months for one replay whose range is staged. Not thread-safe."""

    def __init__(
        self,
        fill: FillReplay,
        builder: MonthBuilder,
        clock: Clock,
        control: ReplayControl,
        *,
        running_inserts: RunningInserts,
        is_forced: bool,
    ) -> None:
        self._running_inserts = running_inserts
        self._fill = fill
        self._builder = builder
        self._clock = clock
        self._control = control
        self._is_forced = is_forced

    def run(
        self, months: tuple[int, ...], planned: Mapping[int, int], *, is_dry: bool
    ) -> FillOutcome:
        """Block until the months are replaced; check all of them before the first replacement.

        `planned` holds the ends of the log at the time of the plan, by partition: later events do not
        count as left out by the range. Raise MonthRefused, or Interrupted between two months.
        """
        self._fill.start()
        outcome = FillOutcome()
        for month in months:
            facts = self._month_facts(month, planned)
            self._check(month, facts)
            outcome.inserted += facts.in_log
        if is_dry:
            return outcome
        outcome.inserted = 0
        for month in months:
            self._control.raise_if_stopping()
            outcome.inserted += self._replace(month)
        return outcome

    def _check(self, month: int, facts: MonthFacts) -> None:
        if facts.in_log == 0:
            raise MonthRefused(f"month {month}: the log holds no event of it")
        if facts.outside_range:
            raise MonthRefused(
                f"month {month}: the range leaves out {facts.outside_range:,} of its {facts.in_log:,} "
                "events: begin earlier, or end later"
            )
        if facts.rows_unknown_to_kafka and not self._is_forced:
            raise MonthRefused(
                f"month {month}: {facts.rows_unknown_to_kafka:,} distinct rows of the table are "
                "not in Kafka and would be lost: use --mode fill, or --force to remove them"
            )

    def _replace(self, month: int) -> int:
        deadline = self._clock.now() + _QUIET_SECONDS
        while True:
            limits = self._fill.stage_committed()
            running = self._retry(self._running_inserts)
            self._control.report(f"building {month}")
            built = self._build(month, limits)
            expected = self._month_facts(month, limits).in_log
            if built != expected:
                raise OctaneError(
                    f"month {month}: {built:,} rows were built from {expected:,} events; the target is "
                    "unchanged: run the replay again"
                )
            self._await_end(month, running)
            ends = self._fill.stage_intents(limits)
            if not self._builder.count_between(month, limits, ends):
                break
            if self._clock.now() >= deadline:
                raise OctaneError(
                    f"month {month}: the workers have batches of it in progress, and replacing it would "
                    "lose them: stop the workers with SIGTERM, which completes their batches, or use "
                    "--mode fill, which runs beside them"
                )
            self._clock.sleep(_QUIET_PAUSE_SECONDS)
            self._control.raise_if_stopping()
        self._control.report(f"replacing {month}")
        self._fill.note_replacement(month)
        self._retry(lambda: self._builder.replace(month))
        ends = self._fill.stage_intents(limits)
        if self._builder.count_between(month, limits, ends):
            number = self._fill.next_pass()
            self._builder.mark_month_undecided(number, month, limits, ends)
            self._fill.fill_undecided(number)
        return built

    def _await_end(self, month: int, inserts: frozenset[tuple[str, str]]) -> None:
        """Block until these inserts have ended. Raise OctaneError if one does not."""
        deadline = self._clock.now() + _QUIET_SECONDS
        while inserts and (late := inserts & self._retry(self._running_inserts)):
            if self._clock.now() >= deadline:
                address, query_id = min(late)
                raise OctaneError(
                    f"month {month}: insert {query_id} on {address} does not end, and its rows might be "
                    "there twice after a replacement: KILL QUERY it or wait, then run the replay again"
                )
            self._control.report(f"waiting for {len(late):,} inserts that began before the build")
            self._clock.sleep(_RUNNING_PAUSE_SECONDS)
            self._control.raise_if_stopping()

    def _month_facts(self, month: int, limits: Mapping[int, int]) -> MonthFacts:
        return self._retry(lambda: self._builder.month_facts(month, limits))

    def _build(self, month: int, limits: Mapping[int, int]) -> int:
        return self._retry(lambda: self._builder.build(month, limits))

    def _retry(self, call: Callable[[], _T]) -> _T:
        return retry_while_unavailable(call, self._clock, self._control.is_stopping)
