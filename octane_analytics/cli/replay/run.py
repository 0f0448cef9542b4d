"""One replay from its staging tables to its report, with the processes that read for it."""

import gc
import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Self

from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.replay.heartbeat import heartbeat
from octane_analytics.cli.replay.setup import DRY, ENDED, owner
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.errors import ConfigError, NeedsOperator, OctaneError, Unavailable
from octane_analytics.events.decode import decode_all
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.fill import FillOutcome, FillReplay, ReplayControl
from octane_analytics.replay.interfaces import Counts
from octane_analytics.replay.pacing import Interrupted, RateLimit
from octane_analytics.replay.plan import Mode, ReplayPlan
from octane_analytics.replay.rebuild import MonthRefused, RebuildReplay
from octane_analytics.replay.staging_reader import StagingReader
from octane_analytics.runtime.exit_codes import Exit, exit_for
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.runtime.timing import SystemClock
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.posix import PosixSystem
from octane_analytics.types import OffsetRange

_CLIENT = "octane-analytics-replay"
_TURN_SECONDS = 0.2
_HEARTBEAT_SECONDS = 30.0
_GC_ALLOCATIONS = 50_000
_COUNT = struct.Struct("q")
_ERRORS = {
    Exit.CONFIG: NeedsOperator,
    Exit.UNAVAILABLE: Unavailable,
    Exit.FAILED: OctaneError,
}


@dataclass(frozen=True, slots=True)
class Sizes:
    procs: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of the range."""

    plan: ReplayPlan
    is_dry: bool
    counts: Counts = field(default_factory=Counts)
    inserted: int = 0
    refused: int = 0
    refusal: str = ""
    undecided: int = 0
    read_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def already_present(self) -> int:
        if self.plan.mode is not Mode.FILL:
            return 0
        present = self.counts.valid - self.counts.expired - self.inserted - self.refused
        return max(0, present)

    def as_note(self) -> str:
        """All but the plan, for the journal."""
        fields = asdict(self)
        del fields["plan"]
        return json.dumps(fields)

    @classmethod
    def of_note(cls, plan: ReplayPlan, body: str) -> Self:
        fields = json.loads(body)
        return cls(plan, **fields | {"counts": Counts(**fields["counts"])})


class ReplayRun:
    """To be called once. Forks; for the main thread."""

    def __init__(
        self,
        settings: Settings,
        plan: ReplayPlan,
        live: LiveTable,
        clickhouse: ClickHouseSink,
        stop: StopSignal,
        sizes: Sizes,
        *,
        is_dry: bool,
        is_forced: bool,
    ) -> None:
        self.plan = plan
        self.stop = stop
        self._settings = settings
        self._live = live
        self._sizes = sizes
        self._is_dry = is_dry
        self._is_forced = is_forced
        self._clickhouse = clickhouse
        self._bench = ReplayStaging(clickhouse, plan.id, live)
        self._clock = SystemClock()
        self._has_begun = False
        self._is_refused = False

    @property
    def is_resumable(self) -> bool:
        """Whether it has left something that a later one may go on with."""
        return self._has_begun and not self._is_dry and not self._is_refused

    def run(self, *, is_resumed: bool) -> ReplayReport:
        """Blocks. Raises Interrupted, and what Kafka and ClickHouse say."""
        started = self._clock.now()
        is_done = False
        try:
            self._begin(is_resumed)
            self._read()
            read_seconds = self._clock.now() - started
            counts = self._bench.counts()
            outcome = self._bring_about()
            report = ReplayReport(
                self.plan,
                self._is_dry,
                counts,
                outcome.inserted,
                outcome.refused,
                outcome.refusal,
                outcome.undecided,
                read_seconds,
                self._clock.now() - started,
            )
            # Whoever resumes it while its tables are dropped is told that it has ended, and how.
            self._bench.journal(ENDED, report.as_note())
            is_done = True
        except MonthRefused:
            # Going on would end the same way.
            self._is_refused = True
            raise
        finally:
            self._end(is_done or self._is_refused)
        return report

    def _begin(self, is_resumed: bool) -> None:
        if is_resumed:
            with TopicReader(self._settings.kafka, client_id=_CLIENT) as log:
                if log.identity() != self.plan.log:
                    raise ConfigError(
                        f"topic {self.plan.topic} is not the one that this replay began with: start "
                        "a new one"
                    )
        else:
            self._bench.create(owner())
            if self._is_dry:
                self._bench.journal(DRY, "")
            self._bench.journal("plan", self.plan.as_json())
        self._has_begun = True
        if is_resumed:
            self._bench.journal("owner", owner())

    def _end(self, is_done: bool) -> None:
        if not self._has_begun or is_done or self._is_dry:
            self._bench.drop()
        else:
            try:
                self._bench.journal("stopped", "")
            except OctaneError:
                return  # it is found out by the process that is gone

    def _read(self) -> None:
        staged = self._bench.positions()
        left = {
            p: OffsetRange(max(span.first, staged.get(p, 0)), span.end)
            for p, span in self.plan.reading.items()
            if staged.get(p, 0) < span.end
        }
        total = self.plan.to_read
        done_before = total - sum(span.end - span.first for span in left.values())
        shares = _shares(left, self._sizes.procs)
        counters = mmap.mmap(-1, max(1, len(shares)) * _COUNT.size)
        system = PosixSystem()
        children: dict[int, int] = {}
        for slot, share in enumerate(shares):
            receiving, sending = os.pipe()
            pid = system.fork(
                f"replay-{slot}",
                lambda slot=slot, share=share, sending=sending: self._read_share(  # type: ignore[misc]
                    slot, share, len(shares), counters, sending
                ),
            )
            os.close(sending)
            children[pid] = receiving
        started = self._clock.now()
        failure: OctaneError | None = None
        is_complete = True
        with self._pulsing(), reporter(f"reading {self.plan.topic}", total) as bar:
            while children:
                for pid, code in system.reap():
                    receiving = children.pop(pid, -1)
                    if receiving < 0:
                        continue
                    told = _drained(receiving)
                    if code not in (Exit.OK, Exit.INTERRUPTED):
                        failure = failure or _failure(code, told)
                        for other in children:
                            system.kill(other, 15)
                    is_complete &= code == Exit.OK
                if self.stop.is_set():
                    # The terminal tells the whole group; a SIGTERM comes to this process alone.
                    for other in children:
                        system.kill(other, 15)
                now = self._clock.now()
                read = sum(
                    _COUNT.unpack_from(counters, slot * _COUNT.size)[0]
                    for slot in range(len(shares))
                )
                bar.update(
                    done_before + read, _note(done_before + read, total, read, now - started)
                )
                if children:
                    time.sleep(_TURN_SECONDS)
        if failure is not None:
            raise failure
        if not is_complete or self.stop.is_set():
            raise Interrupted

    def _read_share(
        self,
        slot: int,
        share: Mapping[int, OffsetRange],
        of: int,
        counters: mmap.mmap,
        sending: int,
    ) -> int:
        """The body of a reading process."""
        gc.freeze()
        gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
        read = 0

        def count(records: int) -> None:
            nonlocal read
            read += records
            _COUNT.pack_into(counters, slot * _COUNT.size, read)

        rate = None if self._sizes.rate is None else self._sizes.rate / of
        try:
            with (
                StopSignal() as stop,
                TopicReader(self._settings.kafka, client_id=f"{_CLIENT}-{slot}") as log,
                ClickHouseSink(
                    self._settings.clickhouse, client_name=f"octane-analytics replay-{slot}"
                ) as clickhouse,
            ):
                bench = ReplayStaging(clickhouse, self.plan.id, self._live)
                pace = RateLimit(rate, self._clock, stop.is_set)
                reader = StagingReader(log, bench, decode_all, self.plan.wanted, self._clock, pace)
                is_done = reader.copy(share, count, stop.is_set)
        except Interrupted:
            return int(Exit.INTERRUPTED)
        except OctaneError as error:
            os.write(sending, str(error).encode()[:4000])
            return int(exit_for(error))
        return int(Exit.OK if is_done else Exit.INTERRUPTED)

    def _pulsing(self) -> AbstractContextManager[None]:
        """So that a replay on another machine does not take this one for dead, and its tables away."""

        def beat() -> None:
            name = f"{_CLIENT}-alive"
            with ClickHouseSink(self._settings.clickhouse, client_name=name) as clickhouse:
                ReplayStaging(clickhouse, self.plan.id, self._live).journal("alive", "")

        return heartbeat(beat, _HEARTBEAT_SECONDS)

    def _bring_about(self) -> FillOutcome:
        label = "comparing with" if self.plan.mode is Mode.FILL else f"{self.plan.mode.value} to"
        target = f"{self.plan.database}.{self.plan.table}"
        with (
            self._pulsing(),
            TopicReader(self._settings.kafka, client_id=_CLIENT) as log,
            reporter(f"{label} {target}", None) as bar,
        ):
            steps = ReplayControl(lambda told: bar.update(0, told), self.stop.is_set)
            pace = RateLimit(self._sizes.rate, self._clock, self.stop.is_set)
            reader = StagingReader(
                log,
                self._bench,
                decode_all,
                self.plan.wanted,
                self._clock,
                RateLimit(None, self._clock),
            )
            filling = FillReplay(self.plan, self._bench, log, reader, self._clock, pace, steps)
            if self.plan.mode is not Mode.REBUILD:
                return filling.run(is_dry=self._is_dry)
            rebuilding = RebuildReplay(
                filling, self._bench, self._clock, steps, is_forced=self._is_forced
            )
            months = tuple(self.plan.months or self._bench.months())
            planned = {p: span.end for p, span in self.plan.reading.items()}
            return rebuilding.run(months, planned, is_dry=self._is_dry)


def _shares(spans: Mapping[int, OffsetRange], procs: int) -> list[dict[int, OffsetRange]]:
    """The partitions, for each process about as many offsets; none without any."""
    shares: list[dict[int, OffsetRange]] = [{} for _ in range(min(procs, len(spans)))]
    weights = [0] * len(shares)
    for p, span in sorted(spans.items(), key=lambda item: item[1].first - item[1].end):
        lightest = weights.index(min(weights))
        shares[lightest][p] = span
        weights[lightest] += span.end - span.first
    return shares


def _note(done: int, total: int, read: int, seconds: float) -> str:
    told = f"{done:,} of {total:,} events"
    if read and seconds > 0:
        rate = read / seconds
        told += f", {rate:,.0f} events/s, {max(0, total - done) / rate:,.0f} s left"
    return told


def _drained(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def _failure(code: int, told: str) -> OctaneError:
    if not told:
        return OctaneError(f"a reading process ended with {code}: resume the replay")
    kind = _ERRORS.get(Exit(code), OctaneError) if code in list(Exit) else OctaneError
    return kind(told)
