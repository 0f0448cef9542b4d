"""Replays that have tables on any server of CLICKHOUSE_HOST, and the removal of their tables.

Two replays into one target may keep their tables on different replicas or shards: lists may name the
servers in different orders, and one of them may not answer. Each server is therefore asked for itself,
and a journal counts as soon as one server has it.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import UNKNOWN_DATABASE, UNKNOWN_TABLE
from octane_analytics.clickhouse.inserts import QUERY_ID_PREFIX
from octane_analytics.clickhouse.replay_journal import read_creation, read_entries
from octane_analytics.clickhouse.replay_tables import JOURNAL, find_tables, staging_table
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import NeedsOperator, StatementRejected, Unavailable
from octane_analytics.replay.interfaces import JournalEntry
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority

_RUNNING = "SELECT query_id FROM system.processes WHERE startsWith(query_id, {prefix:String})"


@dataclass(frozen=True, slots=True)
class JournalCopy:
    """Journal of a replay as one server has it."""

    address: str
    created: JournalEntry | None
    """Its first owner, which is known before the first entry; None in journals of earlier releases."""
    entries: Sequence[JournalEntry]


@dataclass(frozen=True, slots=True)
class ReplaySurvey:
    journals: Mapping[str, Sequence[JournalCopy]]
    """Copies of the journals by the ids of the replays; empty for tables without a journal."""
    unreachable: Mapping[str, Unavailable]
    """Errors by the addresses of the servers that do not answer."""


class ReplayServers:
    """All servers that may have tables of replays into one target. Connects again for each call."""

    def __init__(self, settings: ClickHouseSettings, *, client_name: str) -> None:
        """`settings` are those of all shards."""
        self._client_name = client_name
        self._servers = {
            address: replace(settings, host=address, shard_weights=())
            for address in (authority(*host) for host in settings.hosts())
        }

    def survey(self) -> ReplaySurvey:
        """Return the replays of all servers. Blocks; raises NeedsOperator and StatementRejected."""
        journals: dict[str, list[JournalCopy]] = {}
        unreachable: dict[str, Unavailable] = {}
        with contextlib.ExitStack() as stack:
            servers = {
                address: stack.enter_context(ClickHouse(own, client_name=self._client_name))
                for address, own in self._servers.items()
            }
            for address, server in servers.items():
                with _noted(unreachable, address):
                    journals.update({found: [] for found in _tables_of(server)})
            # After the tables of all servers: a journal exists before any other table of its replay, so
            # that tables without one are of a replay that has ended.
            for address, server in servers.items():
                if address not in unreachable:
                    with _noted(unreachable, address):
                        for replay_id, copies in journals.items():
                            copies.extend(_journal_copies(server, address, replay_id))
        return ReplaySurvey(journals, unreachable)

    def running_inserts(self) -> frozenset[tuple[str, str]]:
        """Return the address and the query id of each insert of a batch that is running. Blocks.

        Servers that cannot be reached, or do not let the user see running statements, show none.
        """
        found = set()
        for address, own in self._servers.items():
            with (
                contextlib.suppress(Unavailable, StatementRejected),
                ClickHouse(own, client_name=self._client_name) as server,
            ):
                query_ids = server.select(_RUNNING, {"prefix": QUERY_ID_PREFIX}).rows
                found |= {(address, query_id) for (query_id,) in query_ids}
        return frozenset(found)

    def drop_staging(self, replay_id: str) -> None:
        """Drop the tables of the replay except its journals, on all servers that can be reached."""
        self._drop(replay_id, is_journal=False)

    def drop_journals(self, replay_id: str) -> None:
        """Drop the journals of the replay on all servers that can be reached, after all other tables."""
        self._drop(replay_id, is_journal=True)

    def _drop(self, replay_id: str, *, is_journal: bool) -> None:
        for own in self._servers.values():
            with (
                contextlib.suppress(Unavailable),
                ClickHouse(own, client_name=self._client_name) as server,
            ):
                journal = staging_table(server.table, replay_id, JOURNAL)
                for table in _tables_of(server).get(replay_id, ()):
                    if (table == journal) is is_journal:
                        server.execute(f"DROP TABLE IF EXISTS {table}")


@contextlib.contextmanager
def _noted(unreachable: dict[str, Unavailable], address: str) -> Iterator[None]:
    try:
        yield
    except NeedsOperator:
        raise
    except Unavailable as error:
        unreachable[address] = error


def _tables_of(server: ClickHouse) -> Mapping[str, Sequence[TableName]]:
    try:
        return find_tables(server)
    except StatementRejected as error:
        if error.code != UNKNOWN_DATABASE:
            raise
        return {}


def _journal_copies(server: ClickHouse, address: str, replay_id: str) -> list[JournalCopy]:
    """Return this server's copy of the journal, if it has one."""
    journal = staging_table(server.table, replay_id, JOURNAL)
    if not server.exists(journal):
        return []
    try:
        entries = read_entries(server, journal)
        return [JournalCopy(address, read_creation(server, journal), entries)]
    except StatementRejected as error:
        if error.code != UNKNOWN_TABLE:
            raise
        return []  # another process has just dropped it
