"""Settings of raw SQL: ClickHouse user, readable tables, functions and limits."""

import re
from dataclasses import dataclass

from octane_analytics.settings import fields

_TABLE = re.compile(r"(\w+)\.(\w+|\*)\Z")
_FUNCTION = re.compile(r"\w+\Z")


def _tables(raw: str) -> frozenset[tuple[str, str]]:
    found = [_TABLE.match(entry.strip()) for entry in raw.split(",") if entry.strip()]
    if not all(found):
        raise ValueError("must be database.table or database.*, separated by commas")
    return frozenset((match[1], match[2]) for match in found if match)


def _functions(raw: str) -> frozenset[str]:
    names = [entry.strip() for entry in raw.split(",") if entry.strip()]
    if not all(_FUNCTION.match(name) for name in names):
        raise ValueError("must be names of functions, separated by commas")
    return frozenset(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSqlSettings:
    user: str | None = fields.setting(
        "CLICKHOUSE_QUERY_USER",
        fields.optional,
        "",
        "ClickHouse user of raw SQL, see `octane-analytics schema grants` (empty: CLICKHOUSE_USER, "
        "which has far more rights than raw SQL should have).",
    )
    password: str = fields.setting(
        "CLICKHOUSE_QUERY_PASSWORD",
        fields.secret,
        "",
        "Password of CLICKHOUSE_QUERY_USER.",
        secret=True,
    )
    tables: frozenset[tuple[str, str]] = fields.setting(
        "API_QUERY_TABLES",
        _tables,
        "",
        "Additional tables that raw SQL may read, as database.table or database.*, "
        "comma-separated; the ClickHouse user also needs SELECT on them.",
    )
    functions: frozenset[str] = fields.setting(
        "API_QUERY_FUNCTIONS",
        _functions,
        "",
        "Additional functions that raw SQL may call, comma-separated; functions without side "
        "effects are allowed by default.",
    )
    max_rows_read: int = fields.setting(
        "API_QUERY_MAX_ROWS_READ",
        fields.integer(1, 1 << 62),
        "10000000000",
        "Maximum number of rows that one raw query may read.",
        unit="rows",
    )
    max_bytes_read: int = fields.setting(
        "API_QUERY_MAX_BYTES_READ",
        fields.integer(1 << 20, 1 << 62),
        str(1 << 40),
        "Maximum number of bytes, uncompressed, that one raw query may read.",
        unit="bytes",
    )
    threads: int = fields.setting(
        "API_QUERY_MAX_THREADS",
        fields.integer(1, 1024),
        "4",
        "Maximum number of threads that ClickHouse uses for one raw query.",
        unit="threads",
    )
