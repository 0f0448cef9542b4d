"""Replaces whole months of the target by what the log says, each in one atomic step.

A month is built beside the target, counted, and put in its place with REPLACE PARTITION, so a reader
sees the old month or the new one. What is not in the build is gone then; so a month is refused that
Kafka does not hold completely: the range leaves out some of its events, or the target has rows of it
that stand nowhere in the log. And one is only replaced in a moment in which the workers have nothing of
it under way beyond what was built. Should they begin between that look and the replacement, what they
inserted is put back at once, as fill does it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from octane_analytics.errors import OctaneError
from octane_analytics.interfaces import Clock
from octane_analytics.replay.fill import FillOutcome, FillReplay, ReplayControl

_QUIET_SECONDS = 30.0
_QUIET_PAUSE_SECONDS = 0.5


class MonthRefused(OctaneError):
    """The month cannot be rebuilt without losing something; nothing has been touched."""


@dataclass(frozen=True, slots=True)
class MonthFacts:
    in_log: int
    """Events of the month that are staged."""
    outside: int
    """Those of them that the range leaves out."""
    strangers: int
    """Different rows of the target that stand nowhere in the log."""
    in_target: int


class MonthBuilder(Protocol):
    """`staging.Staging`, as far as it is needed here."""

    def month_facts(self, month: int, limits: Mapping[int, int]) -> MonthFacts: ...

    def build(self, month: int, limits: Mapping[int, int]) -> int:
        """Builds the month anew out of what is staged before the limits; its rows."""
        ...

    def count_between(
        self, month: int, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> int: ...
    def replace(self, month: int) -> None: ...
    def rows_unknown_to_kafka(
        self, number: int, month: int, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        """Notes those events between limits and ends as what pass `number` left undecided."""
        ...


class RebuildReplay:
    def __init__(
        self,
        filling: FillReplay,
        builder: MonthBuilder,
        clock: Clock,
        steps: ReplayControl,
        *,
        is_forced: bool,
    ) -> None:
        self._filling = filling
        self._builder = builder
        self._clock = clock
        self._steps = steps
        self._is_forced = is_forced

    def run(
        self, months: tuple[int, ...], planned: Mapping[int, int], *, is_dry: bool
    ) -> FillOutcome:
        """Blocks. Every month is looked at before the first one is touched; raises MonthRefused.

        `planned` is up to where the log was to be read: what came later is not left out by the range.
        """
        self._filling.start()
        outcome = FillOutcome()
        for month in months:
            facts = self._builder.month_facts(month, planned)
            self._check(month, facts)
            outcome.inserted += facts.in_log
        if is_dry:
            return outcome
        outcome.inserted = 0
        for month in months:
            self._steps.check()
            outcome.inserted += self._replace(month)
        return outcome

    def _check(self, month: int, facts: MonthFacts) -> None:
        if facts.in_log == 0:
            raise MonthRefused(f"month {month}: the log holds no event of it")
        if facts.outside:
            raise MonthRefused(
                f"month {month}: the range leaves out {facts.outside:,} of its {facts.in_log:,} "
                "events: begin earlier, or end later"
            )
        if facts.strangers and not self._is_forced:
            raise MonthRefused(
                f"month {month}: {facts.strangers:,} different rows of the table stand nowhere in "
                "Kafka and would be lost: use --mode fill, or --force where they are to go"
            )

    def _replace(self, month: int) -> int:
        deadline = self._clock.now() + _QUIET_SECONDS
        while True:
            limits = self._filling.read_on()
            self._steps.say(f"building {month}")
            built = self._builder.build(month, limits)
            expected = self._builder.month_facts(month, limits).in_log
            if built != expected:
                raise OctaneError(
                    f"month {month}: {built:,} rows were built of {expected:,} events; the target is "
                    "untouched: run it again"
                )
            ends = self._filling.read_ends(limits)
            if not self._builder.count_between(month, limits, ends):
                break
            if self._clock.now() >= deadline:
                raise OctaneError(
                    f"month {month}: the workers insert events of it all the time, and replacing it "
                    "would lose them: stop the workers, or use --mode fill, which runs beside them"
                )
            self._clock.sleep(_QUIET_PAUSE_SECONDS)
            self._steps.check()
        self._steps.say(f"replacing {month}")
        self._builder.replace(month)
        ends = self._filling.read_ends(limits)
        if self._builder.count_between(month, limits, ends):
            number = self._filling.next_pass()
            self._builder.rows_unknown_to_kafka(number, month, limits, ends)
            self._filling.fill_questioned(number)
        return built
