"""Output of `dlq retry`: what a retry would do, and what it did."""

from collections.abc import Iterator
from typing import Any

from octane_analytics.operations.dead_letter_retry import RetryOutcome


def format_plan(
    source: str, target: str, *, chosen: int, duplicates: int, not_retryable: int, pending: int
) -> str:
    """Return one line with the numbers of dead-letter messages by what a retry does with them."""
    text = (
        f"{chosen:,} dead-letter messages of {source} into {target}; {duplicates:,} "
        f"duplicates left out, {not_retryable:,} not retryable"
    )
    if pending:
        text += f"; {pending:,} that an earlier retry announced come first"
    return text


def outcome_object(outcome: RetryOutcome) -> dict[str, Any]:
    """Return the counts of a retry as an object for JSON."""
    return {
        "chosen": outcome.chosen,
        "inserted": outcome.inserted,
        "finished_of_an_earlier_retry": outcome.finished,
        "failed_again": dict(outcome.failed),
        "refused_by_clickhouse": outcome.refused,
        "not_retryable": outcome.not_retryable,
        "duplicates": outcome.duplicates,
        "present": outcome.present,
    }


def outcome_lines(outcome: RetryOutcome) -> Iterator[str]:
    """Yield the totals, then one line for each reason that occurred."""
    yield f"{outcome.inserted:,} inserted, {outcome.remaining:,} stay"
    for description, count in (
        ("of those inserted, announced by an earlier retry", outcome.finished),
        *((f"stay: {reason}", count) for reason, count in outcome.failed.most_common()),
        ("stay: refused_by_clickhouse", outcome.refused),
        ("stay: without their value, or not sent by a worker", outcome.not_retryable),
        ("left out: their record is already inserted", outcome.duplicates),
        ("settled: the table has equal rows", outcome.present),
    ):
        if count:
            yield f"  {count:,} {description}"
