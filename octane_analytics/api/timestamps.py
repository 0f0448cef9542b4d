"""Timestamps in requests: RFC 3339, seconds since 1970, or relative to now.

Events are stored to the second, so timestamps are rounded up to one.
"""

import functools
import math
import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime

from octane_analytics.runtime import rfc3339 as rfc3339_text

LAST_SECOND = 2**32 - 1
"""Largest value of ClickHouse's DateTime, in 2106."""
RELATIVE = r"now|-[0-9]{1,9}[smhdw]"
"""Regular expression: `now`, or a number of seconds, minutes, hours, days or weeks before it."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(RELATIVE)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_EXPECTED = (
    "must be an RFC 3339 time with an offset such as 2026-02-02T12:00:00Z (in a URL a + is %2B), "
    "seconds since 1970, or relative to now such as -24h or -7d"
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since 1970; seconds before now if `is_relative`."""

    seconds: int
    is_relative: bool = False

    def at(self, now: datetime) -> int:
        """Return seconds since 1970. Raises ValueError outside the range of DateTime."""
        second = math.ceil(now.timestamp()) - self.seconds if self.is_relative else self.seconds
        if not 0 <= second <= LAST_SECOND:
            raise ValueError("must lie from 1970-01-01 to 2106-02-07")
        return second


NOW = Moment(0, is_relative=True)


def moment(value: object) -> Moment:
    """Parse a timestamp. Raises ValueError, which lists the accepted notations."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Every comparison with NaN is false.
        return Moment(math.ceil(value) if -1 < value <= LAST_SECOND else -1)
    if not isinstance(value, str):
        raise ValueError(_EXPECTED)
    if _RELATIVE.fullmatch(value):
        if value == "now":
            return NOW
        return Moment(int(value[1:-1]) * _UNIT_SECONDS[value[-1]], is_relative=True)
    if _NUMBER.fullmatch(value):
        return Moment(math.ceil(float(value)))
    return Moment(math.ceil(_from_rfc3339(value).timestamp()))


def rfc3339(time: datetime) -> str:
    """Format in UTC with a Z, without a zero fraction; a time without a zone is local time."""
    return time.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def from_epoch(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _from_rfc3339(value: str) -> datetime:
    try:
        time = rfc3339_text.parse(value)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if time.tzinfo is None:
        raise ValueError(_EXPECTED)
    return time


@functools.cache
def timezones() -> frozenset[str]:
    """Return all zones of this machine. The first call reads its zone directories."""
    return frozenset(zoneinfo.available_timezones())
