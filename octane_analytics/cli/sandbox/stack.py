"""Whole service on one machine: engines, table, worker and API, started and stopped in order."""

import contextlib
import http.client
import importlib.util
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from octane_analytics.cli.directories import exclusive_lock, make_writable
from octane_analytics.cli.sandbox.servers import Servers
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.sandbox.engine import HOST, EngineError, free_port, is_free
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.sandbox.service import Service
from octane_analytics.settings.loading import load
from octane_analytics.settings.sections import Settings
from octane_analytics.telemetry.exposition import exposition

START_SECONDS = 60.0
STOP_SECONDS = 8.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 15
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


def environment(
    base: Mapping[str, str],
    directory: Path,
    ports: Ports,
    *,
    bootstrap_servers: str,
    clickhouse: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment of the worker and the API, with the servers' CLICKHOUSE_… variables.

    Keeps the variables of `base` for batches and logs. A sandbox's broker is empty at each start, while
    its ClickHouse may remember the deduplication tokens of an earlier start. A random KAFKA_LOG_EPOCH
    gives new events other tokens.
    """
    kept = {name: value for name, value in base.items() if not name.startswith(_REPLACED_VARIABLES)}
    kept.setdefault("FLUSH_INTERVAL", _FLUSH_SECONDS)
    return (
        kept
        | _SESSION
        | dict(clickhouse)
        | {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "KAFKA_LOG_EPOCH": secrets.token_hex(8),
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
        servers: Servers,
        *,
        procs: int | None,
        partitions: int,
        ports: Ports,
        is_verbose: bool,
        environ: Mapping[str, str],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.directory = directory.absolute()
        self.servers = servers
        self.partitions = partitions
        self._procs = procs
        self._ports = ports
        self._is_verbose = is_verbose
        self._environ = environ
        self._is_stopping = is_stopping
        self._settings: Settings | None = None
        self._services: list[Service] = []
        self._kafka: EmbeddedKafka | None = None
        self._exit_stack = contextlib.ExitStack()

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
        self.servers.check()
        if self._kafka is not None and self._kafka.pid is None:
            raise Unavailable(f"the embedded Kafka exited unexpectedly; see {self.directory}")
        for service in self._services:
            if service.exit_code is not None:
                raise Unavailable(_format_exit(service))

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
        stack.enter_context(self.servers)
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
        self._kafka = kafka
        api = _choose_port(self._ports.api, "--api-port", self._ports.metrics)
        metrics = _choose_port(self._ports.metrics, "--metrics-port", api)
        variables = environment(
            self._environ,
            self.directory,
            Ports(api, metrics),
            bootstrap_servers=kafka.bootstrap_servers,
            clickhouse=self.servers.variables,
        )
        self._settings = load(variables).settings
        self.servers.create_tables(
            self._settings.clickhouse,
            lambda name, arguments: self._run_command(name, arguments, variables),
        )
        if self._is_stopping():
            return
        (self.directory / "metrics").mkdir(exist_ok=True)
        for leftover in (self.directory / "metrics").glob("*.db"):
            leftover.unlink()
        self._start_services(stack, variables)
        self._wait_until_serving()

    def _run_command(
        self, name: str, arguments: Sequence[str], variables: Mapping[str, str]
    ) -> None:
        """Run a command of this program to its end, or until `is_stopping`. Raises Unavailable."""
        command = Service(
            name,
            [sys.executable, "-m", "octane_analytics", *arguments],
            variables,
            self.logs / f"{name}.log",
        )
        command.start()
        try:
            while command.exit_code is None and not self._is_stopping():
                time.sleep(_POLL_SECONDS)
            if command.exit_code:
                raise Unavailable(_format_exit(command))
        finally:
            command.stop(time.monotonic() + STOP_SECONDS)

    def _start_services(self, stack: contextlib.ExitStack, variables: Mapping[str, str]) -> None:
        procs = [] if self._procs is None else ["--procs", str(self._procs)]
        for name, arguments in (("worker", procs), ("api", [])):
            service = Service(
                name,
                [sys.executable, "-m", "octane_analytics", name, *arguments],
                {**variables, "CLICKHOUSE_USER": self.servers.user.name}
                if name == "api"
                else variables,
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


def _format_exit(service: Service) -> str:
    tail = service.tail(_TAIL_LINES)
    lines = f"; its last lines:\n{tail}" if tail else ""
    return f"{service.name} exited with code {service.exit_code}{lines}"


def _choose_port(port: int, option: str, other: int) -> int:
    """Return the port, or a free one for 0.

    Raises ConfigError if the port is in use, EngineError if no port is free.
    """
    if port:
        if not is_free(port):
            raise ConfigError(f"{option}: port {port} on {HOST} is in use: choose another port")
        return port
    return free_port(other)
