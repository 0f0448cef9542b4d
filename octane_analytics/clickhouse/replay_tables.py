"""Names and columns of the staging tables of replays, all named `octane_replay_<id>_…`."""

from datetime import UTC, datetime

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import TableName

PREFIX = "octane_replay_"
_NAMES = ", ".join(schema.COLUMN_NAMES)
ROW_HASH = f"sipHash128({_NAMES})"
"""128-bit hash of all five columns: rows with equal hashes count as equal."""
_COLUMNS = ", ".join(f"{column.name} {column.type}" for column in schema.COLUMNS)
_ENGINE = "ENGINE = MergeTree ORDER BY"
JOURNAL = "journal"
JOURNAL_COLUMNS = "(at DateTime64(3) DEFAULT now64(3), kind String, body String)"
JOURNAL_KEY = "at"
TABLES = {
    JOURNAL: f"{JOURNAL_COLUMNS} {_ENGINE} {JOURNAL_KEY}",
    "log": f"({_COLUMNS}, partition Int32, offset Int64, is_wanted UInt8, "
    f"reason LowCardinality(String), row FixedString(16) MATERIALIZED {ROW_HASH}) "
    f"{_ENGINE} (timestamp, row)",
    "lacking": f"(pass UInt32, slice UInt32, number UInt64, bytes UInt64, {_COLUMNS}) "
    f"{_ENGINE} (pass, slice, number)",
    "undecided": f"(pass UInt32, row FixedString(16)) {_ENGINE} (pass, row)",
}
MONTH_TABLES = {
    "build": "",
    "found": f"(shard UInt32, row String, times UInt32) {_ENGINE} row",
    "placed": TABLES["lacking"],
}
"""Tables of a rebuild; `build` is like the target, and on a server of each shard."""


def staging_table(target: TableName, replay_id: str, name: str) -> TableName:
    """Return the table of this name of a replay into the target."""
    return TableName(target.database, f"{PREFIX}{replay_id}_{name}")


def find_tables(clickhouse: ClickHouse) -> dict[str, list[TableName]]:
    """Return the tables of replays in the target's database, by the ids of the replays."""
    database = clickhouse.table.database
    found = clickhouse.select(
        "SELECT name FROM system.tables WHERE database = {database:String} "
        "AND startsWith(name, {prefix:String}) ORDER BY name",
        {"database": database, "prefix": PREFIX},
    )
    tables: dict[str, list[TableName]] = {}
    for (name,) in found.rows:
        if replay_id := name.removeprefix(PREFIX).rpartition("_")[0]:
            tables.setdefault(replay_id, []).append(TableName(database, name))
    return tables


def new_id(now: datetime, suffix: str) -> str:
    return f"{now.astimezone(UTC):%Y%m%d%H%M%S}_{suffix}"
