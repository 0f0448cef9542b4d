"""`dlq list`: dead-letter messages by reason, as objects and as a table."""

from collections.abc import Iterator
from typing import Any

from octane_analytics.cli.output.table import aligned
from octane_analytics.cli.output.timestamps import utc
from octane_analytics.operations.dead_letters import DeadLetter, RetryState

_HEADINGS = ("letters", "retried", "left", "reason", "first", "last", "note")
_DROPPED = ("first", "note", "last")
"""Columns that a narrow terminal does without, in this order."""
_NOTES = {
    "not_retryable": "not retryable",
    "duplicates": "duplicates of retried ones",
    "pending": "to be finished by the next retry",
}


def counts_by_reason(found: RetryState) -> list[dict[str, Any]]:
    """One object for each reason, the most frequent first."""
    rows: dict[str, dict[str, Any]] = {}
    for name, letters in (
        ("retried", found.inserted),
        ("pending", found.pending),
        ("duplicates", found.duplicates),
        ("left", found.left),
    ):
        for letter in letters:
            row = rows.setdefault(letter.reason, _empty(letter))
            row["letters"] += 1
            row[name] += 1
            row["not_retryable"] += not letter.is_retryable
            row["first_ms"] = min(row["first_ms"], letter.made_ms)
            row["last_ms"] = max(row["last_ms"], letter.made_ms)
    return sorted(rows.values(), key=lambda row: (-row["letters"], row["reason"]))


def counts_table(rows: list[dict[str, Any]], width: int | None) -> Iterator[str]:
    """Lines of a table of at most `width` columns; none without rows."""
    if not rows:
        return
    cells = [
        (
            f"{row['letters']:,}",
            f"{row['retried']:,}",
            f"{row['left']:,}",
            row["reason"],
            utc(row["first_ms"]),
            utc(row["last_ms"]),
            ", ".join(f"{row[name]:,} {note}" for name, note in _NOTES.items() if row[name]),
        )
        for row in rows
    ]
    yield from aligned(_HEADINGS, cells, right=3, width=width, drop=_DROPPED)


def _empty(letter: DeadLetter) -> dict[str, Any]:
    counts = ("letters", "retried", "pending", "duplicates", "left", "not_retryable")
    return {
        "reason": letter.reason,
        **dict.fromkeys(counts, 0),
        "first_ms": letter.made_ms,
        "last_ms": letter.made_ms,
    }
