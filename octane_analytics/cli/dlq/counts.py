"""Output of `dlq list`: dead-letter messages by reason, as objects and as a table."""

from collections.abc import Iterator
from typing import Any

from octane_analytics.cli.output.table import aligned
from octane_analytics.cli.output.timestamps import format_milliseconds
from octane_analytics.operations.dead_letters import DeadLetter, RetryState

_HEADINGS = ("messages", "retried", "left", "reason", "first", "last", "note")
_DROPPED = ("first", "note", "last")
"""Columns that a narrow terminal omits, in this order."""
_NOTES = {
    "not_retryable": "not retryable",
    "duplicates": "duplicates of retried ones",
    "pending": "to be finished by the next retry",
}


def counts_by_reason(state: RetryState) -> list[dict[str, Any]]:
    """Return one object for each reason, the most frequent first."""
    rows: dict[str, dict[str, Any]] = {}
    for name, messages in (
        ("retried", state.inserted),
        ("pending", state.pending),
        ("duplicates", state.duplicates),
        ("left", state.left),
    ):
        for message in messages:
            row = rows.setdefault(message.reason, _empty_row(message))
            row["messages"] += 1
            row[name] += 1
            row["not_retryable"] += not message.is_retryable
            row["first_ms"] = min(row["first_ms"], message.sent_ms)
            row["last_ms"] = max(row["last_ms"], message.sent_ms)
    return sorted(rows.values(), key=lambda row: (-row["messages"], row["reason"]))


def counts_table(rows: list[dict[str, Any]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table of at most `width` columns; none without rows."""
    if not rows:
        return
    cells = [
        (
            f"{row['messages']:,}",
            f"{row['retried']:,}",
            f"{row['left']:,}",
            row["reason"],
            format_milliseconds(row["first_ms"]),
            format_milliseconds(row["last_ms"]),
            ", ".join(f"{row[name]:,} {note}" for name, note in _NOTES.items() if row[name]),
        )
        for row in rows
    ]
    yield from aligned(_HEADINGS, cells, right=3, width=width, drop=_DROPPED)


def _empty_row(message: DeadLetter) -> dict[str, Any]:
    counts = ("messages", "retried", "pending", "duplicates", "left", "not_retryable")
    return {
        "reason": message.reason,
        **dict.fromkeys(counts, 0),
        "first_ms": message.sent_ms,
        "last_ms": message.sent_ms,
    }
