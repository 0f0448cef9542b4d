"""What eight processes cost while nothing happens: `python -m tests.bench.idle`.

CPU of the supervisor and all its children over twenty seconds, and what each of them holds in memory.
"""

import tempfile
import time
from pathlib import Path

from octane_analytics import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.sections import ClickHouseSettings
from tests.acceptance.command import run, running, wait_until
from tests.bench.measure import children

_PROCS = 8
_SETTLE_SECONDS = 8.0
_SECONDS = 20.0


def main() -> None:
    topics = {"octane.events": _PROCS, "octane.events.dlq": 1}
    with (
        tempfile.TemporaryDirectory(prefix="octane-idle-") as made,
        EmbeddedClickHouse(Path(made) / "clickhouse") as engine,
        EmbeddedKafka(topics=topics) as kafka,
    ):
        target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(target, client_name="bench") as clickhouse:
            clickhouse.execute(schema.create_table(clickhouse.table))
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_INSTANCE_PREFIX": "none",
            "CLICKHOUSE_HOST": engine.host,
            "CLICKHOUSE_PORT": str(engine.tcp_port),
            "METRICS_PORT": "0",
            "CONTROL_SOCKET": f"{made}/control",
        }
        log = Path(made) / "log"
        with running(log, "worker", "--procs", str(_PROCS), settings=settings) as worker:
            wait_until(lambda: run("status", settings=settings).returncode == 0)
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


def _run_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond: in clock ticks the rounding would be half of it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


if __name__ == "__main__":
    main()
