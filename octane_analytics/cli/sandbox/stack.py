"""The whole service on one machine: engines, table, worker and API, started and stopped in order."""

import contextlib
import http.client
import importlib.util
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from octane_analytics.cli.directories import locked, make_writable
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.sandbox.engine import HOST, Engine, EngineError, free_port, is_free
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.sandbox.service import Service
from octane_analytics.settings.loading import load
from octane_analytics.settings.sections import Settings
from octane_analytics.telemetry.exposition import exposition

START_SECONDS = 60.0
STOP_SECONDS = 8.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 15
_SERVER_MEMORY_BYTES = 2 << 30
_READER_MEMORY_BYTES = _SERVER_MEMORY_BYTES // 4 * 3
"""All reports and queries together, so that a quarter of the server's memory is left for inserts."""
READER = User(
    "reader",
    grants=["GRANT SELECT ON default.ai_analytics_events"],
    settings={"max_memory_usage_for_user": _READER_MEMORY_BYTES},
    readonly_settings=["max_memory_usage_for_user"],
)
"""For the API: no more than its queries need, and so no way to this machine's files."""
_OURS = (
    *("KAFKA_", "CLICKHOUSE_", "METRICS_", "PROMETHEUS_", "API_HOST", "API_PORT"),
    *("API_TOKENS_FILE", "API_ALLOW_ANONYMOUS", "API_CORS_ORIGINS"),
)
"""Variables that point elsewhere: none of them must lead a sandbox to somebody's real data, nor ask it
for a token."""
_FLUSH_SECONDS = "0.5"
_REBALANCE_DELAY_MS = 500
_SESSION = {
    "KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": "3000",
    "KAFKA_RDKAFKA_HEARTBEAT_INTERVAL_MS": "300",
}
"""The mock cluster refuses a follower whose SyncGroup comes after the leader's, and then, as in every
rebalance, waits for the session's time less a second (sync_check in rdkafka_mock_cgrp.c, 2.16.1). So
let all workers join at once, and keep sessions short."""


@dataclass(frozen=True, slots=True)
class Ports:
    """0 for any that is free."""

    api: int = 0
    metrics: int = 0
    clickhouse: int = 0


def environment(
    base: Mapping[str, str],
    directory: Path,
    ports: Ports,
    *,
    bootstrap_servers: str,
) -> dict[str, str]:
    """The environment of the worker and the API; what `base` says of batches and logs stays.

    A sandbox's broker begins anew with each start while its ClickHouse may remember the tokens of an
    earlier one: the fresh KAFKA_LOG_EPOCH keeps those from swallowing new events.
    """
    kept = {name: value for name, value in base.items() if not name.startswith(_OURS)}
    kept.setdefault("FLUSH_INTERVAL", _FLUSH_SECONDS)
    return (
        kept
        | _SESSION
        | {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_LOG_EPOCH": secrets.token_hex(8),
            "CLICKHOUSE_HOST": HOST,
            "CLICKHOUSE_PORT": str(ports.clickhouse),
            "API_HOST": HOST,
            "API_PORT": str(ports.api),
            "METRICS_HOST": HOST,
            "METRICS_PORT": str(ports.metrics),
            "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics"),
        }
    )


class Stack:
    """Everything runs while it is entered, and nothing of it afterwards.

    Keeps ClickHouse's data and all logs below `directory`, which one Stack at a time may use. To be
    entered from the main thread.
    """

    def __init__(
        self,
        directory: Path,
        *,
        procs: int | None,
        partitions: int,
        ports: Ports,
        is_verbose: bool,
        environ: Mapping[str, str],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.directory = directory.absolute()
        self.partitions = partitions
        self._procs = procs
        self._ports = ports
        self._is_verbose = is_verbose
        self._environ = environ
        self._is_stopping = is_stopping
        self._settings: Settings | None = None
        self._services: list[Service] = []
        self._engines: dict[str, Engine] = {}
        self._held = contextlib.ExitStack()
        self.clickhouse_http = ""

    @property
    def settings(self) -> Settings:
        """As the worker and the API have them; known from the start on."""
        assert self._settings is not None, "to be started first"
        return self._settings

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def __enter__(self) -> Self:
        """Blocks until all parts serve, START_SECONDS at most; returns early when it is to stop.

        Raises ConfigError or Unavailable, with the last lines of the log of the part that failed;
        nothing is left running then.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._start(stack)
            except EngineError as error:
                raise Unavailable(f"cannot start an embedded engine: {error}") from error
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def check(self) -> None:
        """Raises Unavailable when an engine, the worker or the API has ended, with its log's end."""
        for name, engine in self._engines.items():
            if engine.pid is None:
                raise Unavailable(f"the embedded {name} has ended by itself; see {self.directory}")
        for service in self._services:
            if service.exit_code is not None:
                tail = service.tail(_TAIL_LINES)
                told = f"; its last lines:\n{tail}" if tail else ""
                raise Unavailable(f"{service.name} ended with exit code {service.exit_code}{told}")

    def metric(self, name: str) -> float:
        """The sum over all processes and labels; 0.0 where nobody has counted yet."""
        text = exposition(Path(self.settings.metrics.directory or "")).decode()
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.partition(" ")[0].partition("{")[0] == name
        )

    def _start(self, stack: contextlib.ExitStack) -> None:
        if importlib.util.find_spec("chdb") is None:
            raise ConfigError(
                "the sandbox needs the embedded engines: pip install 'octane-analytics[embedded]'"
            )
        make_writable(self.directory, "--data-dir")
        stack.enter_context(locked(self.directory, "--data-dir"))
        self.logs.mkdir(exist_ok=True)
        clickhouse = EmbeddedClickHouse(
            self.directory / "clickhouse",
            tcp_port=self._ports.clickhouse,
            users=[READER],
            max_memory_bytes=_SERVER_MEMORY_BYTES,
        )
        stack.enter_context(clickhouse)
        if self._is_stopping():
            return
        defaults = Settings().kafka
        kafka = EmbeddedKafka(
            topics={defaults.topic: self.partitions, defaults.dlq_topic: self.partitions},
            initial_rebalance_delay_ms=_REBALANCE_DELAY_MS,
        )
        stack.enter_context(kafka)
        if self._is_stopping():
            return
        self._engines = {"ClickHouse": clickhouse, "Kafka": kafka}
        api = _given_or_free(self._ports.api, "--api-port", self._ports.metrics)
        metrics = _given_or_free(self._ports.metrics, "--metrics-port", api)
        ports = Ports(api=api, metrics=metrics, clickhouse=clickhouse.tcp_port)
        self.clickhouse_http = f"http://{clickhouse.host}:{clickhouse.http_port}"
        variables = environment(
            self._environ, self.directory, ports, bootstrap_servers=kafka.bootstrap_servers
        )
        self._settings = load(variables).settings
        self._prepare_table()
        (self.directory / "metrics").mkdir(exist_ok=True)
        for leftover in (self.directory / "metrics").glob("*.db"):
            leftover.unlink()
        self._start_services(stack, variables)
        self._wait_until_serving()

    def _prepare_table(self) -> None:
        with ClickHouse(self.settings.clickhouse, client_name="octane-analytics sandbox") as server:
            server.execute(schema.create_table(server.table))
            # Example events are soon older than the table keeps them, and would vanish within
            # seconds; while a sandbox runs, what was put in is to be seen.
            server.execute(f"SYSTEM STOP TTL MERGES {server.table}")

    def _start_services(self, stack: contextlib.ExitStack, variables: Mapping[str, str]) -> None:
        procs = [] if self._procs is None else ["--procs", str(self._procs)]
        for name, arguments in (("worker", procs), ("api", [])):
            service = Service(
                name,
                [sys.executable, "-m", "octane_analytics", name, *arguments],
                {**variables, "CLICKHOUSE_USER": READER.name} if name == "api" else variables,
                None if self._is_verbose else self.logs / f"{name}.log",
            )
            self._services.append(service)
        stack.callback(self._stop_services)
        for service in self._services:
            service.start()

    def _stop_services(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        for service in self._services:
            service.terminate()
        for service in self._services:
            service.stop(deadline)

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_stopping():
            self.check()
            if not self._has_partitions():
                lacking = "the workers own no partitions yet"
            elif not self._is_ready():
                lacking = "the API is not ready"
            else:
                return
            if time.monotonic() > deadline:
                raise Unavailable(f"not up after {START_SECONDS:g} s: {lacking}; see {self.logs}")
            time.sleep(_POLL_SECONDS)

    def _has_partitions(self) -> bool:
        return self.metric("analytics_assigned_partitions") >= self.partitions

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.settings.api.port, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _given_or_free(port: int, option: str, other: int) -> int:
    """Raises ConfigError where the port that was asked for is taken, EngineError where all are."""
    if port:
        if not is_free(port):
            raise ConfigError(f"{option}: port {port} on {HOST} is taken: choose another")
        return port
    return free_port(other)
