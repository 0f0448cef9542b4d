"""The one decision whether a live table fits the delivery protocol.

`worker`, `replay`, `check` and `schema check` all report it. Does not depend on a connection.
"""

from dataclasses import dataclass

from octane_analytics.clickhouse import schema, table_ttl
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.errors import ConfigError, NeedsOperator

_SYNC = "SYSTEM SYNC REPLICA"


@dataclass(frozen=True, slots=True)
class TableFit:
    refusals: tuple[str, ...] = ()
    """Reasons for which worker and replay do not start, each with the fix."""
    differences: tuple[str, ...] = ()
    """Deviations from the expected schema that they accept."""


def table_fit(
    name: TableName, live: LiveTable, *, window_user: str | None, servers: int = 1
) -> TableFit:
    """Return the verdict on a table.

    `window_user` names what depends on the deduplication window; None does not require one. `servers` is
    the number of servers that rows are inserted through.
    """
    refusals = [_column_refusal(name, live), window_refusal(name, live, window_user)]
    differences = [text for text, is_refused in schema.schema_differences(live) if not is_refused]
    several = _several_servers(name, live, servers)
    if window_user is None:
        differences.append(several)
    else:
        refusals.append(several)
        differences.append(_count_warning(live))
    return TableFit(tuple(filter(None, refusals)), tuple(filter(None, differences)))


def require_fit(
    name: TableName,
    live: LiveTable | None,
    *,
    window_user: str | None,
    window_hint: str = "",
    servers: int = 1,
) -> LiveTable:
    """Return the table if rows can be inserted into it, and repeated inserts are recognised.

    `window_user` and `servers` are as in `table_fit`; `window_hint` is appended to the error about the
    window. Raise NeedsOperator if the table does not exist, ConfigError if `table_fit` refuses it.
    """
    if live is None:
        raise NeedsOperator(
            f"table {name} does not exist: create it with `octane-analytics schema apply`"
        )
    if refusals := table_fit(name, live, window_user=window_user, servers=servers).refusals:
        hint = window_hint if window_refusal(name, live, window_user) else ""
        raise ConfigError("; ".join(refusals) + hint)
    return live


def required_rights(live: LiveTable | None, *, is_exactly_once: bool) -> tuple[str, ...]:
    """Return the rights on the table that a worker needs.

    A repeated insert into a replicated table waits for the rows that other replicas have acknowledged.
    """
    is_counted = live is not None and live.is_replicated and is_exactly_once
    return ("SELECT", "INSERT", _SYNC) if is_counted else ("SELECT", "INSERT")


def _column_refusal(name: TableName, live: LiveTable) -> str:
    unfit = schema.unfit_columns(live)
    return f"table {name} {', '.join(unfit)}: see `octane-analytics schema check`" if unfit else ""


def _several_servers(name: TableName, live: LiveTable, servers: int) -> str:
    if live.is_replicated or servers < 2:
        return ""
    return (
        f"table {name} is a {live.engine}, and CLICKHOUSE_HOST lists several servers: make them "
        "replicas of one table, or a batch that one has inserted is inserted again by another"
    )


def window_refusal(name: TableName, live: LiveTable, window_user: str | None) -> str:
    """Return why the table's deduplication window is refused; empty if it is not."""
    if live.window >= 1 or window_user is None:
        return ""
    alter = schema.alter_window(name, live.window_setting)
    return (
        f"table {name} has no deduplication window, which {window_user} depends on: run "
        f"`octane-analytics schema apply` or {alter}"
    )


def _count_warning(live: LiveTable) -> str:
    if live.engine in schema.ENGINES and live.columns_with_ttl:
        return (
            f"the values of {', '.join(live.columns_with_ttl)} expire by a TTL of their column: missing "
            "rows of a repeated insert cannot be counted, and it depends on its token alone"
        )
    others = {column.name for column in live.columns} - set(schema.COLUMN_NAMES)
    if live.engine not in schema.ENGINES or (
        table_ttl.unexpired_condition(live.ttl, others) is not None
    ):
        return ""
    return (
        f"TTL {live.ttl} removes rows by more than their own five columns: missing rows of a repeated "
        "insert cannot be counted, and it depends on its token alone"
    )
