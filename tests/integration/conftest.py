"""One embedded ClickHouse for all integration tests, and one database for each test."""

import importlib.util
import os
import uuid
from collections.abc import Iterator

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.cluster.fixtures import running
from tests.tools.cluster.nodes import ClickHouseCluster


@pytest.fixture(scope="session")
def clickhouse_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """Yield the shared server; do not stop or pause it."""
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as engine:
        yield engine


@pytest.fixture
def clickhouse_settings(clickhouse_engine: EmbeddedClickHouse) -> Iterator[ClickHouseSettings]:
    """Yield the settings of a new database with the expected table; it is dropped after the test."""
    address = {"host": clickhouse_engine.host, "port": clickhouse_engine.tcp_port}
    database = f"test_{uuid.uuid4().hex[:12]}"
    settings = ClickHouseSettings(database=database, **address)  # type: ignore[arg-type]
    with ClickHouse(
        ClickHouseSettings(**address),  # type: ignore[arg-type]
        client_name="tests",
    ) as connection:
        connection.execute(f"CREATE DATABASE {database}")
        connection.execute(schema.create_table(schema.TableName(database, settings.table)))
        yield settings
        connection.execute(f"DROP DATABASE {database}")


@pytest.fixture(scope="module")
def clickhouse_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseCluster]:
    """Yield two shards of two replicas with real ZooKeeper; start again whatever a test ends."""
    limited = User("limited", grants=["GRANT SELECT, INSERT ON checked.ai_analytics_events"])
    directory = tmp_path_factory.mktemp("cluster")
    with running(ClickHouseCluster(directory, users=[limited])) as cluster:
        yield cluster
