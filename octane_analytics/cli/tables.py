"""Columns of text that line up, for a terminal and for `awk` alike."""

from collections.abc import Iterator, Sequence


def aligned(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0
) -> Iterator[str]:
    """One line for the headings and one for each row; the first `right` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (
            cell.rjust(width) if index < right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
