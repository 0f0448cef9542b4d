"""ClickHouse server with canaries in a file, tables and a port, and defences that can be disabled."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from unittest import mock

from starlette.types import ASGIApp

from octane_analytics.api.limits import QueryLimits
from octane_analytics.api.raw_sql import endpoint
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import QUERY_LIMITS, app_over, event, insert

CANARY = "canary7f3a91"
"""Content of everything that must not be read."""
PASSWORD = "of-the-tests"
USERS_FILE = Path(__file__).parents[2] / "conf" / "clickhouse" / "octane-query.xml"


def users_file(password: str = PASSWORD) -> str:
    """Return the file of conf/ with the password's hash."""
    return USERS_FILE.read_text().replace("0" * 64, sha256(password.encode()).hexdigest())


class NoLimits(QueryLimits):
    def settings(self) -> dict[str, object]:
        return {}


class Listener:
    """Counts connections and closes them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        # close() alone would not wake the accepting thread.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@dataclass(slots=True)
class Target:
    """The server and its contents; `names` fill the placeholders of the corpus."""

    settings: ClickHouseSettings
    directory: Path
    listener: Listener
    http_port: int
    names: Mapping[str, object] = field(default_factory=dict)

    @property
    def query_settings(self) -> ClickHouseSettings:
        return replace(self.settings, user="octane_query", password=PASSWORD)

    def select(self, sql: str) -> list[tuple[object, ...]]:
        with ClickHouse(self.settings, client_name="tests") as connection:
            return connection.select(sql).rows

    def state(self) -> list[object]:
        """Return everything that a statement must not change."""
        return [
            self.select("SELECT count(), sum(cityHash64(*)) FROM default.ai_analytics_events"),
            self.select("SELECT * FROM far_place.canary"),
            self.select("SELECT * FROM default.near_canary"),
            self.select(
                "SELECT database, name, engine, create_table_query FROM system.tables "
                "WHERE database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA') "
                "ORDER BY ALL"
            ),
            self.select("SELECT name FROM system.databases ORDER BY name"),
            self.select("SELECT name FROM system.functions WHERE origin != 'System' ORDER BY name"),
            self.select("SELECT name FROM system.users ORDER BY name"),
            self.select("SELECT * FROM system.grants ORDER BY ALL"),
            self.select("SELECT name FROM system.roles ORDER BY name"),
            (self.directory / "out.csv").exists(),
            self.listener.connections,
        ]

    def can_merge(self) -> bool:
        with ClickHouse(self.settings, client_name="tests") as connection:
            connection.execute("OPTIMIZE TABLE default.ai_analytics_events FINAL")
        return True


@contextmanager
def target(directory: Path) -> Iterator[Target]:
    listener = Listener()
    engine = EmbeddedClickHouse(
        directory / "clickhouse", users_files={"octane-query.xml": users_file()}
    )
    with ExitStack() as stack:
        stack.callback(listener.close)
        stack.enter_context(engine)
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        (directory / "canary.txt").write_text(f"{CANARY}\n")
        with ClickHouse(settings, client_name="tests") as connection:
            for statement in (
                schema.create_table(TableName("default", "ai_analytics_events")),
                "CREATE DATABASE far_place",
                "CREATE TABLE far_place.canary (secret String) ENGINE = MergeTree ORDER BY secret",
                "CREATE TABLE default.near_canary (secret String) ENGINE = MergeTree ORDER BY secret",
            ):
                connection.execute(statement)
            for table in ("far_place.canary", "default.near_canary"):
                connection.execute(f"INSERT INTO {table} SELECT '{CANARY}'")
        names = {
            "events": "default.ai_analytics_events",
            "database": "default",
            "near": "default.near_canary",
            "far": "far_place.canary",
            "far_database": "far_place",
            "file": directory / "canary.txt",
            "out": directory / "out.csv",
            "port": listener.port,
        }
        now = int(time.time())  # the TTL would delete older ones
        opened = Target(settings, directory, listener, engine.http_port, names)
        insert(
            settings,
            [event(now - n, name, f"u{n}", a=n) for n, name in enumerate("abcab")],
        )
        yield opened


@contextmanager
def app_without(server: Target, *disabled: str, seconds: float = 5.0) -> Iterator[ASGIApp]:
    """Yield the service without these defences: `user`, `validation`, `limits`."""
    limits = replace(QUERY_LIMITS, seconds=seconds)
    if "limits" in disabled:
        limits = NoLimits(**{name: getattr(limits, name) for name in QueryLimits.__slots__})
    user = server.settings if "user" in disabled else server.query_settings
    with ExitStack() as stack:
        if "validation" in disabled:
            stack.enter_context(mock.patch.object(endpoint, "validate", return_value=""))
        yield stack.enter_context(
            app_over(server.settings, query_limits=limits, query_settings=user)
        )
