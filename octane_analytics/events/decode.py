"""Decoder of record values into events, with a reason out of a bounded set for invalid ones.

Strict on purpose: an invalid event is left for a person to inspect, never guessed or clamped. JSON is
RFC 8259 in UTF-8; timestamps are RFC 3339 with an offset, in the range of ClickHouse's DateTime. Unknown
top-level fields are ignored.
"""

import calendar
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final, TypeVar

import msgspec

from octane_analytics.errors import DecodeError
from octane_analytics.events.event import Columns, Decoded, Row
from octane_analytics.events.packed_columns import (
    new_columns,
    pack_bytes,
    pack_seconds,
    pack_text,
    pack_texts,
)

REASONS: Final = (
    "tombstone",
    "not_utf8",
    "not_json",
    "bad_unicode",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "empty_field",
    "bad_timestamp",
    "timestamp_out_of_range",
    "properties_not_an_object",
)
"""All reasons of `decode`."""

MAX_EPOCH_SECONDS: Final = 2**32 - 1
"""Last second of DateTime, 2106-02-07T06:28:15Z."""

MAX_DEPTH: Final = 500
"""Most objects and arrays around a value, the event among them. Python's own limit on recursion counts
the frames of the caller, so that an event could be valid once and invalid when it is read again."""

_V = TypeVar("_V")


class _Event(msgspec.Struct, gc=False):
    app_id: str
    event_name: str
    user_id: str
    timestamp: str
    properties: msgspec.Raw = msgspec.Raw(b"{}")


_OPENS: Final = {0x7B}
"""First byte of an object: the brace."""

_decode_event = msgspec.json.Decoder(_Event).decode


def decode(value: bytes | None) -> Row:
    """Decode the event in a record's value; None is a tombstone. Raise DecodeError.

    `properties` is the object's text byte for byte, `{}` if the field is absent or null.
    """
    if value is None:
        raise DecodeError("tombstone", "the record has no value")
    try:
        # The JSON decoder skips properties without checking their encoding.
        if not value.isascii():
            value.decode()
        if _is_too_deep(value):
            raise DecodeError("not_json", f"nested more than {MAX_DEPTH} levels deep")
        event = _decode_event(value)
        timestamp = epoch_seconds(event.timestamp)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _decode_error(value, error) from error
    app_id, event_name, user_id = event.app_id, event.event_name, event.user_id
    if not (app_id and event_name and user_id):
        name = next(n for n in ("app_id", "event_name", "user_id") if not getattr(event, n))
        raise DecodeError("empty_field", f"{name} is empty")
    properties = bytes(event.properties)
    if properties[0] not in _OPENS:
        if properties != b"null":
            raise DecodeError("properties_not_an_object", "properties is not an object")
        properties = b"{}"
    return Row(timestamp, app_id, event_name, user_id, properties)


def decode_all(values: Sequence[bytes | None]) -> Decoded:
    """Decode many values at half the cost of `decode`, without raising; text is UTF-8.

    Decodes all values together if they are valid, and isolates invalid ones by bisection: `decode` then
    gives the reason.
    """
    columns = new_columns()
    invalid: list[tuple[int, str, str]] = []
    if values and not _add_all(values, columns):
        _decode_halves(values, 0, columns, invalid)
    return Decoded(columns, invalid)


def _decode_halves(
    values: Sequence[bytes | None],
    first: int,
    columns: Columns,
    invalid: list[tuple[int, str, str]],
) -> None:
    """Decode values of which at least one is invalid."""
    if len(values) > 1:
        middle = len(values) // 2
        for begin, half in ((first, values[:middle]), (first + middle, values[middle:])):
            if not _add_all(half, columns):
                _decode_halves(half, begin, columns, invalid)
        return
    try:
        row = decode(values[0])
    except DecodeError as error:
        invalid.append((first, error.reason, error.detail))
    else:
        append_row(columns, row)


def append_row(columns: Columns, row: Row) -> None:
    for column, field in zip(columns, row, strict=True):
        column.extend([field.encode() if isinstance(field, str) else field])


def _add_all(values: Sequence[bytes | None], columns: Columns) -> bool:
    """Append the events to the columns if all values are valid, else return False.

    The cost per event matters here, so each line is one loop in C over all events.
    """
    try:
        if not b"".join(values).isascii():  # type: ignore[arg-type]
            for value in values:
                value.decode()  # type: ignore[union-attr]
        if max(map(len, values)) > MAX_DEPTH and any(map(_is_too_deep, values)):  # type: ignore[arg-type]
            return False
        events = list(map(_decode_event, values))  # type: ignore[arg-type]
        timestamps = _all_epoch_seconds([event.timestamp for event in events])
    except TypeError:  # a tombstone
        return False
    except (msgspec.MsgspecError, UnicodeDecodeError, DecodeError):
        return False
    app_ids = [event.app_id for event in events]
    event_names = [event.event_name for event in events]
    user_ids = [event.user_id for event in events]
    if not (all(app_ids) and all(event_names) and all(user_ids)):
        return False
    properties, starts = pack_bytes([event.properties for event in events])
    if not _OPENS.issuperset(map(properties.__getitem__, starts)):
        texts = [b"{}" if (text := bytes(e.properties)) == b"null" else text for e in events]
        properties, starts = pack_bytes(texts)
        if not _OPENS.issuperset(map(properties.__getitem__, starts)):
            return False
    packed = (
        pack_seconds(timestamps),
        b"".join(map(_packed, app_ids)),
        b"".join(map(_packed, event_names)),
        pack_texts(user_ids),
        properties,
    )
    for column, chunk in zip(columns, packed, strict=True):
        column.append_packed(chunk, len(values))
    return True


class _ParseCache(dict[str, _V]):
    """Cache of parsed texts, bounded in number; long texts are not kept."""

    def __init__(self, parse: Callable[[str], _V], max_texts: int, max_characters: int) -> None:
        super().__init__()
        self._parse = parse
        self._max_texts = max_texts
        self._max_characters = max_characters

    def __missing__(self, text: str) -> _V:
        parsed = self._parse(text)
        if len(text) <= self._max_characters:
            if len(self) >= self._max_texts:
                self.clear()
            self[text] = parsed
        return parsed


# Events have few different applications and names.
_packed = _ParseCache(pack_text, max_texts=10_000, max_characters=64).__getitem__


def _decode_error(value: bytes, error: Exception) -> DecodeError:
    detail = str(error)
    if isinstance(error, UnicodeDecodeError):
        return DecodeError("not_utf8", f"byte {error.start} is not UTF-8")
    if isinstance(error, msgspec.ValidationError):
        if detail.startswith("Object missing required field"):
            return DecodeError("missing_field", detail)
        if " - at `" not in detail:
            return DecodeError("not_an_object", detail)
        return DecodeError("wrong_type", detail)
    surrogate = _lone_surrogate(value)
    if surrogate is not None:
        return DecodeError(
            "bad_unicode", f"{surrogate} is half of a surrogate pair, which UTF-8 cannot encode"
        )
    return DecodeError("not_json", detail if value else "the value is empty")


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def _is_too_deep(value: bytes) -> bool:
    """Return whether text that may be JSON nests objects and arrays deeper than MAX_DEPTH."""
    if len(value) <= MAX_DEPTH or value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for byte in _STRING.sub(b"", value):
        depth += (byte in b"[{") - (byte in b"]}")
        if depth > MAX_DEPTH:
            return True
    return False


_SURROGATES = re.compile(
    rb"\\u([dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\(u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


def _lone_surrogate(value: bytes) -> str | None:
    """Return the first escape of half a surrogate pair, if the text is JSON except for such escapes."""
    found: list[str] = []

    def replace_lone(match: re.Match[bytes]) -> bytes:
        if match[2] is None:
            return match[0]
        found.append(f"\\{match[2].decode()}")
        return rb"\ufffd"

    def replace_in_string(match: re.Match[bytes]) -> bytes:
        return _SURROGATES.sub(replace_lone, match[0])

    readable = _STRING.sub(replace_in_string, value)
    if not found:
        return None
    try:
        _decode_event(readable)
    except msgspec.ValidationError:
        pass  # valid JSON, though not an event
    except msgspec.MsgspecError:
        return None
    return found[0]


_SECOND = re.compile(r"\d{4}-\d{2}-\d{2}[Tt](?:[01]\d|2[0-3]):\d{2}:\d{2}", re.ASCII)
_TAIL = re.compile(r"(?:\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII)


def _parse_second(text: str) -> int:
    """Parse date and time. Raise ValueError also for a leap second and the year 0 (`_rare_second`)."""
    if not _SECOND.fullmatch(text):
        raise ValueError(text)
    return calendar.timegm(datetime.fromisoformat(text.upper()).timetuple())


def _parse_tail(text: str) -> int:
    match = _TAIL.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign, hours, minutes = match.groups()
    return 0 if sign is None else int(f"{sign}{int(hours) * 3600 + int(minutes) * 60}")


# Timestamps of events read together differ mostly in the fraction, so both halves are looked up in
# caches: a third of the cost of parsing each.
_seconds = _ParseCache(_parse_second, max_texts=100_000, max_characters=19)
_tails = _ParseCache(_parse_tail, max_texts=100_000, max_characters=len(".123456789+00:00"))
_MAX_WIDTH = 40
_second_of = itemgetter(slice(0, 19))
_tail_of = itemgetter(slice(19, None))


def epoch_seconds(text: str) -> int:
    """Parse an RFC 3339 timestamp as UTC epoch seconds, rounded down. Raise DecodeError."""
    try:
        second = _seconds[text[:19]] - _tails[text[19:]]
    except ValueError as error:
        second = _rare_second(text, error)
    if not 0 <= second <= MAX_EPOCH_SECONDS:
        raise DecodeError(
            "timestamp_out_of_range", f"timestamp {text[:40]} is not from 1970-01-01 to 2106-02-07"
        )
    return second


_SECONDS_PER_DAY: Final = 86_400
_YEAR_ZERO: Final = -62_167_219_200
_YEAR_2000: Final = 946_684_800


def _rare_second(text: str, error: ValueError) -> int:
    """Parse an RFC 3339 timestamp that datetime refuses: a leap second, or the year 0.

    A leap second is 23:59:60 UTC of any day: the days that have one are announced only half a year
    ahead. As in POSIX time it equals the following second. Raise DecodeError.
    """
    try:
        local, tail, year_offset = text[:19], _parse_tail(text[19:]), 0
        if local.startswith("0000-"):  # has the same calendar as 2000
            local, year_offset = f"2000{local[4:]}", _YEAR_ZERO - _YEAR_2000
        is_leap = local.endswith(":60")
        second = _parse_second(f"{local[:-2]}59" if is_leap else local) + is_leap - tail
    except ValueError:
        raise _bad_timestamp(text) from error
    if is_leap and second % _SECONDS_PER_DAY:
        raise _bad_timestamp(text) from error
    return second + year_offset


def _all_epoch_seconds(texts: Sequence[str]) -> list[int]:
    """Parse timestamps as `epoch_seconds` does; at half the cost if all are UTC, the common case."""
    try:
        seconds = list(map(_seconds.__getitem__, map(_second_of, texts))) if _are_utc(texts) else []
    except ValueError:
        seconds = []
    if seconds and min(seconds) >= 0 and max(seconds) <= MAX_EPOCH_SECONDS:
        return seconds
    return list(map(epoch_seconds, texts))


def _are_utc(texts: Sequence[str]) -> bool:
    """Return whether each text has only a fraction and a zero offset after the second."""
    widths = set(map(len, texts))
    if len(widths) > 1 or max(widths) > _MAX_WIDTH:
        return not any(map(_tails.__getitem__, set(map(_tail_of, texts))))
    # In the concatenation of texts of one width, each character position is one slice.
    joined, width = "".join(texts), widths.pop()
    return (
        joined.isascii()
        and width > len("2026-02-02T12:00:00")
        and set(joined[width - 1 :: width]) <= {"Z", "z"}
        and (
            width == len("2026-02-02T12:00:00Z")
            or (
                width > len("2026-02-02T12:00:00.Z")
                and set(joined[19::width]) == {"."}
                and all(joined[at::width].isdigit() for at in range(20, width - 1))
            )
        )
    )


def _bad_timestamp(text: str) -> DecodeError:
    return DecodeError(
        "bad_timestamp",
        f"timestamp {text[:40]!r} is not RFC 3339 with an offset, as in 2026-02-02T12:00:00.000Z",
    )
