"""The settings of raw SQL: who asks ClickHouse, what may be read, how much."""

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
    user: str | None = fields.described(
        "CLICKHOUSE_QUERY_USER",
        fields.optional,
        "",
        "ClickHouse user of raw SQL, see `octane-analytics schema grants` (empty: CLICKHOUSE_USER, "
        "which may do far more than raw SQL should).",
    )
    password: str = fields.described(
        "CLICKHOUSE_QUERY_PASSWORD",
        fields.secret,
        "",
        "Password of CLICKHOUSE_QUERY_USER.",
        secret=True,
    )
    tables: frozenset[tuple[str, str]] = fields.described(
        "API_QUERY_TABLES",
        _tables,
        "",
        "Further tables raw SQL may read, as database.table or database.*, comma-separated; the "
        "ClickHouse user needs the right to, too.",
    )
    functions: frozenset[str] = fields.described(
        "API_QUERY_FUNCTIONS",
        _functions,
        "",
        "Further functions raw SQL may call, comma-separated; every function that computes and does "
        "nothing else may be called already.",
    )
    max_rows_read: int = fields.described(
        "API_QUERY_MAX_ROWS_READ",
        fields.whole(1, 1 << 62),
        "10000000000",
        "Rows that one raw query may read.",
        unit="rows",
    )
    max_bytes_read: int = fields.described(
        "API_QUERY_MAX_BYTES_READ",
        fields.whole(1 << 20, 1 << 62),
        str(1 << 40),
        "Bytes, uncompressed, that one raw query may read.",
        unit="bytes",
    )
    threads: int = fields.described(
        "API_QUERY_MAX_THREADS",
        fields.whole(1, 1024),
        "4",
        "Threads that ClickHouse may use for one raw query.",
        unit="threads",
    )
