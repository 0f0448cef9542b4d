"""Whole service on one machine: engines, table, worker and API, started and stopped in order."""

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

from octane_analytics.cli.directories import exclusive_lock, make_writable
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
"""User of the API with the rights of its queries only, so that it cannot read files of this machine."""
_REPLACED_VARIABLES = (
    *("KAFKA_", "CLICKHOUSE_", "METRICS_", "PROMETHEUS_", "API_HOST", "API_PORT"),
    *("API_TOKENS_FILE", "API_ALLOW_ANONYMOUS", "API_CORS_ORIGINS"),
)
"""Prefixes of variables that a sandbox ignores, so that it never uses real data and needs no token."""
_FLUSH_SECONDS = "0.5"
_REBALANCE_DELAY_MS = 500
_SESSION = {
    "KAFKA_RDKAFKA_SESSION_TIMEOUT_MS": "3000",
    "KAFKA_RDKAFKA_HEARTBEAT_INTERVAL_MS": "300",
}
"""librdkafka's mock cluster rejects a follower whose SyncGroup arrives after the leader's. Then, as in
every rebalance, it waits for the session timeout less a second (sync_check in rdkafka_mock_cgrp.c,
2.16.1). Therefore all workers join at once, and sessions are short."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the sandbox; 0 for a free one."""

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
    """Return the environment of the worker and the API.

    Keeps the variables of `base` for batches and logs. A sandbox's broker is empty at each start, while
    its ClickHouse may remember the deduplication tokens of an earlier start. A random KAFKA_LOG_EPOCH
    gives new events other tokens.
    """
    kept = {name: value for name, value in base.items() if not name.startswith(_REPLACED_VARIABLES)}
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
    """Context manager in which the whole service runs.

    Keeps ClickHouse's data and all logs below `directory`, which one Stack at a time may use. Must be
    entered in the main thread.
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
        self._exit_stack = contextlib.ExitStack()
        self.clickhouse_http = ""

    @property
    def settings(self) -> Settings:
        """Settings of the worker and the API; available once the stack is entered."""
        assert self._settings is not None, "the stack must be entered first"
        return self._settings

    @property
    def logs(self) -> Path:
        """Directory of the logs of the worker and the API."""
        return self.directory / "logs"

    def __enter__(self) -> Self:
        """Block until the whole service is ready, START_SECONDS at most, or until `is_stopping`.

        Raises ConfigError or Unavailable, with the last lines of the log of the process that failed,
        after everything has been stopped.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._start(stack)
            except EngineError as error:
                raise Unavailable(f"cannot start an embedded engine: {error}") from error
            self._exit_stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit_stack.close()

    def check(self) -> None:
        """Raise Unavailable, with the end of its log, if an engine, the worker or the API has exited."""
        for name, engine in self._engines.items():
            if engine.pid is None:
                raise Unavailable(f"the embedded {name} exited unexpectedly; see {self.directory}")
        for service in self._services:
            if service.exit_code is not None:
                tail = service.tail(_TAIL_LINES)
                lines = f"; its last lines:\n{tail}" if tail else ""
                raise Unavailable(f"{service.name} exited with code {service.exit_code}{lines}")

    def metric(self, name: str) -> float:
        """Return the sum of a metric over all processes and labels; 0.0 if it does not exist yet."""
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
        stack.enter_context(exclusive_lock(self.directory, "--data-dir"))
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
        api = _choose_port(self._ports.api, "--api-port", self._ports.metrics)
        metrics = _choose_port(self._ports.metrics, "--metrics-port", api)
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
            # Events of a file may be older than the table's TTL; merges would soon remove them.
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
                missing = "partitions are not assigned to the workers"
            elif not self._is_ready():
                missing = "the API is not ready"
            else:
                return
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"not ready after {START_SECONDS:g} s: {missing}; see {self.logs}"
                )
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


def _choose_port(port: int, option: str, other: int) -> int:
    """Return the port, or a free one for 0.

    Raises ConfigError if the port is in use, EngineError if no port is free.
    """
    if port:
        if not is_free(port):
            raise ConfigError(f"{option}: port {port} on {HOST} is in use: choose another port")
        return port
    return free_port(other)
