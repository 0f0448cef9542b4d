"""Checks of materialized views for repeated inserts, and detection of a failing view.

Pure; the connection reads the facts. A repeated insert triggers the views too. Each target must then
recognise the repeated block by itself, which requires a deduplication window of its own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.error_codes import single_line
from octane_analytics.clickhouse.schema import LiveTable, TableName

_NULL_ENGINE = "Null"


@dataclass(frozen=True, slots=True)
class View:
    name: TableName
    target: TableName | None
    """Target table; None if the server does not show it."""
    engine: str = ""
    """Engine of the target; empty if it does not exist or the user may not see it."""
    window: int = 0
    """Deduplication window of the target, in inserts."""

    @property
    def lacks_target(self) -> bool:
        return self.target is not None and not self.engine


@dataclass(frozen=True, slots=True)
class ViewFinding:
    message: str
    is_refusal: bool
    """True if exactly-once delivery must not start with the view."""


def view_findings(
    table: TableName, live: LiveTable, views: Iterable[View], *, servers: int = 1
) -> list[ViewFinding]:
    """Return the problems of these views of a table that receives repeated inserts, with the fixes.

    `servers` is the number of replicas that rows are inserted through.
    """
    stored = [view for view in views if view.engine != _NULL_ENGINE]
    several = servers if live.is_replicated else 1
    found = [finding for view in stored if (finding := _finding(view, several))]
    if stored and not live.is_replicated:
        listed = ", ".join(str(view.name) for view in stored)
        found.append(
            ViewFinding(
                f"{table} is a {live.engine} with materialized views ({listed}): ClickHouse, killed "
                "at the worst moment, forgets rows of such a table but not their token, and inserting "
                "them again would count them twice in the views. Use a ReplicatedMergeTree, remove "
                "the views, or set DELIVERY=at-least-once",
                is_refusal=True,
            )
        )
    return found


def _finding(view: View, servers: int) -> ViewFinding | None:
    if view.target is None:
        return ViewFinding(
            f"view {view.name}: its target cannot be seen, and may count repeated inserts twice: "
            f"GRANT SHOW TABLES ON {view.name} and on its target to CLICKHOUSE_USER",
            is_refusal=False,
        )
    if view.lacks_target:
        return ViewFinding(
            f"view {view.name}: its target {view.target} does not exist, or CLICKHOUSE_USER may not "
            f"see it: create {view.target}, or DROP VIEW {view.name}, or GRANT SHOW TABLES ON "
            f"{view.target}",
            is_refusal=False,
        )
    if not view.engine.endswith(schema.ENGINE):
        return ViewFinding(
            f"view {view.name}: its target {view.target} is a {view.engine}, which does not recognise "
            "repeated inserts and counts them twice: use a table of the MergeTree family",
            is_refusal=False,
        )
    if servers > 1 and not schema.is_replicated(view.engine):
        return ViewFinding(
            f"view {view.name}: its target {view.target} is a {view.engine}, and each of the {servers} "
            "servers has one of its own, which lacks the rows that were inserted through the others and "
            "counts an insert twice that is repeated through another one: use a Replicated"
            f"{view.engine} on each server",
            is_refusal=True,
        )
    if view.window < 1:
        alter = schema.alter_window(view.target, schema.window_setting(view.engine))
        return ViewFinding(
            f"view {view.name}: its target {view.target} has no deduplication window and counts "
            f"repeated inserts twice: {alter}",
            is_refusal=True,
        )
    return None


def failing_view(message: str, views: Iterable[TableName]) -> TableName | None:
    """Return the view in which an insert failed, by the text that the server appends to its message.

    The message is on one line (see `error_codes.plain_message`).

    Earlier text may be quoted from a row and is ignored. ClickHouse appends the outermost view last,
    after the expression that failed, so the end is never text of a row.
    """
    for view in views:
        name = rf"{_name_pattern(view.database)}\.{_name_pattern(view.table)}"
        if re.search(rf": while pushing to view {name}( \([0-9a-f-]{{36}}\))?[. ]*\Z", message):
            return view
    return None


_ESCAPES = str.maketrans(
    {char: f"\\{letter}" for char, letter in zip("\b\f\n\r\t\0\\`", "bfnrt0\\`", strict=True)}
)
"""Escape sequences that the server writes within backticks."""


def _name_pattern(name: str) -> str:
    """Return a pattern of the forms in which the server may write the name."""
    forms = (name, f"`{name.translate(_ESCAPES)}`")
    return f"(?:{'|'.join(re.escape(single_line(form)) for form in forms)})"


def may_be_of_a_view(message: str) -> bool:
    """Return whether to query the server for the names that `failing_view` needs."""
    return ": while pushing to view " in message
