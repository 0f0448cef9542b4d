"""Limit of dead-lettered records, which detects a faulty producer or table.

Dead-lettering is for occasional records. If most records are refused, continuing would move the whole
topic to the dead-letter topic, so ingestion stops instead; nothing is committed past that point.
"""

from dataclasses import dataclass

from octane_analytics.errors import TooManyRejected

_WINDOW_RECORDS = 10_000
_LEAST_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class DlqLimitConfig:
    max_ratio: float = 1.0
    """Share of refused records, over the last ten thousand and at least a thousand; 1 disables it."""
    max_consecutive: int = 0
    """Rejected records in a row, or rows refused by ClickHouse without an accepted one in between;
    0 disables it."""


class DlqLimit:
    """Counters of the records that one worker reads, and of the rows that ClickHouse refuses."""

    def __init__(self, limits: DlqLimitConfig) -> None:
        self._limits = limits
        self._records = 0
        self._rejected = 0
        self._consecutive = 0
        self._refused_consecutive = 0

    def record(self, records: int, rejected: int, trailing: int) -> None:
        """Count the records of one poll, including the `rejected` ones.

        `trailing` of them are rejected with no accepted one after them. Raise TooManyRejected over the
        limit.
        """
        if records == 0:
            return
        self._add(records, rejected)
        self._consecutive = self._consecutive + rejected if rejected == records else trailing
        self._check(self._consecutive, "records in a row are not valid events")

    def record_inserted(self, rows: int) -> None:
        """Count rows accepted by ClickHouse, of records that `record` has not counted."""
        self._refused_consecutive = 0
        self._add(rows, 0)

    def record_refused(self, rows: int, *, is_counted: bool) -> None:
        """Count rows refused by ClickHouse; call before they go to the dead-letter topic.

        `is_counted` means that `record` has counted their records as valid. Raise TooManyRejected over
        the limit.
        """
        self._add(0 if is_counted else rows, rows)
        self._refused_consecutive += rows
        self._check(self._refused_consecutive, "rows in a row were refused by ClickHouse")

    def _add(self, records: int, rejected: int) -> None:
        if self._records >= _WINDOW_RECORDS:
            # Halving lets the past fade without remembering each record.
            self._records //= 2
            self._rejected //= 2
        self._records += records
        self._rejected += rejected

    def _check(self, consecutive: int, description: str) -> None:
        limits = self._limits
        if 0 < limits.max_consecutive <= consecutive:
            raise TooManyRejected(
                f"{consecutive} {description} (DLQ_MAX_CONSECUTIVE is {limits.max_consecutive}); "
                f"{_ADVICE}"
            )
        if self._records < _LEAST_RECORDS:
            return
        # Records counted before the last halving may be refused after it.
        ratio = min(1.0, self._rejected / self._records)
        if ratio > limits.max_ratio:
            raise TooManyRejected(
                f"{ratio:.0%} of the last {self._records} records are invalid events, or were refused "
                f"by ClickHouse (DLQ_MAX_RATIO is {limits.max_ratio:g}); {_ADVICE}"
            )


_ADVICE = (
    "consuming stops before they all go to the dead-letter topic: fix the producer or the table, or "
    "set DLQ_MAX_RATIO=1 and DLQ_MAX_CONSECUTIVE=0 to send them there, and start again; see "
    "`octane-analytics manual runbook`"
)
