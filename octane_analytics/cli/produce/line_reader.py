"""Read lines from a file, a pipe or a terminal, unbuffered, so that signals are handled in time."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_LINE_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 18
_IDLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class TooLong:
    """Line that was skipped because of its size."""

    size: int
    """Bytes."""


Line = bytes | TooLong | None
"""Line without its end; None if there is nothing to read at present."""


def read_lines(
    descriptor: int,
    wait_readable: Callable[[int, float], bool],
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[Line]:
    """Yield lines without their end (LF or CRLF), including a last line without a newline.

    Yields None when nothing could be read for 0.2 seconds, so that the caller can do other work.
    `wait_readable(descriptor, seconds)` blocks for that time at most. A line longer than
    `max_line_bytes` is skipped in bounded memory and yielded as TooLong.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        if not wait_readable(descriptor, _IDLE_SECONDS):
            yield None
            continue
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        for line in others:
            yield _line([*parts, first], size + len(first), max_line_bytes)
            parts, size, first = [], 0, line
        size += len(first)
        if size <= max_line_bytes:
            parts.append(first)
        else:
            parts.clear()
    if size:
        yield _line(parts, size, max_line_bytes)


def _line(parts: list[bytes], size: int, max_line_bytes: int) -> bytes | TooLong:
    if size > max_line_bytes:
        return TooLong(size)
    return b"".join(parts).removesuffix(b"\r")
