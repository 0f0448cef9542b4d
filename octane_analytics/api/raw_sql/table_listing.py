"""The tables that raw SQL can read, with their columns, as the query user sees them."""

from collections.abc import Mapping
from typing import TypedDict

from octane_analytics.api.connection_pool import PooledConnection
from octane_analytics.api.raw_sql.validator import AccessRules

READ = (
    "SELECT database, table, name, type, comment FROM system.columns "
    "WHERE has({tables:Array(String)}, concat(database, '.', table)) "
    "OR has({databases:Array(String)}, database) "
    "ORDER BY database, table, position"
)


class ListedColumn(TypedDict):
    name: str
    type: str
    comment: str


class TableColumns(TypedDict):
    database: str
    table: str
    columns: list[ListedColumn]


def read(
    connection: PooledConnection, rules: AccessRules, settings: Mapping[str, object]
) -> list[TableColumns]:
    """Raises as `Connection.select`."""
    named = [(rules.table.database, rules.table.table), *rules.readable]
    parameters: dict[str, object] = {
        "tables": [f"{database}.{table}" for database, table in named if table != "*"],
        "databases": [database for database, table in named if table == "*"],
    }
    asking = {name: value for name, value in settings.items() if name != "limit"}
    tables: dict[tuple[str, str], TableColumns] = {}
    for database, table, name, kind, comment in connection.select(
        READ, parameters, settings=asking
    ).rows:
        entry = tables.setdefault(
            (database, table), {"database": database, "table": table, "columns": []}
        )
        entry["columns"].append({"name": name, "type": kind, "comment": comment})
    return list(tables.values())
