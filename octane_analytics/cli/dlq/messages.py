"""Output of `dlq show`: one dead-letter message as an object and as text."""

from collections.abc import Iterator
from typing import Any

from octane_analytics.cli.output.timestamps import format_milliseconds
from octane_analytics.operations.dead_letters import DeadLetter

SHOWN_CHARACTERS = 400
"""Characters of a payload that `message_lines` prints, unless it prints all of them."""
_ORIGIN_KEYS = ("topic", "partition", "offset")


def message_object(message: DeadLetter, value: bytes | None) -> dict[str, Any]:
    """Return the message with its value as text; bytes that are not UTF-8 are replaced."""
    origin = message.origin
    return {
        "position": str(message.position),
        "time": format_milliseconds(message.sent_ms),
        "reason": message.reason,
        "detail": message.detail,
        "origin": None if origin is None else dict(zip(_ORIGIN_KEYS, origin, strict=True)),
        "retryable": message.is_retryable,
        "bytes": message.size,
        "dropped_bytes": message.dropped,
        "value": _text(value),
    }


def message_lines(message: DeadLetter, value: bytes | None, *, is_full: bool) -> Iterator[str]:
    """Yield position, time and origin, the error, the dropped parts, and the payload."""
    origin = message.origin
    source = (
        "not sent by a worker" if origin is None else f"from {origin[0]}[{origin[1]}]@{origin[2]}"
    )
    yield f"{message.position}  {format_milliseconds(message.sent_ms)}  {source}"
    yield f"  {message.reason}: {_printable(message.detail)}"
    for part, size in message.dropped.items():
        yield f"  (without its {part}, too large to be kept: {size:,} bytes)"
    payload = _text(value)
    if payload is None:
        note = f"too large to be kept: {message.size:,} bytes" if message.is_cut else "no value"
        yield f"  ({note})"
        return
    text = _printable(payload)
    is_short = is_full or len(text) <= SHOWN_CHARACTERS
    yield f"  {text if is_short else f'{text[:SHOWN_CHARACTERS]}… ({message.size:,} bytes)'}"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _printable(text: str) -> str:
    """Escape what is not printable: text from outside must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
