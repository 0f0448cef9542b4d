"""Listing of the tables that raw SQL can read, with the columns visible to the query user."""

from collections.abc import Mapping
from typing import TypedDict

from octane_analytics.api.connection_pool import PooledConnection
from octane_analytics.api.raw_sql.query_settings import without_limit
from octane_analytics.api.raw_sql.validator import AccessRules

SELECT_COLUMNS = (
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


def list_tables(
    connection: PooledConnection, rules: AccessRules, settings: Mapping[str, object]
) -> list[TableColumns]:
    """Return the tables in order of database and name. Raises as `Connection.select`."""
    readable = [(rules.table.database, rules.table.table), *rules.readable]
    parameters: dict[str, object] = {
        "tables": [f"{database}.{table}" for database, table in readable if table != "*"],
        "databases": [database for database, table in readable if table == "*"],
    }
    tables: dict[tuple[str, str], TableColumns] = {}
    for database, table, name, kind, comment in connection.select(
        SELECT_COLUMNS, parameters, settings=without_limit(settings)
    ).rows:
        entry = tables.setdefault(
            (database, table), {"database": database, "table": table, "columns": []}
        )
        entry["columns"].append({"name": name, "type": kind, "comment": comment})
    return list(tables.values())
