# only table names from the settings are interpolated
"""Journal of a replay on every replica of a shard, so that another replica can resume the replay.

The other staging tables stay on one server: they hold what can be read from the log again. In ZooKeeper,
the path of the journal is beside that of the target, and its replicas have the names of the target's.
"""

import contextlib
from collections.abc import Sequence

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.replay_tables import JOURNAL_COLUMNS, JOURNAL_KEY
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import OctaneError, StatementRejected
from octane_analytics.settings.connections import ClickHouseSettings

_CLIENT = "octane-analytics replay"
_REPLICA = (
    "SELECT zookeeper_path, replica_name FROM system.replicas "
    "WHERE database = {database:String} AND table = {table:String}"
)


class JournalReplicas:
    """Replicas of the journal; `peers` are the settings of each other server of the shard."""

    def __init__(self, peers: Sequence[ClickHouseSettings]) -> None:
        self._peers = tuple(peers)

    def create(self, clickhouse: ClickHouse, journal: TableName) -> bool:
        """Create the journal on this server and on all others that can be reached; return False, with
        nothing created, if there are no others or if the user lacks a right. Raise Unavailable."""
        if not self._peers:
            return False
        try:
            statement = _statement(clickhouse, journal)
            if statement is None:
                return False
            clickhouse.execute(statement)
        except StatementRejected:
            return False
        for own in self._peers:
            with contextlib.suppress(OctaneError), ClickHouse(own, client_name=_CLIENT) as peer:
                if (statement := _statement(peer, journal)) is not None:
                    peer.execute(statement)
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
