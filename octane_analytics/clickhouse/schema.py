"""Expected schema of the table, its DDL, and comparison with a live table.

Does not depend on a connection.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

DEDUPLICATION_WINDOW = 10_000
"""Number of inserts, over the whole table, whose tokens ClickHouse remembers."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    codec: str
    """Codec as written in DDL; ClickHouse shows it with its defaults."""


COLUMNS = (
    Column("timestamp", "DateTime", "CODEC(Delta, ZSTD)"),
    Column("app_id", "String", "CODEC(ZSTD)"),
    Column("event_name", "String", "CODEC(ZSTD)"),
    Column("user_id", "String", "CODEC(ZSTD)"),
    Column("properties", "String", "CODEC(ZSTD)"),
)
SHOWN_CODECS = {
    "CODEC(Delta, ZSTD)": "CODEC(Delta(4), ZSTD(1))",
    "CODEC(ZSTD)": "CODEC(ZSTD(1))",
}
"""Codecs above as system.columns shows them."""
COLUMN_NAMES = tuple(column.name for column in COLUMNS)

ENGINE = "MergeTree"
ENGINES = frozenset({ENGINE, f"Replicated{ENGINE}", f"Shared{ENGINE}"})
"""Accepted engines; Replacing… and similar ones merge events of one second into one."""
SORTING_KEY = "app_id, event_name, timestamp"
PARTITION_KEY = "toYYYYMM(timestamp)"
TTL = "timestamp + INTERVAL 90 DAY"
SHOWN_TTL = "timestamp + toIntervalDay(90)"
WINDOW_SETTING = "non_replicated_deduplication_window"
REPLICATED_WINDOW_SETTING = "replicated_deduplication_window"
REPLICATED_WINDOW_SECONDS_SETTING = "replicated_deduplication_window_seconds"
DEFAULT_WINDOWS = {
    WINDOW_SETTING: 0,
    REPLICATED_WINDOW_SETTING: 10_000,
    REPLICATED_WINDOW_SECONDS_SETTING: 3_600,
}
"""ClickHouse's defaults, for a user who may not read the server's."""
DEDUPLICATION_WINDOW_SECONDS = 86_400
"""A replicated table forgets tokens by age too, after an hour by default: a day covers an evening
without workers."""

_FITTING_TYPES = {
    "DateTime": re.compile(r"DateTime(\('[^']*'\))?|Nullable\(DateTime(\('[^']*'\))?\)"),
    "String": re.compile(r"(LowCardinality\()?(Nullable\()?String\)*"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def identifier(name: str) -> str:
    """Return the name as an SQL identifier: bare if possible, else in escaped backticks."""
    if _PLAIN_NAME.match(name):
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


@dataclass(frozen=True, slots=True)
class TableName:
    database: str
    table: str

    def __str__(self) -> str:
        return f"{identifier(self.database)}.{identifier(self.table)}"


def create_table(name: TableName, window: int = DEDUPLICATION_WINDOW) -> str:
    """Return the statement that creates the table if it does not exist."""
    return _create(str(name), f"{ENGINE}()", {WINDOW_SETTING: window})


def create_replicated_table(
    name: TableName,
    window: int = DEDUPLICATION_WINDOW,
    *,
    uuid: UUID | None = None,
    arguments: str = "",
    cluster: str | None = None,
) -> str:
    """Return the statement that creates the table as a replica, if it does not exist.

    Without `arguments` the server's default path and macros apply; that path has the table's UUID, which
    must then be equal on all servers: given, or chosen by ON CLUSTER.
    """
    where = f"{name}{on_cluster(cluster)}"
    if uuid is not None:
        where += f" UUID '{uuid}'"
    windows = {
        REPLICATED_WINDOW_SETTING: window,
        REPLICATED_WINDOW_SECONDS_SETTING: DEDUPLICATION_WINDOW_SECONDS,
    }
    return _create(where, f"Replicated{ENGINE}({arguments})", windows)


def create_distributed_table(name: TableName, local: TableName, cluster: str) -> str:
    """Return the statement that creates the table of all shards, if it does not exist.

    It has no sharding key, and so ClickHouse refuses inserts into it: they would be acknowledged before
    any shard has them.
    """
    return (
        f"CREATE TABLE IF NOT EXISTS {name} AS {local} ENGINE = "
        f"Distributed({distributed_arguments(local, cluster)})"
    )


def distributed_arguments(local: TableName, cluster: str) -> str:
    """Return the arguments of the engine Distributed as the server shows them."""
    return ", ".join(map(string_literal, (cluster, local.database, local.table)))


def reads_cluster(engine_full: str, local: TableName, cluster: str) -> bool:
    """Return True if a table with this engine reads the local table on every shard of the cluster."""
    engine = f"Distributed({distributed_arguments(local, cluster)}"
    return engine_full.startswith((f"{engine})", f"{engine},"))


def on_cluster(cluster: str | None) -> str:
    """Return the clause by which a statement runs on all servers of the cluster; empty for none."""
    return f" ON CLUSTER {identifier(cluster)}" if cluster else ""


def string_literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _create(where: str, engine: str, settings: Mapping[str, int]) -> str:
    width = max(len(column.name) for column in COLUMNS)
    columns = ",\n".join(
        f"    {column.name:<{width}} {column.type} {column.codec}" for column in COLUMNS
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {where} (\n{columns}\n)\n"
        f"ENGINE = {engine}\n"
        f"ORDER BY ({SORTING_KEY})\n"
        f"PARTITION BY {PARTITION_KEY}\n"
        f"TTL {TTL}\n"
        f"SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
    )


def create_table_like(name: TableName, target: TableName) -> str:
    """Return the statement that creates a plain table whose parts can replace those of the target.

    ClickHouse copies columns, indexes and projections, which must be equal in both, of any definition.
    """
    return (
        f"CREATE TABLE {name} AS {target} ENGINE = {ENGINE}() ORDER BY ({SORTING_KEY}) "
        f"PARTITION BY {PARTITION_KEY} TTL {TTL} SETTINGS {WINDOW_SETTING} = 0"
    )


def alter_window(name: TableName, setting: str, window: int = DEDUPLICATION_WINDOW) -> str:
    """Return the statement that sets the deduplication window of an existing table."""
    return f"ALTER TABLE {name} MODIFY SETTING {setting} = {window}"


def is_replicated(engine: str) -> bool:
    return engine.startswith(("Replicated", "Shared"))


def window_setting(engine: str) -> str:
    """Return the name of the setting for the number of tokens that the engine remembers."""
    return REPLICATED_WINDOW_SETTING if is_replicated(engine) else WINDOW_SETTING


@dataclass(frozen=True, slots=True)
class LiveColumn:
    name: str
    type: str
    codec: str


def own_columns(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names that are columns of an event."""
    return tuple(name for name in names if name in COLUMN_NAMES)


@dataclass(frozen=True, slots=True)
class LiveTable:
    """Live table as described by `system.tables` and `system.columns`."""

    engine: str
    sorting_key: str
    partition_key: str
    ttl: str
    """TTL expression; empty if there is none."""
    window: int
    """Number of inserts remembered, by the setting of this engine; 0 means none."""
    columns: tuple[LiveColumn, ...]
    window_seconds: int | None = None
    """Age at which a token is forgotten; None if tokens are limited by number only."""
    columns_with_ttl: tuple[str, ...] = ()
    """Columns of an event whose values expire before their row."""

    @property
    def is_replicated(self) -> bool:
        return is_replicated(self.engine)

    @property
    def window_setting(self) -> str:
        return window_setting(self.engine)

    @property
    def is_window_short_lived(self) -> bool:
        """True if tokens are forgotten earlier than `schema apply` would set."""
        seconds = self.window_seconds
        return seconds is not None and seconds < DEDUPLICATION_WINDOW_SECONDS


def unfit_columns(live: LiveTable) -> list[str]:
    """Return one phrase for each column that cannot hold the rows: missing, or of an unsuitable type.

    Another time zone, LowCardinality and Nullable are accepted; a DateTime64 is not, because seconds
    would be stored as its smaller unit without an error.
    """
    return unfit_types({column.name: column.type for column in live.columns})


def unfit_types(types: Mapping[str, str]) -> list[str]:
    """Return the same as `unfit_columns`, given the types by column."""
    found = []
    for column in COLUMNS:
        if column.name not in types:
            found.append(f"lacks {column.name}")
        elif not _is_fitting(column, types[column.name]):
            found.append(f"has {column.name} as {types[column.name]}, not as {column.type}")
    return found


def _is_fitting(column: Column, live_type: str) -> bool:
    return _FITTING_TYPES[column.type].fullmatch(live_type) is not None


class Difference(NamedTuple):
    text: str
    is_refused: bool = False
    """True if `unfit_columns` names it: rows cannot be inserted."""


def differences(live: LiveTable) -> list[str]:
    """Return one sentence for each difference between the live table and the expected schema."""
    found = [difference.text for difference in schema_differences(live)]
    if live.window < 1:
        found.append(f"{live.window_setting} is 0: repeated inserts would not be recognised")
    return found


def schema_differences(live: LiveTable) -> Iterator[Difference]:
    """Yield the differences, without the deduplication window."""
    if live.engine not in ENGINES:
        yield Difference(f"engine is {live.engine}, must be {ENGINE} or a replicated one of it")
    yield from _column_differences(live)
    for attribute, actual, expected in (
        ("sorting key", live.sorting_key, SORTING_KEY),
        ("partition key", live.partition_key, PARTITION_KEY),
        ("TTL", live.ttl, SHOWN_TTL),
    ):
        if actual != expected:
            yield Difference(f"{attribute} is {actual or 'not set'}, must be {expected}")


def _column_differences(live: LiveTable) -> Iterator[Difference]:
    listed = {column.name: column for column in live.columns}
    for column in COLUMNS:
        found = listed.get(column.name)
        if found is None:
            yield Difference(f"column {column.name} is missing", is_refused=True)
            continue
        if found.type != column.type:
            text = f"column {column.name} is of type {found.type}, must be {column.type}"
            yield Difference(text, is_refused=not _is_fitting(column, found.type))
        if found.codec != SHOWN_CODECS[column.codec]:
            shown = found.codec or "the default codec"
            yield Difference(f"column {column.name} has {shown}, must have {column.codec}")
    for name in listed:
        if name not in COLUMN_NAMES:
            yield Difference(f"column {name} is not in the expected schema")
    names = tuple(name for name in listed if name in COLUMN_NAMES)
    if set(names) == set(COLUMN_NAMES) and names != COLUMN_NAMES:
        yield Difference(f"columns are in the order {', '.join(names)}")
