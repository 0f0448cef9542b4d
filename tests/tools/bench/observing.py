"""Cost of metrics and traces: the same topic, with each and without, alternating in one run.

`python -m tests.tools.bench.observing` measures the worker's CPU time for each event, from the first
rows seen to the last, and the CPU share of the metrics process, which is scraped meanwhile. The records
carry the header of an instrumented producer, one in a hundred of them sampled; spans go to a local
receiver. `bare` is the worker without any metric (`uninstrumented_worker`); `metrics` is the default,
traces off, and `again` repeats it, to show the noise of the run. `timed` is `traced` with a
clock at each call (`timed`), which adds a cost and shows the share of metrics and traces.
"""

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import environment
from tests.support.otlp import Receiver, receiver
from tests.support.ports import free_port
from tests.tools.bench import timed
from tests.tools.bench.measure import children, cpu_seconds, rows
from tests.tools.faults.scrapes import scrape
from tests.tools.kafka.apache import ApacheKafka, available

TOPIC = "octane.events"
BARE, METRICS, AGAIN, TRACED, TIMED = "bare", "metrics", "again", "traced", "timed"
_SAMPLED_ONE_IN = 100
_MEASURED_SHARE = 0.9
_SCRAPE_SECONDS = 5.0
_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True)
class Cost:
    """Costs of one run."""

    worker_us: float
    """CPU time of the worker for each event."""
    spent_us: Mapping[str, float]
    """Part of it that was spent on metrics and traces."""
    metrics_share: float
    """CPU share of the metrics process, of one processor; 0 without metrics."""
    events_per_second: float


class Bench:
    def __init__(
        self,
        engine: EmbeddedClickHouse,
        servers: str,
        spans: Receiver,
        events: int,
        directory: Path,
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._spans = spans
        self._events = events
        self._directory = directory

    def run(self, variant: str, number: int, batch_size: int) -> Cost:
        name, port = f"observing_{variant}_{number}", free_port()
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": self._servers,
            "KAFKA_GROUP_ID": name,
            "KAFKA_INSTANCE_PREFIX": "none",
            "CLICKHOUSE_HOST": self._engine.host,
            "CLICKHOUSE_PORT": str(self._engine.tcp_port),
            "CLICKHOUSE_TABLE": name,
            "BATCH_SIZE": str(batch_size),
            "BATCH_MAX_ROWS": str(batch_size),
            "METRICS_PORT": str(port),
            "CONTROL_SOCKET": "none",
            "LOG_LEVEL": "warning",
        }
        if variant in (TRACED, TIMED):
            settings |= {
                "OTEL_EXPORTER_OTLP_ENDPOINT": self._spans.endpoint,
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": str(1 / _SAMPLED_ONE_IN),
            }
        times = self._directory / f"{name}.json"
        times.write_text(json.dumps({timed.METRICS: 0.0, timed.TRACES: 0.0}))
        modules = {
            BARE: ["tests.tools.bench.uninstrumented_worker"],
            TIMED: ["tests.tools.bench.timed", str(times)],
        }
        module = modules.get(variant, ["octane_analytics"])
        command = [sys.executable, "-m", *module, "worker", "--procs", "1"]
        table = ClickHouseSettings(host=self._engine.host, port=self._engine.tcp_port, table=name)
        with ClickHouse(table, client_name="bench") as clickhouse:
            clickhouse.execute(schema.create_table(clickhouse.table))
            log = self._directory / f"{name}.log"
            with _running(command, settings, log) as child:
                cost = self._measure(clickhouse, child, port, times, is_bare=variant == BARE)
            clickhouse.execute(f"DROP TABLE {clickhouse.table} SYNC")
        return cost

    def _measure(
        self,
        clickhouse: ClickHouse,
        child: subprocess.Popen[bytes],
        port: int,
        times: Path,
        *,
        is_bare: bool,
    ) -> Cost:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        first = _wait(clickhouse, 1, child, deadline)
        worker, metrics = _roles(child.pid)
        spent_before = json.loads(times.read_text())
        began, worker_before, metrics_before = (
            time.monotonic(),
            *map(cpu_seconds, (worker, metrics)),
        )
        with _scraped(port):
            # The last events of each partition wait for FLUSH_INTERVAL.
            wanted = int(self._events * _MEASURED_SHARE)
            found = _wait(clickhouse, wanted, child, deadline)
        seconds = time.monotonic() - began
        events = found - first
        assert events > self._events / 2, "too few are left to measure: give more --events"
        spent = json.loads(times.read_text())
        return Cost(
            (cpu_seconds(worker) - worker_before) / events * 1e6,
            {on: (spent[on] - spent_before[on]) / events * 1e6 for on in spent},
            0.0 if is_bare else (cpu_seconds(metrics) - metrics_before) / seconds,
            events / seconds,
        )


def _wait(
    clickhouse: ClickHouse, wanted: int, child: subprocess.Popen[bytes], deadline: float
) -> int:
    while (found := rows(clickhouse)) < wanted:
        assert child.poll() is None, f"it has ended with {child.returncode}, see above"
        assert time.monotonic() < deadline, f"only {found} of {wanted} events in time"
        time.sleep(0.02)
    return found


def _roles(supervisor: int) -> tuple[int, int]:
    """Return the process ids of the one worker and of the metrics process, by their titles."""
    found = {}
    for pid in children(supervisor):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found[title.rpartition(": ")[2].strip().partition("-")[0]] = pid
    return found["worker"], found["metrics"]


@contextmanager
def _running(
    command: Sequence[str], settings: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        child = subprocess.Popen(command, env=environment(settings), stdout=sink, stderr=sink)
    try:
        yield child
    except BaseException:
        print(log.read_text(), file=sys.stderr)
        raise
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Scrape the metrics like Prometheus during the block."""
    stop = threading.Event()

    def scrape_on() -> None:
        while True:
            scrape(port)
            if stop.wait(_SCRAPE_SECONDS):
                return

    thread = threading.Thread(target=scrape_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _fill(servers: str, events: int) -> None:
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 20, "compression.type": "lz4", "log_level": 0}
    )
    for number, line in enumerate(generate(events, seed=1, until=datetime.now(UTC))):
        flags = "01" if number % _SAMPLED_ONE_IN == 0 else "00"
        context = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}".encode()
        while True:
            try:
                producer.produce(TOPIC, line, headers=[("traceparent", context)])
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def _broker(stack: ExitStack, partitions: int) -> str:
    if available() is None:
        kafka = stack.enter_context(ApacheKafka())
        kafka.create_topic(TOPIC, partitions)
        return kafka.bootstrap_servers
    # Each of the mock's partitions keeps some megabytes only.
    mock = stack.enter_context(EmbeddedKafka(topics={TOPIC: max(partitions, 64)}))
    return mock.bootstrap_servers


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    variants = (BARE, METRICS, TIMED, TRACED, AGAIN)
    costs: dict[str, list[Cost]] = {variant: [] for variant in variants}
    with ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-observing-")))
        engine = stack.enter_context(EmbeddedClickHouse(made / "clickhouse"))
        servers = _broker(stack, options.partitions)
        spans = stack.enter_context(receiver())
        _fill(servers, options.events)
        bench = Bench(engine, servers, spans, options.events, made)
        for number in range(options.rounds):
            # Alternate the order, so that a machine that becomes slower affects all.
            for variant in variants[:: -1 if number % 2 else 1]:
                cost = bench.run(variant, number, options.batch_size)
                costs[variant].append(cost)
                told = f"{cost.worker_us:.2f} us, {cost.metrics_share:.2%} beside it"
                print(f"{variant:>8} {told}, {cost.events_per_second:,.0f}/s", file=sys.stderr)
        flushes = len(spans.named(f"flush {TOPIC}"))
        linked = sum(len(span.links) for span in spans.named(f"flush {TOPIC}"))
    Console(width=None if sys.stdout.isatty() else 120).print(_table(costs))
    sampled = 2 * options.rounds * options.events // _SAMPLED_ONE_IN
    print(f"{flushes} batches traced, linked to {linked} of {sampled:,} sampled events")
    return 0


def _table(costs: Mapping[str, Sequence[Cost]]) -> Table:
    table = Table(
        title="the worker's CPU for each event: median, least, how much more than the other variant's "
        "by the medians, by the least, by round; and what went into metrics and traces, of the rest"
    )
    for heading in ("variant", "us", "least", "against", "median", "least", "by round"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for heading in ("metrics", "traces", "metrics process"):
        table.add_column(heading, justify="right")
    for variant, base in (
        (BARE, None),
        (METRICS, BARE),
        (AGAIN, METRICS),
        (TRACED, METRICS),
        (TIMED, TRACED),
    ):
        mine = [cost.worker_us for cost in costs[variant]]
        other = [cost.worker_us for cost in costs[base or variant]]
        by_round = sorted(one / two - 1 for one, two in zip(mine, other, strict=True))
        table.add_row(
            variant,
            f"{statistics.median(mine):.2f}",
            f"{min(mine):.2f}",
            base or "",
            f"{statistics.median(mine) / statistics.median(other) - 1:+.1%}" if base else "",
            f"{min(mine) / min(other) - 1:+.1%}" if base else "",
            f"{by_round[0]:+.1%} to {by_round[-1]:+.1%}" if base else "",
            *(_share(costs[variant], on) for on in (timed.METRICS, timed.TRACES)),
            f"{statistics.median(cost.metrics_share for cost in costs[variant]):.2%} of a CPU",
        )
    return table


def _share(costs: Sequence[Cost], on: str) -> str:
    """Return the share that they add to the worker's cost without them."""
    shares = [c.spent_us[on] / (c.worker_us - sum(c.spent_us.values())) for c in costs]
    return f"{statistics.median(shares):.2%}" if any(shares) else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.bench.observing", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--events", type=int, default=400_000, help="in the topic")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=10_000)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
