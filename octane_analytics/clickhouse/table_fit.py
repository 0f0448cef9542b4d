"""Check whether a live table fits the delivery protocol, for worker and replay alike."""

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.errors import ConfigError, NeedsOperator


def require_fit(
    name: TableName, live: LiveTable | None, *, window_user: str | None, window_hint: str = ""
) -> LiveTable:
    """Return the table if rows can be inserted into it, and repeated inserts are recognised.

    `window_user` names what depends on the deduplication window; None does not require one.
    `window_hint` is appended to the error about it. Raise NeedsOperator if the table does not exist,
    ConfigError if a column is missing or of another type, or if a required window is missing.
    """
    if live is None:
        raise NeedsOperator(
            f"table {name} does not exist: create it with `octane-analytics schema apply`"
        )
    if unfit := schema.unfit_columns(live):
        raise ConfigError(f"table {name} {', '.join(unfit)}: see `octane-analytics schema check`")
    if live.window < 1 and window_user is not None:
        alter = schema.alter_window(name, live.window_setting)
        raise ConfigError(
            f"table {name} has no deduplication window, which {window_user} depends on: run "
            f"`octane-analytics schema apply` or {alter}{window_hint}"
        )
    return live
