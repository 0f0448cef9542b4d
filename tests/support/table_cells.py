"""Cells of a table for the terminal."""

from rich.table import Table


def lines(table: Table) -> list[list[str]]:
    """Return the cells of each line."""
    return [list(cells) for cells in zip(*(column.cells for column in table.columns), strict=True)]


def headed(table: Table) -> list[dict[str, str]]:
    """Return the cells by heading; the last of several equal headings."""
    headings = [str(column.header) for column in table.columns]
    return [dict(zip(headings, line, strict=True)) for line in lines(table)]
