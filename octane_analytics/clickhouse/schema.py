"""The table's contract as data, and its DDL.

Owns what the table must be; refuses to know how to reach one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

DEDUPLICATION_WINDOW = 10_000
"""Inserts, over the whole table, whose tokens ClickHouse remembers. See `window_minutes`."""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    codec: str
    """As one would write it; ClickHouse shows it with its defaults spelled out."""


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
"""How system.columns shows the codecs above."""
COLUMN_NAMES = tuple(column.name for column in COLUMNS)

ENGINE = "MergeTree"
_ENGINES = frozenset({ENGINE, f"Replicated{ENGINE}", f"Shared{ENGINE}"})
"""Not Replacing… and its like, which merge events of one second into one."""
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
"""ClickHouse's own, for a user who may not ask the server for its defaults."""
DEDUPLICATION_WINDOW_SECONDS = 86_400
"""A replicated table forgets tokens by age too, after an hour by default: a day covers an evening
without workers."""

_FITTING_TYPES = {
    "DateTime": re.compile(r"DateTime(\('[^']*'\))?|Nullable\(DateTime(\('[^']*'\))?\)"),
    "String": re.compile(r"(LowCardinality\()?(Nullable\()?String\)*"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def identifier(name: str) -> str:
    """The name as SQL may carry it: bare where that is possible, else in escaped backticks."""
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
    """The statement that makes the table where it does not exist yet."""
    width = max(len(column.name) for column in COLUMNS)
    columns = ",\n".join(
        f"    {column.name:<{width}} {column.type} {column.codec}" for column in COLUMNS
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n)\n"
        f"ENGINE = {ENGINE}()\n"
        f"ORDER BY ({SORTING_KEY})\n"
        f"PARTITION BY {PARTITION_KEY}\n"
        f"TTL {TTL}\n"
        f"SETTINGS {WINDOW_SETTING} = {window}"
    )


def alter_window(name: TableName, setting: str, window: int = DEDUPLICATION_WINDOW) -> str:
    """The statement that widens the deduplication window of a table that exists."""
    return f"ALTER TABLE {name} MODIFY SETTING {setting} = {window}"


def window_minutes(window: int, inserts_per_second: float) -> float:
    """For how long a token is remembered at this rate of inserts into the table."""
    return window / inserts_per_second / 60.0


def is_replicated(engine: str) -> bool:
    return engine.startswith(("Replicated", "Shared"))


def window_setting(engine: str) -> str:
    """The setting that says how many tokens a table of this engine remembers."""
    return REPLICATED_WINDOW_SETTING if is_replicated(engine) else WINDOW_SETTING


@dataclass(frozen=True, slots=True)
class LiveColumn:
    name: str
    type: str
    codec: str


@dataclass(frozen=True, slots=True)
class LiveTable:
    """What a server says of a table, as `system.tables` and `system.columns` put it."""

    engine: str
    sorting_key: str
    partition_key: str
    ttl: str
    """Empty where there is none."""
    window: int
    """Inserts remembered by the setting that counts for this engine; 0 means none."""
    columns: tuple[LiveColumn, ...]
    window_seconds: int | None = None
    """Age at which a token is forgotten; None where tokens are only counted."""

    @property
    def is_replicated(self) -> bool:
        return is_replicated(self.engine)

    @property
    def window_setting(self) -> str:
        return window_setting(self.engine)

    @property
    def is_window_short_lived(self) -> bool:
        """Whether tokens are forgotten earlier than `schema apply` would have it."""
        seconds = self.window_seconds
        return seconds is not None and seconds < DEDUPLICATION_WINDOW_SECONDS


def unfit_columns(live: LiveTable) -> list[str]:
    """One phrase for each column that cannot hold what is sent: missing, or of another kind.

    Another time zone, LowCardinality and Nullable do no harm; into a DateTime64 seconds would go as
    its own, smaller unit, without any error.
    """
    return unfit_types({column.name: column.type for column in live.columns})


def unfit_types(types: Mapping[str, str]) -> list[str]:
    """As `unfit_columns`, of types by column."""
    found = []
    for column in COLUMNS:
        if column.name not in types:
            found.append(f"lacks {column.name}")
        elif not _FITTING_TYPES[column.type].fullmatch(types[column.name]):
            found.append(f"has {column.name} as {types[column.name]}, not as {column.type}")
    return found


def differences(live: LiveTable) -> list[str]:
    """One sentence for each point in which the live table is not what the contract says."""
    found = []
    if live.engine not in _ENGINES:
        found.append(f"engine is {live.engine}, must be {ENGINE} or a replicated one of it")
    listed = {column.name: column for column in live.columns}
    for column in COLUMNS:
        if column.name not in listed:
            found.append(f"column {column.name} is missing")
            continue
        if listed[column.name].type != column.type:
            found.append(
                f"column {column.name} is of type {listed[column.name].type}, must be {column.type}"
            )
        if listed[column.name].codec != SHOWN_CODECS[column.codec]:
            shown = listed[column.name].codec or "the default codec"
            found.append(f"column {column.name} has {shown}, must have {column.codec}")
    found += [
        f"column {name} is not in the contract" for name in listed if name not in COLUMN_NAMES
    ]
    names = tuple(name for name in listed if name in COLUMN_NAMES)
    if set(names) == set(COLUMN_NAMES) and names != COLUMN_NAMES:
        found.append(f"columns stand in the order {', '.join(names)}")
    for what, actual, expected in (
        ("sorting key", live.sorting_key, SORTING_KEY),
        ("partition key", live.partition_key, PARTITION_KEY),
        ("TTL", live.ttl, SHOWN_TTL),
    ):
        if actual != expected:
            found.append(f"{what} is {actual or 'not set'}, must be {expected}")
    if live.window < 1:
        found.append(f"{live.window_setting} is 0: repeated inserts would not be recognised")
    return found
