"""A broker, real ClickHouse servers, and the installed worker command on one host or several.

`Engines` are what takes seconds to start and serves many scenarios; a `Stack` is one scenario's own
topic, group, table, load and worker command on them.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from clickhouse_driver.errors import ServerException
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import OctaneError
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.engine import HOST, EngineError
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import COMMAND, call, environment
from tests.support.leash import leashed
from tests.support.rollup_states import assert_equal_to_rows
from tests.tools.faults.audit import (
    Audit,
    Report,
    lag,
    synchronised_counts,
    unequal_replicas,
    wait_until,
)
from tests.tools.faults.load import Load
from tests.tools.faults.servers import Servers
from tests.tools.kafka.apache import SCRAM_PASSWORD, SCRAM_USER, ApacheKafka
from tests.tools.kafka.cluster import KafkaCluster

APACHE, EMBEDDED, CLUSTER = "apache", "embedded", "cluster"
"""One broker of Apache Kafka, the mock cluster, three brokers of Apache Kafka and a controller."""
EXACTLY_ONCE, AT_LEAST_ONCE = "exactly-once", "at-least-once"

EMBEDDED_BROKERS = 3
_SESSION_SECONDS = {APACHE: 6.0, EMBEDDED: 2.0, CLUSTER: 6.0}
_START_SECONDS = 30.0
_SYNC_SECONDS = 60.0

_GOOD_ENDS = (
    Exit.OK,
    Exit.TERMINATED,  # before its preflight checks had passed
    -signal.SIGTERM,  # before its imports were complete
)

_KAFKA: Mapping[str, Callable[[], ApacheKafka | EmbeddedKafka | KafkaCluster]] = {
    APACHE: ApacheKafka,
    EMBEDDED: lambda: EmbeddedKafka(brokers=EMBEDDED_BROKERS),
    CLUSTER: KafkaCluster,
}


class Engines:
    """Start and stop from the main thread: both engines end with the thread that started them."""

    def __init__(self, broker: str, directory: Path, *, shards: int = 1, replicas: int = 1) -> None:
        """The faults of ClickHouse and of its proxy are those of the first server of the first shard."""
        self.broker = broker
        self.kafka = _KAFKA[broker]()
        self.servers = Servers(directory, shards=shards, replicas=replicas)
        self.clickhouse = self.servers.all[0]
        self.proxy = self.servers.proxy

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.kafka)
            if isinstance(self.kafka, ApacheKafka):
                self.kafka.admit()
            stack.enter_context(self.servers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def apache(self) -> ApacheKafka:
        assert isinstance(self.kafka, ApacheKafka)
        return self.kafka

    @property
    def cluster(self) -> KafkaCluster:
        assert isinstance(self.kafka, KafkaCluster)
        return self.kafka

    @property
    def embedded(self) -> EmbeddedKafka:
        assert isinstance(self.kafka, EmbeddedKafka)
        return self.kafka

    def any_broker(self, rng: random.Random) -> ApacheKafka | None:
        """Return a broker that can be killed; None for the mock cluster."""
        if isinstance(self.kafka, KafkaCluster):
            return rng.choice(self.kafka.brokers)
        return self.kafka if isinstance(self.kafka, ApacheKafka) else None

    def await_brokers_in_sync(self) -> None:
        """Block until every replica of every partition is in sync: a write needs two of three."""
        if isinstance(self.kafka, KafkaCluster):
            wait_until(self.kafka.is_in_sync, _SYNC_SECONDS, "replicas in sync")

    def heal(self) -> None:
        """Undo the faults that a scenario left."""
        self.servers.heal()
        if isinstance(self.kafka, ApacheKafka):
            if not self.kafka.is_running:
                self.kafka.start()
            self.kafka.resume()
            self.kafka.admit()
        elif isinstance(self.kafka, KafkaCluster):
            self.kafka.start()
            self.kafka.resume()
        else:
            self.kafka.set_broker_up()

    def create_topic(self, name: str, partitions: int) -> None:
        self.kafka.create_topic(name, partitions)

    def has_topic(self, name: str) -> bool:
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        return name in admin.list_topics(timeout=20.0).topics

    def recreate_topic(self, name: str, partitions: int, pause_seconds: float) -> None:
        """Delete the topic and recreate it after a pause."""
        self.kafka.delete_topic(name)
        if not isinstance(self.kafka, EmbeddedKafka):
            time.sleep(pause_seconds)
            self.kafka.create_topic(name, partitions)
            return
        # The mock cluster creates a smaller topic for any client that requests it: be first.
        for _ in range(100):
            try:
                self.kafka.create_topic(name, partitions)
                return
            except EngineError:
                self.kafka.delete_topic(name)
        raise TimeoutError(f"{name} is made by clients before it can be made by us")

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Remove the records before the offset, as retention does."""
        if isinstance(self.kafka, EmbeddedKafka):
            self.kafka.delete_records(topic, partition, before_offset)
            return
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        wanted = TopicPartition(topic, partition, before_offset)
        admin.delete_records([wanted])[wanted].result(20)

    def execute(self, statement: str) -> None:
        """Run a statement on every server of the usual shards, not through the proxy."""
        self.servers.execute(statement, self.servers.usual)


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


class Command:
    """The command `octane-analytics worker`, which can be stopped, killed and started again."""

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self._settings = dict(settings)
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0
        self._slots: dict[str, int] = {}

    def start(self, procs: int) -> None:
        """Returns once its processes are about to start.

        Found something away, it ends with 69, and is started again, as systemd would.
        """
        assert self._child is None, "it runs already"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            begun_at = self.log.stat().st_size if self.log.exists() else 0
            child = self._spawn(procs)
            while child.poll() is None and time.monotonic() < deadline:
                if b'"starting"' in self.log.read_bytes()[begun_at:]:
                    break
                time.sleep(0.05)
            if child.poll() != Exit.UNAVAILABLE or time.monotonic() >= deadline:
                self._child = child
                return
            time.sleep(0.5)

    def _spawn(self, procs: int) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                leashed([sys.executable, COMMAND, "worker", "--procs", str(procs)]),
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, seconds: float = 60.0) -> int:
        """Send SIGTERM and return the exit code. Raise TimeoutExpired after killing everything."""
        child, self._child = self._running(), None
        workers = self.workers()
        child.terminate()
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in workers.values():
                _signal(pid, signal.SIGKILL)
            child.kill()
            child.wait()
            raise

    def kill(self) -> None:
        """Send SIGKILL to the supervisor, whose children end with it. Does nothing if it is down."""
        if self._child is None:
            return
        child, self._child = self._child, None
        workers = self.workers()
        child.kill()
        child.wait()
        for pid in workers.values():
            wait_until(lambda pid=pid: not _is_alive(pid), 10.0, "the worker's end")  # type: ignore[misc]

    def change(self, settings: Mapping[str, str]) -> None:
        """Use these settings in addition, from the next start on."""
        self._settings |= dict(settings)

    @contextlib.contextmanager
    def changed(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Use these settings in addition for starts within the block."""
        usual = self._settings
        self._settings = usual | dict(settings)
        try:
            yield
        finally:
            self._settings = usual

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def workers(self) -> dict[str, int]:
        """Return the process ids of running workers, by slot."""
        return {slot: pid for slot, pid in self._alive().items() if slot.startswith("worker-")}

    def pid_of(self, slot: str) -> int:
        """Return the pid of the process in the slot."""
        return self._alive()[slot]

    def _alive(self) -> dict[str, int]:
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            read = log.read()
        complete = read[: read.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        for line in complete.splitlines():
            if b'"process started"' in line:
                fields = json.loads(line)
                self._slots[fields["slot"]] = fields["pid"]
        return {slot: pid for slot, pid in self._slots.items() if _is_alive(pid)}

    def tail(self, lines: int = 30) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal_supervisor(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        _signal(self._running().pid, number)

    def signal_worker(self, slot: str, number: signal.Signals) -> None:
        """Send a signal to the slot's process. Does nothing if it has just ended by itself."""
        pid = self.workers().get(slot)
        if pid is not None:
            _signal(pid, number)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None, "it does not run"
        return self._child


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
        self.command = Command(self._settings() | asked, self._directory / f"{self.name}.log")
        unasked = {"CONTROL_SOCKET": "none"}
        self.twin = Command(self._settings() | unasked, self._directory / f"{self.name}-twin.log")
        """Second command with the same member names in the same group."""
        self.neighbours = [
            Command(
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
        behind = lag(self.bootstrap_servers, self.group, self.topic)
        if behind:
            problems.append(f"after the last drain: {behind}")
        problems += unequal_replicas(counts, report.count)
        report.by_server = counts
        problems += self._drifted_rollups()
        report.problems += problems
        return report

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


def stop_cleanly(command: Command) -> None:
    """Stop with SIGTERM. Raise RuntimeError for an exit code that reports a failure."""
    code = command.stop()
    if code not in _GOOD_ENDS:
        raise RuntimeError(f"the worker command ended with {code} after SIGTERM")


@contextlib.contextmanager
def directory_for_logs(kept: Path | None = None) -> Iterator[Path]:
    """Return the given directory, which is kept, or a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="octane-faults-") as made:
        yield Path(made)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
