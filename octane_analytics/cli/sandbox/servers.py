"""ClickHouse servers of a sandbox: what its service needs to know of them, and the usual single one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import Unavailable
from octane_analytics.runtime.closeable import Startable
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings

CLIENT_NAME = "octane-analytics sandbox"
MEMORY_BYTES = 2 << 30
_READER_MEMORY_BYTES = MEMORY_BYTES // 4 * 3
"""All reports and queries together, so that a quarter of a server's memory is left for inserts."""


def reader(*tables: str) -> User:
    """Return the user of the API with the rights of its queries on these tables only, so that it cannot
    read files of this machine."""
    return User(
        "reader",
        grants=[f"GRANT SELECT ON default.{table}" for table in tables],
        settings={"max_memory_usage_for_user": _READER_MEMORY_BYTES},
        readonly_settings=["max_memory_usage_for_user"],
    )


class Servers(Startable, ABC):
    """Must be entered in the main thread."""

    @property
    @abstractmethod
    def user(self) -> User:
        """User of the API."""

    @property
    @abstractmethod
    def variables(self) -> Mapping[str, str]:
        """CLICKHOUSE_… of the worker and the API, once entered."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """One line for each server: its ports, once entered."""

    @abstractmethod
    def start(self) -> None:
        """Block until all serve. Raises ConfigError, Unavailable or EngineError."""

    @abstractmethod
    def close(self) -> None:
        """Block until all have ended."""

    @abstractmethod
    def check(self) -> None:
        """Raise Unavailable if the table cannot be served any more, because servers exited."""

    @abstractmethod
    def create_tables(
        self, settings: ClickHouseSettings, run: Callable[[str, Sequence[str]], None]
    ) -> None:
        """Create the table on every server, empty or with the rows of an earlier start.

        `run` runs a command of this program to its end, given a name and arguments.
        """


class SingleServer(Servers):
    """One embedded ClickHouse over `directory`."""

    def __init__(self, directory: Path, *, tcp_port: int = 0) -> None:
        self._directory = directory
        self._user = reader(ClickHouseSettings().table)
        self._engine = EmbeddedClickHouse(
            directory / "clickhouse",
            tcp_port=tcp_port,
            users=[self._user],
            max_memory_bytes=MEMORY_BYTES,
        )

    @property
    def user(self) -> User:
        return self._user

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "CLICKHOUSE_HOST": self._engine.host,
            "CLICKHOUSE_PORT": str(self._engine.tcp_port),
        }

    @property
    def addresses(self) -> Sequence[str]:
        return (address_line(self._engine),)

    def start(self) -> None:
        self._engine.start()

    def close(self) -> None:
        self._engine.stop()

    def check(self) -> None:
        if self._engine.pid is None:
            raise Unavailable(f"the embedded ClickHouse exited unexpectedly; see {self._directory}")

    def create_tables(
        self, settings: ClickHouseSettings, run: Callable[[str, Sequence[str]], None]
    ) -> None:
        with ClickHouse(settings, client_name=CLIENT_NAME) as server:
            server.execute(schema.create_table(server.table))
            stop_ttl_merges(server)


def stop_ttl_merges(server: ClickHouse) -> None:
    """Keep events that are older than the table's TTL, such as those of a file, until a restart."""
    server.execute(f"SYSTEM STOP TTL MERGES {server.table}")


def address_line(engine: EmbeddedClickHouse) -> str:
    """Return the addresses of both protocols."""
    return (
        f"{engine.host}:{engine.tcp_port} (native), http://{engine.host}:{engine.http_port} (HTTP)"
    )
