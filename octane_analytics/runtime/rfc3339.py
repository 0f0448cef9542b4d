"""Parser of RFC 3339 times in requests and options; events have their own in `events.decode`."""

from datetime import UTC, date, datetime, time

import msgspec


def parse(text: str) -> datetime:
    """Return the time, naive if the text has no offset. Raise ValueError."""
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text!r} is not an RFC 3339 time") from error


def parse_as_utc(text: str) -> datetime:
    """Return an aware time: UTC if the text has no offset, midnight for a date. Raise ValueError."""
    try:
        day = msgspec.convert(text, date)
    except msgspec.ValidationError:
        parsed = parse(text)
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return datetime.combine(day, time(tzinfo=UTC))
