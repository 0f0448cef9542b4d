"""One run at a steady rate: time from the production of each event until it can be read.

Each event carries the time at which it was handed to the producer (see `load_generator`). An insert is
a part (merges are stopped); a part's rows count as readable when the part is first seen, at most one
poll later than they are.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from octane_analytics.clickhouse.client import ClickHouse
from tests.tools.bench.backlog import Backlog
from tests.tools.bench.contenders import CONTENDERS, Job
from tests.tools.bench.environment import Place
from tests.tools.bench.load_generator import Sent
from tests.tools.bench.measure import parts, rows

_LOOK_SECONDS = 0.02
_WARM_SECONDS = 3
_FIRST_EVENTS = 100
_DEADLINE_SECONDS = 120.0
_TABLE = "bench_latency"
_BEHIND_SECONDS = 1.0
_PRODUCED = "JSONExtractFloat(properties, 'produced_at')"
_SEEN = "transform(_part, {names:Array(String)}, {seconds:Array(Float64)}, toFloat64(0))"


@dataclass(frozen=True)
class Latency:
    """Latencies of one run, in seconds."""

    contender: str
    rate: int
    """Requested events per second."""
    sent: float
    late_seconds: float
    """Largest delay of the producer against its rate, in seconds."""
    is_rate_held: bool
    p50: float
    p95: float
    p99: float
    max: float
    p50_first: float
    """Latencies of the first quarter of the time."""
    p50_last: float
    parts: int

    @property
    def is_kept_up(self) -> bool:
        """True if the contender kept up; otherwise latency grows with the duration of the run."""
        return self.p50_last <= self.p50_first + _BEHIND_SECONDS


def run_steadily(
    place: Place,
    backlog: Backlog,
    name: str,
    rate: int,
    seconds: int,
    procs: int,
    batch_size: int,
    flush_seconds: int,
) -> Latency:
    """Let one contender consume a steady load for that many seconds, from an empty topic."""
    with place.table(_TABLE) as clickhouse:
        clickhouse.execute(f"SYSTEM STOP MERGES {clickhouse.table}")
        job = Job(
            _TABLE,
            place.bootstrap_servers,
            backlog.topic,
            clickhouse,
            place.engine.host,
            place.engine.tcp_port,
            batch_size,
            procs,
            may_grow=True,
            flush_seconds=flush_seconds,
        )
        with CONTENDERS[name](job), _watching(place) as seen_at:
            send_steadily(place, backlog, _FIRST_EVENTS, 0, 1)
            wait_for_rows(lambda: rows(clickhouse), _FIRST_EVENTS)  # a group has formed
            sent = send_steadily(place, backlog, rate, _WARM_SECONDS, seconds)
            wait_for_rows(
                lambda: rows(clickhouse), _FIRST_EVENTS + rate * (_WARM_SECONDS + seconds)
            )
            time.sleep(5 * _LOOK_SECONDS)
        return _latency(clickhouse, seen_at, name, rate, sent)


def send_steadily(
    place: Place, backlog: Backlog, rate: int, warm_seconds: int, seconds: int
) -> Sent:
    """Send at the rate, from a process of its own; block until Kafka has everything."""
    numbers = (place.partitions_of(backlog), rate, warm_seconds, seconds)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.tools.bench.load_generator",
            place.bootstrap_servers,
            backlog.topic,
        ]
        + [str(number) for number in numbers],
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise click.ClickException("the events could not be sent; what is above says why")
    return Sent(**json.loads(done.stdout))


def wait_for_rows(count: Callable[[], int], wanted: int, look_seconds: float = 0.2) -> None:
    """Block until `count` returns as many rows. Raise ClickException after two minutes, or for more."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (found := count()) < wanted:
        if time.monotonic() > deadline:
            raise click.ClickException(f"only {found:,} of {wanted:,} events arrived in time")
        time.sleep(look_seconds)
    if found > wanted:
        raise click.ClickException(f"{found:,} rows of {wanted:,} events")


@contextlib.contextmanager
def _watching(place: Place) -> Iterator[dict[str, float]]:
    """Thread that records when each part of the table was first seen, with its own connection."""
    seen_at: dict[str, float] = {}
    stop = threading.Event()

    def look() -> None:
        with place.table(_TABLE) as clickhouse:
            while not stop.wait(_LOOK_SECONDS):
                found = clickhouse.select(
                    "SELECT name FROM system.parts WHERE active AND table = {table:String}",
                    {"table": _TABLE},
                ).rows
                now = time.time()
                for (name,) in found:
                    seen_at.setdefault(name, now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen_at
    finally:
        stop.set()
        thread.join()


def _latency(
    clickhouse: ClickHouse, seen_at: dict[str, float], name: str, rate: int, sent: Sent
) -> Latency:
    """Return the latencies of the counted events."""
    ((quantiles, first, last),) = clickhouse.select(
        f"SELECT quantilesExact(0.5, 0.95, 0.99, 1)({_SEEN} - {_PRODUCED} AS took), "
        f"quantileExactIf(took, {_PRODUCED} < {{first:Float64}}), "
        f"quantileExactIf(took, {_PRODUCED} >= {{last:Float64}}) "
        f"FROM {clickhouse.table} WHERE {_PRODUCED} >= {{began:Float64}}",
        {
            "names": list(seen_at),
            "seconds": list(seen_at.values()),
            "began": sent.began,
            "first": sent.began + sent.seconds / 4,
            "last": sent.began + sent.seconds * 3 / 4,
        },
    ).rows
    p50, p95, p99, highest = quantiles
    return Latency(
        contender=name,
        rate=rate,
        sent=sent.per_second,
        late_seconds=sent.late_seconds,
        is_rate_held=sent.is_held(rate),
        p50=p50,
        p95=p95,
        p99=p99,
        max=highest,
        p50_first=first,
        p50_last=last,
        parts=parts(clickhouse),
    )
