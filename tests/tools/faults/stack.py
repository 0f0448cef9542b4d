"""One scenario's own topic, group, table, load and worker commands, on engines that others use too."""

import contextlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from clickhouse_driver.errors import ServerException

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import OctaneError
from octane_analytics.sandbox.engine import HOST
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import call
from tests.support.rollup_states import assert_equal_to_rows
from tests.tools.faults.audit import (
    Audit,
    Report,
    lag,
    synchronised_counts,
    unequal_replicas,
    wait_until,
)
from tests.tools.faults.engines import APACHE, CLUSTER, EMBEDDED, Engines
from tests.tools.faults.load import Load
from tests.tools.faults.worker_command import WorkerCommand, stop_cleanly
from tests.tools.kafka.apache import SCRAM_PASSWORD, SCRAM_USER, ApacheKafka

EXACTLY_ONCE, AT_LEAST_ONCE = "exactly-once", "at-least-once"
_SESSION_SECONDS = {APACHE: 6.0, EMBEDDED: 2.0, CLUSTER: 6.0}
_COMMIT_SECONDS = 30.0
"""Time for the offsets of the last rows: two rebalances, and a start of a worker on a busy machine."""


@dataclass(frozen=True)
class Shape:
    """Size and delivery guarantee of a stack."""

    delivery: str = EXACTLY_ONCE
    hosts: int = 1
    """Worker commands in the group, each with the `procs` of a host."""
    procs: int = 3
    partitions: int = 8
    rate: float = 1500.0
    batch_size: int = 150
    flush_seconds: float = 0.5
    session_seconds: float | None = None
    """Session timeout of the group's members; None leaves it to the broker."""
    clickhouse_seconds: float = 4.0
    """Timeout of the worker's inserts."""
    log_level: str = "info"
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the worker."""


class Stack:
    """One topic, group, table and worker command; created on entry and removed on exit."""

    def __init__(self, engines: Engines, shape: Shape, seed: int, directory: Path) -> None:
        self.engines = engines
        self.shape = shape
        self.name = f"faults_{uuid.uuid4().hex[:8]}"
        self.topic = f"{self.name}.events"
        self.dlq_topic = f"{self.topic}.dlq"
        self.group = f"{self.name}-workers"
        self.table = f"{self.name}.ai_analytics_events"
        self.seed = seed
        self._directory = directory
        self.procs = shape.procs
        self.shards = list(engines.servers.usual)
        """Shards of the table, by their numbers from 0."""

    def __enter__(self) -> Self:
        engines, shape = self.engines, self.shape
        engines.create_topic(self.topic, shape.partitions)
        engines.create_topic(self.dlq_topic, 1)
        self.create_tables()
        servers = self.bootstrap_servers
        self.load = Load(servers, self.topic, shape.partitions, shape.rate, self.seed)
        self.audit = Audit(
            servers,
            self.topic,
            self.dlq_topic,
            lambda: self.engines.servers.ports(self.shards),
            self.table,
        )
        asked = {"CONTROL_SOCKET": str(self.control_socket)}
        self.command = WorkerCommand(self._settings() | asked, self._directory / f"{self.name}.log")
        unasked = {"CONTROL_SOCKET": "none"}
        self.twin = WorkerCommand(
            self._settings() | unasked, self._directory / f"{self.name}-twin.log"
        )
        """Second command with the same member names in the same group."""
        self.neighbours = [
            WorkerCommand(
                self._settings() | unasked | {"KAFKA_INSTANCE_PREFIX": f"neighbour{number}"},
                self._directory / f"{self.name}-neighbour{number}.log",
            )
            for number in (1, 2)
        ]
        """Commands of other hosts in the same group."""
        self.hosts = [self.command, *self.neighbours][: shape.hosts]
        """Commands that run all the time."""
        return self

    def create_tables(self) -> None:
        """Create the table on all servers of its shards, as far as they lack it."""
        servers, clusters = self.engines.servers, self.engines.servers.cluster
        servers.execute(f"CREATE DATABASE IF NOT EXISTS {self.name} ENGINE = Atomic", self.shards)
        if clusters is None:
            name = schema.TableName(*self.table.split("."))
            servers.execute(schema.create_table(name), self.shards)
            servers.execute(rollups.alter_settings(name), self.shards)
            for rollup in rollups.of_sets(rollups.DEFAULT_SETS):
                servers.execute(rollups.add(name, rollup), self.shards)
            return
        cluster = servers.cluster_name(self.shards)
        applied = call(
            *("schema", "apply", "--replicated"),
            settings={
                "CLICKHOUSE_HOST": servers.hosts(self.shards, is_direct=True),
                "CLICKHOUSE_DATABASE": self.name,
                "CLICKHOUSE_CLUSTER": str(cluster),
                "CLICKHOUSE_DISTRIBUTED_TABLE": f"all_{cluster}",
            },
        )
        assert applied.returncode == 0, (applied.stdout, applied.stderr)

    def execute(self, statement: str) -> None:
        """Run a statement on every server of the table's shards, not through the proxy."""
        self.engines.servers.execute(statement, self.shards)

    def list_shards(self, numbers: Sequence[int]) -> dict[str, str]:
        """Return the settings that list these shards, in this order."""
        return {"CLICKHOUSE_HOST": self.engines.servers.hosts(numbers)}

    def __exit__(self, *_: object) -> None:
        for command in (self.command, self.twin, *self.neighbours):
            command.kill()
        with contextlib.suppress(AssertionError):
            self.load.pause(5.0)
        self.engines.heal()
        self.execute(f"DROP DATABASE IF EXISTS {self.name} SYNC")

    @property
    def bootstrap_servers(self) -> str:
        return self.engines.kafka.bootstrap_servers

    @property
    def control_socket(self) -> Path:
        """Return the path of the command's control socket."""
        return self._directory / f"{self.name}.sock"

    @property
    def session_seconds(self) -> float:
        return self.shape.session_seconds or _SESSION_SECONDS[self.engines.broker]

    def begin(self) -> None:
        """Start the workers and the load; block until events arrive."""
        for command in self.hosts:
            command.start(self.procs)
        self.load.resume()
        try:
            wait_until(self.audit.rows, 40.0, "the first row in the table")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the worker says:\n{self.command.tail()}") from error

    def restart(self, procs: int | None = None) -> None:
        """Stop with SIGTERM, which must succeed, and start again."""
        self.stop()
        self.procs = procs or self.procs
        self.command.start(self.procs)

    def stop(self) -> None:
        stop_cleanly(self.command)

    def mend(self) -> None:
        """Repair everything after a failed scenario."""
        self.engines.heal()
        for command in (self.twin, *self.neighbours):
            if command not in self.hosts:
                command.kill()
        with contextlib.suppress(ServerException):
            self.execute(f"RENAME TABLE {self.table}_away TO {self.table}")
        if not self.engines.has_topic(self.topic):
            self.engines.create_topic(self.topic, self.shape.partitions)
        for command in self.hosts:
            if not command.is_running:
                command.kill()
                command.start(self.procs)
        if not self.load.is_running:
            self.load.renew()  # the topic may be another one by now
            self.load.resume()
        self.load.poison_ratio = 0.0

    def finish(self, seconds: float) -> Report:
        """Stop the load, wait until everything has arrived, stop the worker, and count."""
        self.engines.heal()
        load, audit = self.load, self.audit
        problems = []
        try:
            load.pause()
        except AssertionError as error:
            problems.append(str(error))  # their fate is in the log
        audit.wait(load.is_poison, time.monotonic() + seconds)
        # Rows arrive before the offsets: several workers may recover one batch, and one whose process
        # was killed just now has yet to get its partitions. Stopped before, they would leave the batch
        # to the next start.
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self._uncommitted(), _COMMIT_SECONDS, "the last offsets")
        if left := self._uncommitted():
            problems.append(f"{_COMMIT_SECONDS:g} s after the last row: {left}")
        time.sleep(0.5)  # time for duplicates to arrive
        for command in self.hosts:
            try:
                stop_cleanly(command)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                problems.append(str(error))
        counts = synchronised_counts(self.engines.servers, self.shards, self.table)
        report = audit.report(
            load.is_poison,
            load.is_acknowledged,
            may_repeat=self.shape.delivery == AT_LEAST_ONCE,
        )
        if left := self._uncommitted():
            problems.append(f"after the last drain: {left}")
        problems += unequal_replicas(counts, report.count)
        report.by_server = counts
        problems += self._drifted_rollups()
        report.problems += problems
        return report

    def _uncommitted(self) -> dict[int, str]:
        return lag(self.bootstrap_servers, self.group, self.topic)

    def _drifted_rollups(self) -> list[str]:
        """Return the rollups that differ from the rows, on any server."""
        found = []
        servers = self.engines.servers
        for shard, server in [(n, server) for n in self.shards for server in servers.shards[n]]:
            settings = ClickHouseSettings(
                host=HOST, port=server.tcp_port, database=self.name, timeout_seconds=60.0
            )
            with ClickHouse(settings, client_name="faults") as table:
                try:
                    assert_equal_to_rows(table, rollups.of_sets(rollups.DEFAULT_SETS))
                except (AssertionError, OctaneError) as error:
                    found.append(f"rollups of shard {shard + 1}: {str(error)[:500]}")
        return found

    def _settings(self) -> dict[str, str]:
        shape, clickhouse = self.shape, self.shape.clickhouse_seconds
        kafka = self.engines.kafka
        cluster = self.engines.servers.cluster_name(self.shards)
        servers = {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}
        if isinstance(kafka, ApacheKafka):
            servers = {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.sasl_bootstrap_servers,
                "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "KAFKA_RDKAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
                "KAFKA_RDKAFKA_SASL_USERNAME": SCRAM_USER,
                "KAFKA_RDKAFKA_SASL_PASSWORD": SCRAM_PASSWORD,
            }
        return {
            **servers,
            "KAFKA_TOPIC": self.topic,
            "KAFKA_GROUP_ID": self.group,
            # The mock cluster accepts the names of static members but ignores them.
            "KAFKA_INSTANCE_PREFIX": "none" if isinstance(kafka, EmbeddedKafka) else "faults",
            "KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": str(int(self.session_seconds * 1000)),
            "KAFKA_RDKAFKA_HEARTBEAT_INTERVAL_MS": "300",
            **self.list_shards(self.shards),
            **({"CLICKHOUSE_CLUSTER": cluster} if cluster else {}),
            "CLICKHOUSE_DATABASE": self.name,
            "CLICKHOUSE_TIMEOUT": f"{clickhouse:g}",
            "DRAIN_TIMEOUT": f"{clickhouse * 5:g}",
            "DELIVERY": shape.delivery,
            "BATCH_SIZE": str(shape.batch_size),
            "FLUSH_INTERVAL": f"{shape.flush_seconds:g}",
            "METRICS_PORT": "0",
            "LOG_LEVEL": shape.log_level,
            "LOG_FORMAT": "json",
            **shape.settings,
        }


@contextlib.contextmanager
def directory_for_logs(kept: Path | None = None) -> Iterator[Path]:
    """Return the given directory, which is kept, or a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="octane-faults-") as made:
        yield Path(made)
