"""Mark of the table that this service inserts into, shown to the other members of the group."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.replica_tables import server_identity
from octane_analytics.errors import OctaneError
from octane_analytics.kafka.client_ids import HASH_DIGITS, TableMark
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.sections import Settings

_TIMEOUT_SECONDS = 5.0
MAX_SECONDS = 2 * _TIMEOUT_SECONDS
"""Longest time for which `read_table_mark` blocks on a server that does not answer."""


def read_table_mark(settings: Settings) -> TableMark:
    """Return the mark; without the part of the server if that does not answer, or if there are several
    shards, whose list may differ from host to host while one is added. Blocks on ClickHouse.

    Hosts may know one server by different addresses, so it states its identity itself.
    """
    clickhouse = settings.clickhouse
    identity = ""
    if len(shards := clickhouse.of_each_shard()) == 1:
        with contextlib.suppress(OctaneError):
            identity = _identity(shards[0])
    return TableMark(
        _hash(settings.kafka.topic),
        _hash(clickhouse.database, clickhouse.table),
        _hash(identity) if identity else "",
    )


def cached_table_mark(settings: Settings) -> Callable[[], TableMark]:
    """Return a function that reads the mark until it has the part of the server, then returns that."""
    found: list[TableMark] = []

    def read() -> TableMark:
        if not (found and found[0].server):
            found[:] = [read_table_mark(settings)]
        return found[0]

    return read


def _identity(shard: ClickHouseSettings) -> str:
    quick = replace(shard, timeout_seconds=min(shard.timeout_seconds, _TIMEOUT_SECONDS))
    with ClickHouse(quick, client_name="octane-analytics table") as server:
        return server_identity(server)


def _hash(*texts: str) -> str:
    packed = "\0".join(texts).encode(errors="surrogatepass")
    return hashlib.blake2b(packed, digest_size=HASH_DIGITS // 2).hexdigest()
