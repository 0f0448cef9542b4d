"""Statements that create the ClickHouse user of raw SQL: role, grants, profile, quota, user.

`conf/clickhouse/octane-query.xml` is the equivalent for servers with users in files; a test compares
the two. Opens no connection.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from octane_analytics.clickhouse.connection import ALL_SHARDS
from octane_analytics.clickhouse.schema import TableName, identifier, on_cluster, string_literal
from octane_analytics.settings.sections import Settings

NAME = "octane_query"
"""Name of role, profile and quota; of the user too, unless CLICKHOUSE_QUERY_USER is set."""
NO_HASH = "SHA-256 OF THE PASSWORD"
"""Placeholder for the hash of the password in printed statements."""
_SALT_BYTES = 16
_QUERIES_AT_FULL_MEMORY = 2
"""Raw queries that may take API_MAX_MEMORY_BYTES at once: inserts need memory of the same server. While
they run, a query that needs more than is left is answered 503."""


@dataclass(frozen=True, slots=True)
class Password:
    """Salted hash of a password; the password itself is not kept."""

    digest: str
    salt: str

    def __repr__(self) -> str:
        return "Password(…)"


def hashed(password: str) -> Password:
    salt = secrets.token_hex(_SALT_BYTES)
    return Password(hashlib.sha256((password + salt).encode()).hexdigest(), salt)


def profile(settings: Settings) -> list[str]:
    """Return the profile's elements; a query can change only CHANGEABLE_IN_READONLY settings."""
    api, queries = settings.api, settings.queries
    fixed = {
        "readonly": "1",
        "allow_ddl": "0",
        "allow_introspection_functions": "0",
        "timeout_overflow_mode": "'throw'",
        "max_memory_usage_for_user": str(_QUERIES_AT_FULL_MEMORY * api.max_memory_bytes),
        "max_concurrent_queries_for_user": "32",
        "read_overflow_mode": "'throw'",
        "result_overflow_mode": "'throw'",
        "max_rows_in_join": str(queries.max_rows_read),
        "max_bytes_in_join": str(api.max_memory_bytes),
        "join_overflow_mode": "'throw'",
        "max_block_size": "8192",
        **{name: _literal(value) for name, value in ALL_SHARDS.items()},
        "function_sleep_max_microseconds_per_block": "100000",
    }
    bounded = {
        "max_execution_time": (f"{api.query_seconds:g}", "0.1"),
        "max_memory_usage": (str(api.max_memory_bytes), "1"),
        "max_rows_to_read": (str(queries.max_rows_read), "1"),
        "max_bytes_to_read": (str(queries.max_bytes_read), "1"),
        "max_result_bytes": (str(api.max_result_bytes), "1"),
        "max_threads": (str(queries.threads), "1"),
    }
    return [
        *(f"{name} = {value}" for name, value in fixed.items()),
        *(
            f"{name} = {maximum} MIN {minimum} MAX {maximum} CHANGEABLE_IN_READONLY"
            for name, (maximum, minimum) in bounded.items()
        ),
        "limit CHANGEABLE_IN_READONLY",
        "log_comment CHANGEABLE_IN_READONLY",
    ]


def _literal(value: object) -> str:
    return string_literal(value) if isinstance(value, str) else str(value)


def statements(
    settings: Settings,
    password: Password | None,
    networks: Sequence[IPv4Network | IPv6Network] = (),
    cluster: str | None = None,
) -> list[str]:
    """Return the statements in the order in which to run them; safe to repeat. Without a password they
    are for printing only."""
    clickhouse = settings.clickhouse
    table = TableName(clickhouse.database, clickhouse.table)
    user = identifier(settings.queries.user or NAME)
    where = on_cluster(cluster)
    hosts = ", ".join(f"IP '{network}'" for network in networks) or "ANY"
    digest, salt = (password.digest, password.salt) if password else (NO_HASH, "ITS SALT")
    listed = ",\n    ".join(profile(settings))
    readable = [f"{table}"]
    if clickhouse.topology().is_sharded:
        readable.append(f"{TableName(clickhouse.database, clickhouse.distributed_table)}")
    readable += [
        f"{identifier(database)}.{name if name == '*' else identifier(name)}"
        for database, name in sorted(settings.queries.tables)
    ]
    return [
        f"CREATE ROLE IF NOT EXISTS {NAME}{where}",
        *(f"GRANT{where} SELECT ON {name} TO {NAME}" for name in readable),
        f"CREATE SETTINGS PROFILE OR REPLACE {NAME}{where} SETTINGS\n    {listed}",
        f"CREATE USER OR REPLACE {user}{where}\n"
        f"    IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'\n"
        f"    HOST {hosts} DEFAULT ROLE {NAME} SETTINGS PROFILE '{NAME}'",
        f"GRANT{where} {NAME} TO {user}",
        f"CREATE QUOTA OR REPLACE {NAME}{where} KEYED BY user_name\n"
        f"    FOR INTERVAL 1 hour MAX queries = 100000, errors = 20000, execution_time = 36000\n"
        f"    TO {user}",
    ]
