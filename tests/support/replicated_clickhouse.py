"""Embedded server with support for replicated tables, if its build has it."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.sandbox import clickhouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.sandbox.engine import EngineError
from tests.tools import replica_child


@contextlib.contextmanager
def started(directory: Path, *users: User) -> Iterator[EmbeddedClickHouse]:
    """Run the server; skip the test if the build of chdb-core is not known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clickhouse, "_CHILD", replica_child.__name__)
        try:
            engine = EmbeddedClickHouse(directory, has_keeper=True, users=users)
            engine.start()
        except EngineError as error:
            if replica_child.UNKNOWN_BUILD in str(error):
                pytest.skip(replica_child.UNKNOWN_BUILD)
            raise
    try:
        yield engine
    finally:
        engine.stop()


def create_replicated(
    name: TableName, *, window_seconds: int = 86_400, path: str = "", replica: str = "one"
) -> str:
    """Return the statement that creates the table as a replica of `path`, a new one by default."""
    replicated = f"ReplicatedMergeTree('/tables/{path or uuid.uuid4().hex}', '{replica}')"
    statement = schema.create_table(name).partition("\nSETTINGS")[0]
    statement = statement.replace("MergeTree()", replicated)
    return f"{statement} SETTINGS {schema.REPLICATED_WINDOW_SECONDS_SETTING} = {window_seconds}"
