"""Payload bytes to events, or the reason out of a bounded set why they are none.

Strict on purpose: what is not exactly an event is for a person to look at, never guessed or clamped.
JSON is RFC 8259 in UTF-8; timestamps are RFC 3339 with an offset, in the range of ClickHouse's
DateTime. Top-level fields beyond the contract's are ignored.
"""

import calendar
import re
from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

import msgspec

from octane_analytics.errors import DecodeError
from octane_analytics.types import Decoded, Row

REASONS: Final = (
    "tombstone",
    "not_utf8",
    "not_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "empty_field",
    "bad_timestamp",
    "timestamp_out_of_range",
    "properties_not_an_object",
)
"""Every reason `decode` gives."""

MAX_EPOCH_SECONDS: Final = 2**32 - 1
"""2106-02-07T06:28:15Z, DateTime's last second."""

_MAX_CACHED: Final = 100_000
_MAX_CACHED_TAIL: Final = 16
"""Characters, as in .123456789+00:00: a fraction may be of any length, a cached text must not."""


class _Event(msgspec.Struct, gc=False):
    app_id: str
    event_name: str
    user_id: str
    timestamp: str
    properties: msgspec.Raw = msgspec.Raw(b"{}")


_OPENS: Final = {0x7B}
"""The brace, which every object begins with."""

_decode_event = msgspec.json.Decoder(_Event).decode


def decode(value: bytes | None) -> Row:
    """The event in a record's value; None is a tombstone. Raises DecodeError.

    `properties` is the object's text byte for byte, `{}` where the field is absent or null.
    """
    if value is None:
        raise DecodeError("tombstone", "the record has no value")
    try:
        # The decoder skips over properties without looking at their encoding.
        if not value.isascii():
            value.decode()
        event = _decode_event(value)
        timestamp = epoch_seconds(event.timestamp)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _explained(value, error) from error
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
    """As `decode` for many records at once, at half the cost, and without raising.

    Reads all of them in a straight line as long as they are events, and looks for the others by
    halving: `decode` says then what is wrong.
    """
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    invalid: list[tuple[int, str, str]] = []
    _decode_part(values, 0, columns, invalid)
    return Decoded(columns, invalid)


def _decode_part(
    values: Sequence[bytes | None],
    first: int,
    columns: tuple[list[Any], ...],
    invalid: list[tuple[int, str, str]],
) -> None:
    if len(values) > 1:
        found = _columns(values)
        if found is None:
            middle = len(values) // 2
            _decode_part(values[:middle], first, columns, invalid)
            _decode_part(values[middle:], first + middle, columns, invalid)
            return
        for column, more in zip(columns, found, strict=True):
            column.extend(more)
    elif values:
        try:
            row = decode(values[0])
        except DecodeError as error:
            invalid.append((first, error.reason, error.detail))
        else:
            for column, field in zip(columns, row, strict=True):
                column.append(field)


def _columns(
    values: Sequence[bytes | None],
) -> tuple[list[Any], ...] | None:
    """None when not every value is an event. What a loop does for each counts here."""
    if None in values:
        return None
    try:
        if not all(map(bytes.isascii, values)):  # type: ignore[arg-type]
            for value in values:
                value.decode()  # type: ignore[union-attr]
        events = [_decode_event(value) for value in values]  # type: ignore[arg-type]
        timestamps = [epoch_seconds(event.timestamp) for event in events]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DecodeError):
        return None
    app_ids = [event.app_id for event in events]
    event_names = [event.event_name for event in events]
    user_ids = [event.user_id for event in events]
    if "" in app_ids or "" in event_names or "" in user_ids:
        return None
    properties = [bytes(event.properties) for event in events]
    if set(map(itemgetter(0), properties)) != _OPENS:
        properties = [b"{}" if text == b"null" else text for text in properties]
        if set(map(itemgetter(0), properties)) != _OPENS:
            return None
    return timestamps, app_ids, event_names, user_ids, properties


def _explained(value: bytes, error: Exception) -> DecodeError:
    detail = str(error)
    if isinstance(error, UnicodeDecodeError):
        return DecodeError("not_utf8", f"byte {error.start} is not UTF-8")
    if isinstance(error, msgspec.ValidationError):
        if detail.startswith("Object missing required field"):
            return DecodeError("missing_field", detail)
        if " - at `" not in detail:
            return DecodeError("not_an_object", detail)
        return DecodeError("wrong_type", detail)
    if isinstance(error, RecursionError):
        return DecodeError("not_json", "nested too deeply")
    return DecodeError("not_json", detail if value else "the value is empty")


_SECOND = re.compile(r"\d{4}-\d{2}-\d{2}[Tt](?:[01]\d|2[0-3]):\d{2}:\d{2}", re.ASCII)
_TAIL = re.compile(r"(?:\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII)

_seconds: dict[str, int] = {}
_tails: dict[str, int] = {}


def epoch_seconds(text: str) -> int:
    """The RFC 3339 timestamp as UTC epoch seconds, rounded down.

    Raises DecodeError. Events of one time share all but the fraction of their text, so both halves
    are remembered (bounded) and looked up: a third of the cost of parsing each anew.
    """
    second, tail = _seconds.get(text[:19]), _tails.get(text[19:])
    if second is None or tail is None:
        second, tail = _parse_second(text), _parse_tail(text)
    second -= tail
    if not 0 <= second <= MAX_EPOCH_SECONDS:
        raise DecodeError(
            "timestamp_out_of_range", f"timestamp {text[:40]} is not from 1970-01-01 to 2106-02-07"
        )
    return second


def _parse_second(text: str) -> int:
    key = text[:19]
    if not _SECOND.fullmatch(key):
        raise _bad_timestamp(text)
    try:
        value = calendar.timegm(datetime.fromisoformat(key.upper()).timetuple())
    except ValueError as error:
        raise _bad_timestamp(text) from error
    if len(_seconds) >= _MAX_CACHED:
        _seconds.clear()
    _seconds[key] = value
    return value


def _parse_tail(text: str) -> int:
    key = text[19:]
    match = _TAIL.fullmatch(key)
    if match is None:
        raise _bad_timestamp(text)
    sign, hours, minutes = match.groups()
    offset = 0 if sign is None else int(f"{sign}{int(hours) * 3600 + int(minutes) * 60}")
    if len(key) <= _MAX_CACHED_TAIL:
        if len(_tails) >= _MAX_CACHED:
            _tails.clear()
        _tails[key] = offset
    return offset


def _bad_timestamp(text: str) -> DecodeError:
    return DecodeError(
        "bad_timestamp",
        f"timestamp {text[:40]!r} is not RFC 3339 with an offset, as in 2026-02-02T12:00:00.000Z",
    )
