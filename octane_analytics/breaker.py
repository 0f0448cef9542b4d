"""Tells a few bad records from a bad deployment upstream.

Dead-lettering is for the odd record. When most of what comes in is refused, moving on would carry the
whole topic over to the dead-letter topic, so ingestion stops instead; nothing is committed past it.
"""

from dataclasses import dataclass

from octane_analytics.errors import TooManyRejected

_WINDOW_RECORDS = 10_000
_LEAST_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    max_ratio: float = 1.0
    """Share of refused records, over the last ten thousand and at least a thousand; 1 is no limit."""
    max_consecutive: int = 0
    """Refused records in a row; 0 is no limit."""


class Breaker:
    """Counts what one worker has read, partition by partition as it comes."""

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._records = 0
        self._rejected = 0
        self._consecutive = 0

    def saw(self, records: int, rejected: int) -> None:
        """Raises TooManyRejected once these are too many. `records` includes the `rejected`."""
        if records == 0:
            return
        if self._records >= _WINDOW_RECORDS:
            # Halving lets the past fade without remembering each record.
            self._records //= 2
            self._rejected //= 2
        self._records += records
        self._rejected += rejected
        self._consecutive = self._consecutive + rejected if rejected == records else 0
        limits = self._limits
        if 0 < limits.max_consecutive <= self._consecutive:
            raise TooManyRejected(
                f"{self._consecutive} records in a row are no valid events (DLQ_MAX_CONSECUTIVE is "
                f"{limits.max_consecutive}); {_ADVICE}"
            )
        ratio = self._rejected / self._records
        if self._records >= _LEAST_RECORDS and ratio > limits.max_ratio:
            raise TooManyRejected(
                f"{ratio:.0%} of the last {self._records} records are no valid events "
                f"(DLQ_MAX_RATIO is {limits.max_ratio:g}); {_ADVICE}"
            )


_ADVICE = (
    "consuming stops before they all go to the dead-letter topic: fix the producer, or set "
    "DLQ_MAX_RATIO=1 and DLQ_MAX_CONSECUTIVE=0 to send them there, and start again; see "
    "`octane-analytics manual runbook`"
)
