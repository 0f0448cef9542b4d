"""Programs that move a topic into a table; each is started, measured and stopped.

A contender is a context manager around one run. It returns a function that lists the processes to
count in addition to ClickHouse.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from octane_analytics.clickhouse import rollups
from octane_analytics.clickhouse.client import ClickHouse
from tests.support.command import COMMAND, environment
from tests.tools.bench.measure import children


@dataclass(frozen=True)
class Job:
    """One run: all its objects have this name, so that runs do not share any."""

    name: str
    bootstrap_servers: str
    topic: str
    clickhouse: ClickHouse
    """Return a connection whose table is the run's own, created empty."""
    host: str
    port: int
    batch_size: int | None
    """None: every contender has its default settings."""
    processes: int
    may_grow: bool = False
    """True if batches may exceed their size under backlog, as by default."""
    flush_seconds: int | None = 5
    """None: every contender has its default."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of a worker."""


NAIVE_ROWS = 1_000

Contender = Callable[[Job], AbstractContextManager[Callable[[], list[int]]]]


def worker_command(job: Job, delivery: str) -> tuple[list[str], dict[str, str]]:
    """Return the command, and its additional environment."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": job.bootstrap_servers,
        "KAFKA_TOPIC": job.topic,
        "KAFKA_GROUP_ID": job.name,
        "CLICKHOUSE_HOST": job.host,
        "CLICKHOUSE_PORT": str(job.port),
        "CLICKHOUSE_TABLE": job.clickhouse.table.table,
        "DELIVERY": delivery,
        "WORKER_PROCS": str(job.processes),
        "METRICS_PORT": "0",
        "CONTROL_SOCKET": "none",
        "LOG_LEVEL": "warning",
    }
    if job.batch_size is not None:
        settings["BATCH_SIZE"] = str(job.batch_size)
        if not job.may_grow:
            settings["BATCH_MAX_ROWS"] = str(job.batch_size)
    if job.flush_seconds is not None:
        settings["FLUSH_INTERVAL"] = str(job.flush_seconds)
    return [COMMAND, "worker"], settings | dict(job.settings)


@contextmanager
def _worker(job: Job, delivery: str) -> Iterator[Callable[[], list[int]]]:
    with _process(*worker_command(job, delivery)) as pid:
        yield lambda: [pid, *children(pid)]  # the supervisor's too


@contextmanager
def exactly_once(job: Job) -> Iterator[Callable[[], list[int]]]:
    with _worker(job, "exactly-once") as pids:
        yield pids


@contextmanager
def at_least_once(job: Job) -> Iterator[Callable[[], list[int]]]:
    with _worker(job, "at-least-once") as pids:
        yield pids


@contextmanager
def with_rollups(job: Job) -> Iterator[Callable[[], list[int]]]:
    """Run the service exactly once into a table with the rollups that a new table has by default."""
    job.clickhouse.execute(rollups.alter_settings(job.clickhouse.table))
    for rollup in rollups.of_sets(rollups.DEFAULT_SETS):
        job.clickhouse.execute(rollups.add(job.clickhouse.table, rollup))
    with exactly_once(job) as pids:
        yield pids


@contextmanager
def kafka_engine(job: Job) -> Iterator[Callable[[], list[int]]]:
    """Run ClickHouse's Kafka table engine and a materialized view, as in its documentation."""
    queue, view, clickhouse = f"{job.name}_queue", f"{job.name}_view", job.clickhouse
    limits = ""
    if job.batch_size is not None:
        sizes = ("kafka_max_block_size", "kafka_poll_max_batch_size")
        limits = "".join(f"{name} = {job.batch_size}, " for name in sizes)
    if job.flush_seconds is not None:
        limits += f"kafka_flush_interval_ms = {job.flush_seconds * 1_000},"
    # More consumers than cores are refused otherwise, and more processes of a worker are not.
    clickhouse.execute("SET kafka_disable_num_consumers_limit = 1")
    clickhouse.execute(
        f"""
        CREATE TABLE {queue} (
            timestamp DateTime, app_id String, event_name String, user_id String, properties String
        ) ENGINE = Kafka SETTINGS
            kafka_broker_list = '{job.bootstrap_servers}', kafka_topic_list = '{job.topic}',
            kafka_group_name = '{job.name}', kafka_format = 'JSONEachRow',
            kafka_num_consumers = {job.processes}, kafka_thread_per_consumer = 1,
            {limits}
            date_time_input_format = 'best_effort'
        """
    )
    clickhouse.execute(
        f"CREATE MATERIALIZED VIEW {view} TO {clickhouse.table} AS SELECT * FROM {queue}"
    )
    try:
        yield list
    finally:
        clickhouse.execute(f"DROP TABLE {view} SYNC")
        clickhouse.execute(f"DROP TABLE {queue} SYNC")


@contextmanager
def naive_loop(job: Job) -> Iterator[Callable[[], list[int]]]:
    arguments = (
        *(job.bootstrap_servers, job.topic, job.name, job.host, str(job.port)),
        *(str(job.clickhouse.table), str(NAIVE_ROWS)),
    )
    with _process([sys.executable, "-m", "tests.tools.bench.naive", *arguments], {}) as pid:
        yield lambda: [pid]


@contextmanager
def _process(command: list[str], settings: dict[str, str]) -> Iterator[int]:
    with subprocess.Popen(command, env=environment(settings)) as child:
        try:
            yield child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()


WORKERS = ("exactly-once", "at-least-once")
"""Contenders that run on any layout; the others know one server."""
CONTENDERS: dict[str, Contender] = {
    "exactly-once": exactly_once,
    "at-least-once": at_least_once,
    "with-rollups": with_rollups,
    "kafka-engine": kafka_engine,
    "naive": naive_loop,
}
