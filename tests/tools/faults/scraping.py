"""A real Prometheus beside a service whose workers are killed (`python -m tests.tools.faults.scraping`).

Workers and API share one metrics directory; Prometheus scrapes both, and a second reader asks the
workers' port all the time. In the end the count of inserted events has to be the number of rows, no
counter may ever have gone backwards, no scrape have failed, and no stale series remain.
"""

import argparse
import contextlib
import http.client
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import running
from tests.support.ports import free_port
from tests.tools.bench.measure import cpu_seconds
from tests.tools.faults.audit import wait_until
from tests.tools.faults.engines import APACHE, EMBEDDED, Engines
from tests.tools.faults.grafana_queries import expressions
from tests.tools.faults.prometheus import Prometheus, PromQLError, is_installed
from tests.tools.faults.scrapes import COUNTERS, Reader, scrape
from tests.tools.faults.stack import Shape, Stack, directory_for_logs
from tests.tools.kafka.apache import available

INSERTED = "analytics_events_inserted_total"
WORKERS, API = "octane-analytics", "api"
"""Jobs; the first is the one of the alert rules."""
SCRAPE_SECONDS = 1.0
RATE_SECONDS = 10
_LATELY = "10s"
_PROMPT_SHARE = 0.5
"""Smallest share of prompt scrapes under load; fewer mean a target that does not respond."""
_QUIET_SCRAPES = 50
_SETTLE_SECONDS = 120.0


@dataclass
class Seen:
    """Result; `problems` is empty if every check passed."""

    rows: int = 0
    kills: int = 0
    seconds: float = 0.0
    inserted: dict[str, float] = field(default_factory=dict)
    """Final values in Prometheus, by job."""
    resets: dict[str, float] = field(default_factory=dict)
    """Decreases of counters that Prometheus has recorded, by job."""
    highest_rate: float = 0.0
    highest_true_rate: float = 0.0
    """Rows per second inserted into the table, over a window as long as rate()'s."""
    series: tuple[int, int, int] = (0, 0, 0)
    """Numbers of series of the workers' job: before the first kill, at the end, and overall."""
    files: int = 0
    """Number of files in the shared directory at the end."""
    strange_files: list[str] = field(default_factory=list)
    """Files that belong to none of the roles and slots."""
    scrapes: int = 0
    failures: list[str] = field(default_factory=list)
    """Failures of the reader beside Prometheus, which waits ten seconds for a response, Prometheus'
    default; here Prometheus itself scrapes every second and waits no longer than that."""
    up: dict[str, float] = field(default_factory=dict)
    """Share of Prometheus' scrapes with a response in that time, by job."""
    scrape_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Median, 99th percentile and maximum during the kills, on a busy machine."""
    prometheus_ms: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """The same of Prometheus' own scrapes, from `scrape_duration_seconds`, by job."""
    quiet_ms: float = 0.0
    """Median without kills and load."""
    quiet_cpu_ms: float = 0.0
    """CPU time of the metrics process for each of those scrapes."""
    processes: int = 0
    """Number of processes with files in the directory."""
    expected_processes: int = 0
    panels: int = 0
    empty_panels: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Rows:
    """Thread that samples the table's rows, the reference for the rates."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows", daemon=True)
        self._seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            self._seen.append((time.monotonic(), self._stack.audit.rows()))

    def highest_rate(self, seconds: float) -> float:
        """Return the highest rate over any window of at least that length."""
        found, begin = 0.0, 0
        for at, rows in self._seen:
            while begin + 1 < len(self._seen) and self._seen[begin + 1][0] <= at - seconds:
                begin += 1
            found = max(found, (rows - self._seen[begin][1]) / seconds)
        return found


def run(
    engines: Engines,
    directory: Path,
    *,
    kills: int,
    procs: int,
    api_procs: int = 2,
    rate: float = 1000.0,
    read_seconds: float = 0.2,
    seed: int = 1,
) -> Seen:
    """Kill workers one by one while events flow, then check. Takes about a second for each kill."""
    shared, port, api_port = directory / "metrics", free_port(), free_port()
    shared.mkdir(parents=True)
    shared.chmod(0o700)
    common = {"PROMETHEUS_MULTIPROC_DIR": str(shared), "CONTROL_SOCKET": "none"}
    shape = Shape(
        procs=procs,
        partitions=max(8, procs),
        rate=rate,
        session_seconds=2.0,
        settings=common | {"METRICS_PORT": str(port)},
    )
    jobs = {WORKERS: f"127.0.0.1:{port}", API: f"127.0.0.1:{api_port}"}
    with Stack(engines, shape, seed, directory) as stack:
        api = common | {
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(engines.clickhouse.tcp_port),
            "CLICKHOUSE_DATABASE": stack.name,
            "API_PORT": str(api_port),
            "API_WORKERS": str(api_procs),
            "LOG_FORMAT": "json",
        }
        seen = Seen(expected_processes=procs + api_procs + len(("supervisor", "metrics")))
        with (
            # First, because it takes five seconds until its first scrape.
            Prometheus(directory / "prometheus", jobs, scrape_seconds=SCRAPE_SECONDS) as seer,
            running(directory / "api.log", "api", settings=api) as served,
        ):
            wait_until(lambda: _answers(api_port), 30.0, "the API")
            stack.begin()
            _watch(seen, stack, seer, shared, (port, api_port), kills, read_seconds, seed)
            served.child.terminate()
            served.wait()
        report = stack.finish(_SETTLE_SECONDS)
        seen.problems += report.problems
    return seen


def _watch(
    seen: Seen,
    stack: Stack,
    seer: Prometheus,
    shared: Path,
    ports: tuple[int, int],
    kills: int,
    read_seconds: float,
    seed: int,
) -> None:
    port, api_port = ports
    of_workers = f'{{__name__=~"analytics_.+", job="{WORKERS}"}}'
    # After one failed scrape Prometheus marks all series of a job as stale.
    lately = f"last_over_time({of_workers}[{_LATELY}])"
    # Count only after all members have joined: later ones take over partitions.
    wait_until(lambda: len(stack.command.workers()) == stack.procs, 60.0, "all workers")
    wait_until(lambda: seer.value(f'{INSERTED}{{job="{WORKERS}"}}') > 0, 60.0, "the first events")
    time.sleep(2 * SCRAPE_SECONDS)
    before = int(seer.value(f"count({lately})"))
    started = time.monotonic()
    reader, rows = Reader(port, read_seconds), Rows(stack)
    reader.start()
    rows.start()
    seen.kills = _kill(stack, api_port, kills, random.Random(seed))
    stack.load.pause()
    stack.audit.wait(stack.load.is_poison, time.monotonic() + _SETTLE_SECONDS)
    seen.rows = stack.audit.rows()
    is_counted = f"min({INSERTED}) >= {seen.rows}"
    with contextlib.suppress(TimeoutError):  # reported below, with the figures
        wait_until(lambda: seer.query(is_counted), 10.0, "the last scrape")
    time.sleep(2 * SCRAPE_SECONDS)
    rows.stop()
    reader.stop()
    seen.seconds = time.monotonic() - started
    window = f"{int(seen.seconds) + 60}s"
    for job in (WORKERS, API):
        seen.inserted[job] = seer.value(f'last_over_time({INSERTED}{{job="{job}"}}[{_LATELY}])')
        seen.resets[job] = _resets(seer, job, window)
    rates = f'max_over_time(rate({INSERTED}{{job="{WORKERS}"}}[{RATE_SECONDS}s])[{window}:1s])'
    seen.highest_rate = seer.value(rates)
    seen.highest_true_rate = rows.highest_rate(RATE_SECONDS)
    ever = int(seer.value(f"count(last_over_time({of_workers}[{window}]))"))
    seen.series = (before, int(seer.value(f"count({lately})")), ever)
    names = {path.stem for path in shared.glob("*.alive")}
    seen.processes = len(names)
    seen.files = len(list(shared.iterdir()))
    seen.strange_files = [
        path.name for path in shared.iterdir() if path.stem.rpartition("_")[2] not in names
    ]
    seen.failures = reader.failures
    seen.scrapes = len(reader.milliseconds)
    took = sorted(reader.milliseconds)
    seen.scrape_ms = (statistics.median(took), took[len(took) * 99 // 100], took[-1])
    for job in (WORKERS, API):
        scraped = f'{{job="{job}"}}[{int(seen.seconds)}s]'
        seen.up[job] = seer.value(f"avg_over_time(up{scraped})")
        own = f"scrape_duration_seconds{scraped}"
        median, late, longest = (
            seer.value(f"quantile_over_time({share}, {own})") * 1000 for share in (0.5, 0.99, 1)
        )
        seen.prometheus_ms[job] = (median, late, longest)
    _measure_quiet(stack, port, seen)
    _ask_panels(seer, seen)
    _judge(seen)


def _kill(stack: Stack, api_port: int, kills: int, rng: random.Random) -> int:
    done = 0
    while done < kills:
        time.sleep(rng.uniform(0.4, 1.4))
        _answers(api_port)  # so that the API has something to count
        workers = stack.command.workers()
        if workers:
            stack.command.signal_worker(rng.choice(sorted(workers)), signal.SIGKILL)
            done += 1
    wait_until(
        lambda: len(stack.command.workers()) == stack.procs, 60.0, "the last one's successor"
    )
    return done


def _resets(seer: Prometheus, job: str, window: str) -> float:
    counted = f'{{__name__=~"{COUNTERS}", job="{job}"}}'
    recent = f"group by (__name__) (last_over_time({counted}[{_LATELY}]))"
    names = [labels["__name__"] for labels, _ in seer.query(recent)]
    assert INSERTED in names
    # One by one: resets() drops the metric's name, so the results could not be distinguished.
    return sum(seer.value(f'sum(resets({name}{{job="{job}"}}[{window}]))') for name in names)


def _answers(api_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", api_port, timeout=10)
    try:
        connection.request("GET", "/reports")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _measure_quiet(stack: Stack, port: int, seen: Seen) -> None:
    pid = stack.command.pid_of("metrics")
    before = cpu_seconds(pid)
    took = [scrape(port)[1] for _ in range(_QUIET_SCRAPES)]
    seen.quiet_ms = statistics.median(took)
    seen.quiet_cpu_ms = (cpu_seconds(pid) - before) / _QUIET_SCRAPES * 1000


def _ask_panels(seer: Prometheus, seen: Seen) -> None:
    """Query every panel's expressions as Grafana does."""
    for title, expression in expressions(rate_interval=f"{RATE_SECONDS}s"):
        seen.panels += 1
        try:
            if not seer.query(expression):
                seen.empty_panels.append(f"{title}: {expression}")
        except PromQLError as error:
            seen.problems.append(f"panel {title}: {error}")
    for name, (_, health) in seer.rules().items():
        if health != "ok":
            seen.problems.append(f"alert {name}: {health}")


def _judge(seen: Seen) -> None:
    for job, inserted in seen.inserted.items():
        if inserted != seen.rows:
            seen.problems.append(f"{job} counts {inserted:,.0f} inserted of {seen.rows:,} rows")
    for job, resets in seen.resets.items():
        if resets != 0:
            seen.problems.append(f"{resets:g} resets of counters of {job}")
    # rate() extrapolates to the ends of its window, and further where scrapes came too late to count.
    allowed = 1.5 if seen.up[WORKERS] == 1.0 else 2.5
    if not 0 < seen.highest_rate <= allowed * seen.highest_true_rate:
        seen.problems.append(
            f"rate() went up to {seen.highest_rate:,.0f}/s, the table to {seen.highest_true_rate:,.0f}"
        )
    _, after, ever = seen.series
    if ever != after:
        seen.problems.append(f"{ever - after} stale series: {seen.series}")
    if seen.processes != seen.expected_processes or seen.strange_files:
        seen.problems.append(
            f"files of {seen.processes} processes and {seen.strange_files} in the shared directory"
        )
    for job, share in seen.up.items():
        if share < _PROMPT_SHARE:
            seen.problems.append(f"only {share:.0%} of the scrapes of {job} were answered in time")
    seen.problems += seen.failures[:10]


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if not is_installed():
        print("scraping: no prometheus: apt-get install prometheus", file=sys.stderr)
        return 1
    broker = EMBEDDED if options.broker == EMBEDDED or available() else APACHE
    with directory_for_logs(options.logs) as logs, Engines(broker, logs / broker) as engines:
        seen = run(
            engines,
            logs / "scraping",
            kills=options.kills,
            procs=options.procs,
            api_procs=options.api_procs,
            rate=options.rate,
        )
    for name, value in _told(seen, broker).items():
        print(f"{name:44} {value}")
    for problem in seen.problems:
        print(f"FAILED: {problem}")
    return 1 if seen.problems else 0


def _told(seen: Seen, broker: str) -> Mapping[str, str]:
    return {
        "broker": broker,
        "workers killed": f"{seen.kills} in {seen.seconds:.0f} s",
        "rows in the table": f"{seen.rows:,}",
        **{f'{INSERTED}{{job="{job}"}}': f"{n:,.0f}" for job, n in seen.inserted.items()},
        **{f'resets of all counters{{job="{job}"}}': f"{n:g}" for job, n in seen.resets.items()},
        f"highest rate()[{RATE_SECONDS}s], and of rows": f"{seen.highest_rate:,.0f}/s, "
        f"{seen.highest_true_rate:,.0f}/s",
        "series before, after, ever": ", ".join(map(str, seen.series)),
        "files in the shared directory": f"{seen.files}, of {seen.processes} processes",
        "Prometheus' scrapes within a second": ", ".join(f"{s:.1%}" for s in seen.up.values()),
        "scrapes beside Prometheus': all, failed": f"{seen.scrapes}, {len(seen.failures)}",
        "scrape under kills: median, p99, longest": ", ".join(
            f"{m:.0f} ms" for m in seen.scrape_ms
        ),
        **{
            f'the same of Prometheus\' own{{job="{job}"}}': ", ".join(f"{m:.0f} ms" for m in took)
            for job, took in seen.prometheus_ms.items()
        },
        f"scrape of {seen.processes} processes, quiet: median": f"{seen.quiet_ms:.1f} ms "
        f"({seen.quiet_cpu_ms:.1f} ms of CPU)",
        "dashboard: expressions, without data here": f"{seen.panels}, {len(seen.empty_panels)}",
        **{f"  no data {n}": told for n, told in enumerate(seen.empty_panels, 1)},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.faults.scraping",
        description="Kills workers while a real Prometheus scrapes them and the API, then holds what "
        "it has seen against the table. The exit code is 1 where a figure is wrong.",
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--procs", type=int, default=4, help="worker processes")
    parser.add_argument("--api-procs", type=int, default=2, help="API processes")
    parser.add_argument("--rate", type=float, default=1000.0, help="events per second")
    parser.add_argument(
        "--broker",
        choices=[APACHE, EMBEDDED],
        default=APACHE,
        help="Apache Kafka where Java and Maven are there, or the embedded mock cluster",
    )
    parser.add_argument("--logs", type=Path, help="directory to keep all logs in")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
