"""One run at a steady rate: CPU time of each event, inserts, and the time until it can be read.

The table takes merges as in production, and nothing polls it while costs are counted: a poll costs
ClickHouse about a millisecond, as much as ten events at a low rate. Inserts are seen in its directory.
"""

import time
from dataclasses import dataclass

from tests.tools.bench.backlog import Backlog
from tests.tools.bench.contenders import CONTENDERS, Job
from tests.tools.bench.environment import Place
from tests.tools.bench.latency_run import send_steadily
from tests.tools.bench.measure import active_parts, cpu_seconds, parts, peak_mib
from tests.tools.bench.part_times import (
    SeenInserts,
    keep_block_numbers,
    part_times,
    readable_after,
)

_FORMING_EVENTS = 100
_UNCOUNTED_SECONDS = 5
"""Time at the rate before anything is counted. A broker that has just started answers late: with 128
partitions, up to 1.8 s passed from produced to appended in the first 3 s of load, then 0.05 s."""
_WARM_SECONDS = 3
_TABLE = "bench_steady"


@dataclass(frozen=True)
class SteadyLoad:
    """A rate, and the size of the service that takes it."""

    rate: int
    """Events a second."""
    partitions: int
    processes: int
    """Worker processes, or consumers of the Kafka engine."""
    seconds: int
    flush_seconds: int | None = None
    """FLUSH_INTERVAL, and the engine's; None for the default of each."""


@dataclass(frozen=True)
class SteadyRun:
    """Figures of one contender under one load."""

    contender: str
    load: SteadyLoad
    sent_per_second: float
    is_rate_held: bool
    elapsed_seconds: float
    """From the first event to the last row."""
    client_cpu_seconds: float
    """CPU time of everything outside ClickHouse."""
    clickhouse_cpu_seconds: float
    inserts: int
    parts: int
    """Parts that merges had left when the last row was there."""
    p50_seconds: float
    """Median time from the production of an event until it can be read, after the first 3 s."""
    p99_seconds: float
    peak_client_mib: int
    """Largest resident memory of one of the client's processes; 0 without any."""

    @property
    def events(self) -> int:
        return self.load.rate * (self.load.seconds + _WARM_SECONDS)

    @property
    def client_cpu_us(self) -> float:
        """Microseconds an event."""
        return self.client_cpu_seconds / self.events * 1e6

    @property
    def clickhouse_cpu_us(self) -> float:
        """Microseconds an event."""
        return self.clickhouse_cpu_seconds / self.events * 1e6

    @property
    def cpu_us(self) -> float:
        """Microseconds an event, of both."""
        return self.client_cpu_us + self.clickhouse_cpu_us

    @property
    def cpu_share(self) -> float:
        """Share of one CPU, of both; 1.0 is a whole one."""
        return (self.client_cpu_seconds + self.clickhouse_cpu_seconds) / self.elapsed_seconds

    @property
    def inserts_per_second(self) -> float:
        return self.inserts / self.elapsed_seconds

    @property
    def rows_per_insert(self) -> float:
        return self.events / self.inserts


def run_at_rate(place: Place, contender: str, load: SteadyLoad) -> SteadyRun:
    """Send at the rate to an empty topic, with default settings; block until every row is there.

    Costs count from a settled group to the last row, so that the tail of a batch is in them.
    """
    backlog = Backlog(0, load.partitions)
    assert place.engine.pid is not None
    engine_pid = place.engine.pid
    with place.table(_TABLE) as clickhouse:
        job = Job(
            _TABLE,
            place.bootstrap_servers,
            backlog.topic,
            clickhouse,
            place.engine.host,
            place.engine.tcp_port,
            None,
            load.processes,
            flush_seconds=load.flush_seconds,
        )
        keep_block_numbers(clickhouse)
        with CONTENDERS[contender](job) as clients, part_times(clickhouse) as seen:
            before = _warm_up(place, backlog, seen, load.rate)
            inserts = parts(clickhouse)
            began = time.monotonic()
            client_cpu = sum(map(cpu_seconds, clients()))
            engine_cpu = cpu_seconds(engine_pid)
            sent = send_steadily(place, backlog, load.rate, _WARM_SECONDS, load.seconds)
            seen.wait_for_rows(before + load.rate * (_WARM_SECONDS + load.seconds))
            elapsed = time.monotonic() - began
            client_cpu = sum(map(cpu_seconds, clients())) - client_cpu
            engine_cpu = cpu_seconds(engine_pid) - engine_cpu
            p50, p99 = readable_after(clickhouse, seen.at, sent.began)
            return SteadyRun(
                contender,
                load,
                sent.per_second,
                sent.is_held(load.rate),
                elapsed,
                client_cpu,
                engine_cpu,
                parts(clickhouse) - inserts,
                active_parts(clickhouse),
                p50,
                p99,
                peak_mib(clients()),
            )


def _warm_up(place: Place, backlog: Backlog, seen: SeenInserts, rate: int) -> int:
    """Block until the contender has its partitions, and has inserted what was sent at the rate.

    Return the number of rows.
    """
    send_steadily(place, backlog, _FORMING_EVENTS, 0, 1)
    seen.wait_for_rows(_FORMING_EVENTS)
    send_steadily(place, backlog, rate, 0, _UNCOUNTED_SECONDS)
    rows = _FORMING_EVENTS + rate * _UNCOUNTED_SECONDS
    seen.wait_for_rows(rows)
    return rows
