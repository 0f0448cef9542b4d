# ruff: noqa: S608  # only table names from the settings are interpolated
"""Journal of a replay on every replica of a shard, so that another replica can resume the replay.

The other staging tables stay on one server: they hold what can be read from the log again. In ZooKeeper,
the path of the journal is beside that of the target, and its replicas have the names of the target's.
The process that creates a journal is in the comment of the table: a journal never exists without a known
owner, not even before its first entry.
"""

import contextlib
import re
from collections.abc import Sequence

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.replay_tables import (
    JOURNAL,
    JOURNAL_COLUMNS,
    JOURNAL_KEY,
    TABLES,
)
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import OctaneError, StatementRejected
from octane_analytics.replay.interfaces import JournalEntry
from octane_analytics.settings.connections import ClickHouseSettings

OWNER = "owner"
"""Kind of journal entries: a process began to run the replay."""
_COMMENT = re.compile(r"([0-9]{1,16}) (.+)", re.ASCII | re.DOTALL)
"""Time of the creation in epoch milliseconds, and the process."""
_CLIENT = "octane-analytics replay"
_REPLICA = (
    "SELECT zookeeper_path, replica_name FROM system.replicas "
    "WHERE database = {database:String} AND table = {table:String}"
)


class JournalReplicas:
    """Replicas of the journal; `peers` are the settings of each other server of the shard."""

    def __init__(self, peers: Sequence[ClickHouseSettings]) -> None:
        self._peers = tuple(peers)

    def create(self, clickhouse: ClickHouse, journal: TableName, owner: str) -> None:
        """Create the journal on this server, and on all others that can be reached if the target is
        replicated and the user has the rights. Raise Unavailable, and StatementRejected as a whole.
        """
        ((now,),) = clickhouse.select("SELECT toUnixTimestamp64Milli(now64(3))").rows
        comment = f"COMMENT {schema.string_literal(f'{now} {owner}')}"
        if not (self._peers and self._create_replicated(clickhouse, journal, comment)):
            clickhouse.execute(f"CREATE TABLE {journal} {TABLES[JOURNAL]} {comment}")

    def _create_replicated(self, clickhouse: ClickHouse, journal: TableName, comment: str) -> bool:
        try:
            statement = _statement(clickhouse, journal)
            if statement is None:
                return False
            clickhouse.execute(f"{statement} {comment}")
        except StatementRejected:
            return False
        for own in self._peers:
            with contextlib.suppress(OctaneError), ClickHouse(own, client_name=_CLIENT) as peer:
                if (statement := _statement(peer, journal)) is not None:
                    peer.execute(f"{statement} {comment}")
        return True

    def drop(self, journal: TableName) -> None:
        """Drop the journal on the other servers, as far as they can be reached."""
        for own in self._peers:
            with contextlib.suppress(OctaneError), ClickHouse(own, client_name=_CLIENT) as peer:
                peer.execute(f"DROP TABLE IF EXISTS {journal}")


def _statement(clickhouse: ClickHouse, journal: TableName) -> str | None:
    """Return the statement that creates the journal's replica; None if the target is not replicated."""
    name = {"database": clickhouse.table.database, "table": clickhouse.table.table}
    found = clickhouse.select(_REPLICA, name).rows
    if not found:
        return None
    path, replica = found[0]
    arguments = ", ".join(map(schema.string_literal, (f"{path}_{journal.table}", replica)))
    return (
        f"CREATE TABLE IF NOT EXISTS {journal} {JOURNAL_COLUMNS} "
        f"ENGINE = ReplicatedMergeTree({arguments}) ORDER BY {JOURNAL_KEY}"
    )


def read_creation(clickhouse: ClickHouse, journal: TableName) -> JournalEntry | None:
    """Return the owner in the comment of the journal as an entry. Blocks.

    None without such a comment: journals of earlier releases do not have it.
    """
    found = clickhouse.select(
        "SELECT comment, toUnixTimestamp64Milli(now64(3)) FROM system.tables "
        "WHERE database = {database:String} AND name = {table:String}",
        {"database": journal.database, "table": journal.table},
    )
    for comment, now in found.rows:
        if match := _COMMENT.fullmatch(comment):
            return JournalEntry((now - int(match[1])) / 1000, OWNER, match[2])
    return None


def read_entries(clickhouse: ClickHouse, journal: TableName) -> list[JournalEntry]:
    """Return the entries that this server has, the oldest first. Blocks."""
    found = clickhouse.select(
        "SELECT dateDiff('millisecond', at, now64(3)) / 1000, kind, body "
        f"FROM {journal} ORDER BY at"
    )
    return [JournalEntry(*row) for row in found.rows]
