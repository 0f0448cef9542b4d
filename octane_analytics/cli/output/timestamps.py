"""Timestamps as the commands print them."""

from datetime import UTC, datetime, timedelta


def format_milliseconds(milliseconds: int) -> str:
    """Return epoch milliseconds as RFC 3339 in UTC, to the second.

    A time outside the years 1 to 9999 becomes the nearest second in them, because a producer may set
    any timestamp.
    """
    moment = _EPOCH + timedelta(seconds=min(max(milliseconds // 1000, _FIRST), _LAST))
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = int((datetime.min.replace(tzinfo=UTC) - _EPOCH).total_seconds())
_LAST = int((datetime.max.replace(tzinfo=UTC) - _EPOCH) / timedelta(seconds=1))
