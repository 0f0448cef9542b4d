"""Cost of eight idle processes: `python -m tests.tools.bench.idle`.

CPU of the supervisor and all its children over half a minute, each worker with an empty partition, and
the memory of each. On Apache Kafka if it is available.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import run, running, wait_until
from tests.tools.bench.measure import children
from tests.tools.kafka.apache import ApacheKafka, available

_PROCS = 8
_SETTLE_SECONDS = 35.0
"""Time until a worker has closed its rarely used clients."""
_SECONDS = 30.0


def main() -> None:
    told = "CPU and memory of eight workers without work, on engines started here; some minutes."
    argparse.ArgumentParser(prog="python -m tests.tools.bench.idle", description=told).parse_args()
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-idle-"))
        engine = stack.enter_context(EmbeddedClickHouse(Path(made) / "clickhouse"))
        target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(target, client_name="bench") as clickhouse:
            clickhouse.execute(schema.create_table(clickhouse.table))
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": _start_broker(stack),
            "KAFKA_INSTANCE_PREFIX": "none",
            "CLICKHOUSE_HOST": engine.host,
            "CLICKHOUSE_PORT": str(engine.tcp_port),
            "METRICS_PORT": "0",
            "CONTROL_SOCKET": f"{made}/control",
        }
        command = ("worker", "--procs", str(_PROCS))
        with running(Path(made) / "log", *command, settings=settings) as worker:
            # The mock cluster needs more than a minute to assign partitions to eight members.
            wait_until(lambda: _partitions(settings) == [1] * _PROCS, 180)
            time.sleep(_SETTLE_SECONDS)
            supervisor = worker.child.pid
            pids = [supervisor, *children(supervisor)]
            before = {pid: _run_seconds(pid) for pid in pids}
            time.sleep(_SECONDS)
            shares = {pid: (_run_seconds(pid) - before[pid]) / _SECONDS for pid in pids}
            print(
                f"{_PROCS} idle workers, supervisor and metrics: {sum(shares.values()):.2%} of one CPU, "
                f"the supervisor {shares[pids[0]]:.2%}, metrics {shares[pids[1]]:.2%}"
            )
            print(run("status", settings=settings).stdout)
            worker.child.terminate()
            worker.wait()


def _start_broker(stack: ExitStack) -> str:
    topics = {"octane.events": _PROCS, "octane.events.dlq": 1}
    if reason := available():
        print(f"on the embedded mock cluster: {reason}")
        return stack.enter_context(EmbeddedKafka(topics=topics)).bootstrap_servers
    kafka = stack.enter_context(ApacheKafka())
    for topic, partitions in topics.items():
        kafka.create_topic(topic, partitions)
    return kafka.bootstrap_servers


def _partitions(settings: Mapping[str, str]) -> list[int]:
    """Return the partitions of each worker."""
    told = run("status", "--json", settings=settings)
    slots = json.loads(told.stdout)["slots"] if told.returncode == 0 else []
    return [slot["partitions"] for slot in slots if slot["slot"].startswith("worker")]


def _run_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads, to the nanosecond: clock ticks are too coarse."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


if __name__ == "__main__":
    main()
