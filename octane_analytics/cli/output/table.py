"""Aligned columns of text that fit a terminal without breaking words or numbers."""

import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence

import click

_GAP = "  "
_BREAK = "\ue000 "
"""Mark at which a line may be wrapped; never printed."""
_SPACE = "\ue001"
"""Space at which a line may not be wrapped; never printed."""
_COMMA = re.compile(r",(?=\S)(?!(?<=\d,)\d{3}(?!\d))")
"""Comma between the entries of a list; not the one in 12,345."""


def terminal_width() -> int | None:
    """Return the columns of standard output if it is a terminal, otherwise None."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def aligned(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: int = 0,
    numbers: Collection[str] = (),
    width: int | None = None,
    drop: Sequence[str] = (),
) -> Iterator[str]:
    """Yield a line for the headings and one for each row.

    The first `right` columns and those named in `numbers` are aligned to the right. A table wider than
    `width` loses the columns named in `drop`, in that order, until it fits; if it still does not fit, a
    last column of text is shortened at its end. Cells may be styled.
    """
    is_right = [index < right or name in numbers for index, name in enumerate(headings)]
    table = [list(headings), *map(list, rows)]
    widths = [
        max(len(click.unstyle(row[index])) for row in table) for index in range(len(headings))
    ]
    kept = list(range(len(headings)))
    for name in drop:
        if width is None or _total(widths, kept) <= width:
            break
        kept.remove(headings.index(name))
    last = kept[-1]
    if width is not None and not is_right[last]:
        available = width - _total(widths, kept[:-1]) - len(_GAP)
        for row in table:
            row[last] = _shorten(row[last], max(available, len(headings[last])))
        widths[last] = max(len(click.unstyle(row[last])) for row in table)
    for row in table:
        cells = (_pad(row[index], widths[index], is_right=is_right[index]) for index in kept)
        yield _GAP.join(cells).rstrip()


def wrapped(text: str, width: int | None, *, first: str = "", indent: int = 0) -> str:
    """Return `first` and the text, wrapped at `width` columns and continued with `indent` spaces.

    A line ends after a word or after the comma of a list. The indentation is reduced for a word that
    would not fit.
    """
    if width is None or not text.strip():
        return first + text
    words = _COMMA.sub(f",{_BREAK}", text).split()
    indent = max(0, min(indent, width - max(map(len, words))))
    has_room = len(first) + len(words[0]) <= width
    lines = textwrap.fill(
        " ".join(words),
        width,
        initial_indent=first if has_room else " " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if not has_room:
        lines = f"{first.rstrip()}\n{lines}"
    return lines.replace(_BREAK, "").replace(_BREAK[0], "")


def wrapped_list(parts: Sequence[str], width: int | None) -> str:
    """Return the parts with commas between them; a line ends after a part, if each of them fits."""
    if width is None or max(map(len, parts)) >= width:
        return wrapped(", ".join(parts), width)
    kept = ", ".join(part.replace(" ", _SPACE) for part in parts)
    return wrapped(kept, width).replace(_SPACE, " ")


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[index] for index in kept) + len(_GAP) * (len(kept) - 1)


def _shorten(cell: str, width: int) -> str:
    return cell if len(click.unstyle(cell)) <= width else f"{click.unstyle(cell)[: width - 1]}…"


def _pad(cell: str, width: int, *, is_right: bool) -> str:
    room = " " * (width - len(click.unstyle(cell)))
    return room + cell if is_right else cell + room
