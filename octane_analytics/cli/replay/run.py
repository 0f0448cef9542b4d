"""Run one replay, from its staging tables to its report, with its reading processes."""

import gc
import mmap
import os
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.replay.fence import DRY, ENDED, PLAN, ReplayFence
from octane_analytics.cli.replay.heartbeat import heartbeat
from octane_analytics.cli.replay.owners import STOPPED, process_identity
from octane_analytics.cli.replay.report import ReplayReport
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_journal import OWNER
from octane_analytics.clickhouse.replay_months import Months
from octane_analytics.clickhouse.replay_shard_months import ShardMonths
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.replay_survey import ReplayServers
from octane_analytics.clickhouse.replay_target import ShardedTarget
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.errors import ConfigError, NeedsOperator, OctaneError, Unavailable
from octane_analytics.events.decoders import choose
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.fill import MOVED, FillOutcome, FillReplay, ReplayControl
from octane_analytics.replay.pacing import Interrupted, RateLimit
from octane_analytics.replay.plan import Mode, ReplayPlan
from octane_analytics.replay.rebuild import MonthRefused, RebuildReplay
from octane_analytics.replay.staging_reader import StagingReader
from octane_analytics.runtime.exit_codes import Exit, exit_for
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.runtime.timing import SystemClock
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.sections import Settings
from octane_analytics.supervisor.posix import PosixSystem
from octane_analytics.types import OffsetRange

_CLIENT = "octane-analytics-replay"
_REAP_SECONDS = 0.2
_HEARTBEAT_SECONDS = 30.0
_GC_ALLOCATIONS = 50_000
_COUNT = struct.Struct("q")
_ERRORS = {
    Exit.CONFIG: NeedsOperator,
    Exit.UNAVAILABLE: Unavailable,
    Exit.FAILED: OctaneError,
}


@dataclass(frozen=True, slots=True)
class ReplayResources:
    """Number of reading processes, and the limit of events per second (None: no limit)."""

    procs: int
    rate: float | None


class ReplayRun:
    """One replay. `run` may be called once, in the main thread; it forks."""

    def __init__(
        self,
        settings: Settings,
        plan: ReplayPlan,
        live: LiveTable,
        clickhouse: ClickHouseSink,
        stop: StopSignal,
        resources: ReplayResources,
        servers: ReplayServers,
        *,
        target: ShardedTarget | None = None,
        peers: Sequence[ClickHouseSettings] = (),
        is_dry: bool,
        is_forced: bool,
    ) -> None:
        """`settings` and `clickhouse` are of the server of the staging tables, which has the target too
        unless `target` is given; `peers` are the settings of each of its other replicas."""
        self.plan = plan
        self.stop = stop
        self._settings = settings
        self._live = live
        self._resources = resources
        self._servers = servers
        self._fence = ReplayFence(servers, clickhouse.table)
        self._is_dry = is_dry
        self._is_forced = is_forced
        self._is_sharded = target is not None
        self._clickhouse = clickhouse
        self._staging = ReplayStaging(clickhouse, plan.id, live, target, peers)
        self._shard_months: ShardMonths | None = None
        if target is not None and plan.mode is Mode.REBUILD:
            self._shard_months = ShardMonths(
                self._staging, target.settings_of_all, client_name=_CLIENT
            )
        self._clock = SystemClock()
        self._decode = choose(settings.worker.decoder).decode
        self._has_begun = False
        self._is_refused = False
        self._is_of_another = False
        """True if another process resumes the replay, which keeps its tables."""

    @property
    def is_resumable(self) -> bool:
        """True if the replay left staging tables with which it can be resumed."""
        return self._has_begun and not self._is_dry and not self._is_refused

    def run(self, *, is_resumed: bool) -> ReplayReport:
        """Block until the replay is done. Raises Interrupted, and errors of Kafka and ClickHouse."""
        started = self._clock.now()
        is_done = False
        try:
            self._begin(is_resumed)
            self._read()
            read_seconds = self._clock.now() - started
            counts = self._staging.counts()
            outcome = self._apply()
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
            # If dropping the tables is interrupted, --resume prints this report and drops the rest.
            self._staging.journal(ENDED, report.as_json())
            is_done = True
        except MonthRefused:
            # A resumed replay would be refused in the same way.
            self._is_refused = True
            raise
        finally:
            self._end(is_done or self._is_refused)
        return report

    def _begin(self, is_resumed: bool) -> None:
        self._has_begun = is_resumed  # what another process left is kept, also while Kafka is away
        if is_resumed:
            with TopicReader(self._settings.kafka, client_id=_CLIENT) as log:
                if log.identity() != self.plan.log:
                    self._is_refused = True
                    raise ConfigError(
                        f"topic {self.plan.topic} was recreated after this replay began: start a new "
                        "replay"
                    )
        else:
            self._staging.create(process_identity())
            marks = [(DRY, "")] if self._is_dry else []
            self._staging.journal_together([*marks, (PLAN, self.plan.as_json())])
        if is_resumed:
            self._staging.journal(OWNER, process_identity())
        try:
            self._fence.require_alone(self.plan.id, is_resumed=is_resumed)
        except ConfigError:
            self._is_of_another = is_resumed
            raise
        self._has_begun = True
        if is_resumed and not self._staging.is_complete():
            self._move()

    def _move(self) -> None:
        """Continue without the staging tables of an earlier process, which are on another server."""
        if self.plan.mode is Mode.APPEND:
            raise Unavailable(
                f"the staging tables of replay {self.plan.id} are on another replica, and an append "
                "cannot go on without them: resume it when that server is back"
            )
        self._staging.journal(MOVED, "")
        self._staging.recreate()

    def _end(self, is_done: bool) -> None:
        if self._is_of_another:
            return
        if not self._has_begun or is_done or self._is_dry:
            if self._shard_months is not None:
                self._shard_months.drop()
            self._staging.drop()
        else:
            if self._shard_months is not None:
                self._shard_months.close()
            try:
                self._staging.journal(STOPPED, "")
            except OctaneError:
                return  # the owner entry names a process that has exited by then

    def _read(self) -> None:
        staged = self._staging.positions()
        remaining = {
            p: OffsetRange(max(span.first, staged.get(p, 0)), span.end)
            for p, span in self.plan.reading.items()
            if staged.get(p, 0) < span.end
        }
        total = self.plan.to_read
        done_before = total - sum(span.end - span.first for span in remaining.values())
        shares = _shares(remaining, self._resources.procs)
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
        with self._heartbeat(), reporter(f"reading {self.plan.topic}", total) as bar:
            while children:
                for pid, code in system.reap():
                    receiving = children.pop(pid, -1)
                    if receiving < 0:
                        continue
                    message = _read_all(receiving)
                    if code not in (Exit.OK, Exit.INTERRUPTED):
                        failure = failure or _failure(code, message)
                        for other in children:
                            system.kill(other, 15)
                    is_complete &= code == Exit.OK
                if self.stop.is_set():
                    # Ctrl-C reaches the whole process group, but SIGTERM only this process.
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
                    time.sleep(_REAP_SECONDS)
        if failure is not None:
            raise failure
        if not is_complete or self.stop.is_set():
            raise Interrupted

    def _read_share(
        self,
        slot: int,
        share: Mapping[int, OffsetRange],
        share_count: int,
        counters: mmap.mmap,
        sending: int,
    ) -> int:
        """Read and stage the partitions of one reading process; return its exit code."""
        gc.freeze()
        gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
        read = 0

        def count(records: int) -> None:
            nonlocal read
            read += records
            _COUNT.pack_into(counters, slot * _COUNT.size, read)

        rate = None if self._resources.rate is None else self._resources.rate / share_count
        try:
            with (
                StopSignal() as stop,
                TopicReader(self._settings.kafka, client_id=f"{_CLIENT}-{slot}") as log,
                ClickHouseSink(
                    self._settings.clickhouse, client_name=f"octane-analytics replay-{slot}"
                ) as clickhouse,
            ):
                staging = ReplayStaging(clickhouse, self.plan.id, self._live)
                limit = RateLimit(rate, self._clock, stop.is_set)
                reader = StagingReader(
                    log, staging, self._decode, self.plan.wanted, self._clock, limit
                )
                is_done = reader.copy(share, count, stop.is_set)
        except Interrupted:
            return int(Exit.INTERRUPTED)
        except OctaneError as error:
            os.write(sending, str(error).encode()[:4000])
            return int(exit_for(error))
        return int(Exit.OK if is_done else Exit.INTERRUPTED)

    def _heartbeat(self) -> AbstractContextManager[None]:
        """Journal heartbeats, so that a replay on another machine does not drop this one's tables."""

        def beat() -> None:
            name = f"{_CLIENT}-alive"
            with ClickHouseSink(self._settings.clickhouse, client_name=name) as clickhouse:
                ReplayStaging(clickhouse, self.plan.id, self._live).journal("alive", "")

        return heartbeat(beat, _HEARTBEAT_SECONDS)

    def _apply(self) -> FillOutcome:
        """Insert or replace rows of the target from the staging tables."""
        label = "comparing with" if self.plan.mode is Mode.FILL else f"{self.plan.mode.value} to"
        target = f"{self.plan.database}.{self.plan.table}"
        with (
            self._heartbeat(),
            TopicReader(self._settings.kafka, client_id=_CLIENT) as log,
            reporter(f"{label} {target}", None) as bar,
        ):
            control = ReplayControl(lambda note: bar.update(0, note), self.stop.is_set)
            limit = RateLimit(self._resources.rate, self._clock, self.stop.is_set)
            reader = StagingReader(
                log,
                self._staging,
                self._decode,
                self.plan.wanted,
                self._clock,
                RateLimit(None, self._clock),
            )
            fill = FillReplay(
                self.plan,
                self._staging,
                log,
                reader,
                self._clock,
                limit,
                control,
                late_insert_seconds=self._settings.clickhouse.timeout_seconds,
                is_sharded=self._is_sharded,
            )
            if self.plan.mode is not Mode.REBUILD:
                return fill.run(is_dry=self._is_dry)
            builder = self._shard_months or Months(self._staging)
            rebuild = RebuildReplay(
                fill,
                builder,
                self._clock,
                control,
                running_inserts=self._servers.running_inserts,
                is_forced=self._is_forced,
            )
            months = tuple(self.plan.months or self._staging.months())
            planned = {p: span.end for p, span in self.plan.reading.items()}
            return rebuild.run(months, planned, is_dry=self._is_dry)


def _shares(spans: Mapping[int, OffsetRange], procs: int) -> list[dict[int, OffsetRange]]:
    """Distribute the partitions so that each process has about as many offsets."""
    shares: list[dict[int, OffsetRange]] = [{} for _ in range(min(procs, len(spans)))]
    weights = [0] * len(shares)
    for p, span in sorted(spans.items(), key=lambda item: item[1].first - item[1].end):
        lightest = weights.index(min(weights))
        shares[lightest][p] = span
        weights[lightest] += span.end - span.first
    return shares


def _note(done: int, total: int, read: int, seconds: float) -> str:
    note = f"{done:,} of {total:,} events"
    if read and seconds > 0:
        rate = read / seconds
        note += f", {rate:,.0f} events/s, {max(0, total - done) / rate:,.0f} s left"
    return note


def _read_all(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def _failure(code: int, message: str) -> OctaneError:
    if not message:
        return OctaneError(f"a reading process exited with {code}: resume the replay")
    kind = _ERRORS.get(Exit(code), OctaneError) if code in list(Exit) else OctaneError
    return kind(message)
