"""`octane-analytics manual`: print the pages of the manual, which are package data in Markdown."""

import difflib
import io
import re
import sys
import textwrap
from collections.abc import Sequence
from importlib import resources
from typing import NoReturn

import click
from click.shell_completion import CompletionItem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, TableElement
from rich.table import Column, Table
from rich.text import Text
from rich.theme import Theme

from octane_analytics.cli.help_format import Command

PAGES = (
    "delivery",
    "clickhouse",
    "cluster",
    "shards",
    "events",
    "sending",
    "settings",
    "settings-api",
    "api",
    "api-reports",
    "access",
    "reports",
    "dashboard",
    "raw-sql",
    "replay",
    "dead-letters",
    "operations",
    "diagnostics",
    "offsets",
    "metrics",
    "alerts",
    "runbook",
    "tracing",
    "install",
    "capacity",
    "benchmarks",
    "reports-cost",
    "architecture",
    "answers",
    "glossary",
)
"""Names of the pages, in the order of the list."""

_PAGE_LINK = re.compile(r"\[([^\[\]]+)\]\([\w-]+\.md(?:#[\w-]*)?\)")
_MAX_COLUMNS = 100
_CELL_PADDING = 2
"""Columns that a cell needs in addition to its text."""
_SIMILARITY = 0.5
"""Minimum similarity, as difflib computes it, of a suggested name."""
# Styles that are readable on light and on dark backgrounds.
_THEME = Theme(
    {
        "markdown.code": "bold",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.table.header": "bold",
        "markdown.table.border": "dim",
    }
)


class _CodeBlock(CodeBlock):
    """Indented code block without colours; long lines are not wrapped."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = textwrap.indent(str(self.text).rstrip(), "  ")
        yield Text(code, no_wrap=True, overflow="ignore")


class _PageTable(TableElement):
    """Table that keeps words whole if they fit into the width, and folds them otherwise.

    rich's default is to cut words and to add an ellipsis.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                _keep_words(part, options.max_width)
            yield part


def _keep_words(table: Table, max_width: int) -> None:
    cells = [_cells(column) for column in table.columns]
    longest = [
        max(len(word) for cell in column for word in (*cell.split(), "")) for column in cells
    ]
    natural = [max(map(len, column)) for column in cells]
    room = max_width - _CELL_PADDING * len(cells)
    fits = sum(longest) <= room
    for column, width in zip(table.columns, _widths(longest, natural, room), strict=True):
        column.overflow = "fold"
        column.width = width if fits else None


def _cells(column: Column) -> list[str]:
    return [
        cell.plain if isinstance(cell, Text) else str(cell)
        for cell in (column.header, *column.cells)
    ]


def _widths(longest: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Return widths of at least the longest words; the rest goes to the most crowded columns."""
    widths = list(longest)
    while sum(widths) < room:
        crowded = [at for at, width in enumerate(widths) if width < natural[at]]
        if not crowded:
            break
        widths[max(crowded, key=lambda at: natural[at] / widths[at])] += 1
    return widths


class _Page(Markdown):
    elements = Markdown.elements | {
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _PageTable,
    }


def read_page(name: str) -> str:
    """Return the Markdown text of a page."""
    return (resources.files("octane_analytics") / "manual" / f"{name}.md").read_text("utf-8")


def description(name: str) -> str:
    """Return the line below the page's title, which describes the page."""
    return read_page(name).splitlines()[2]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=description(name))
        for name in PAGES
        if name.startswith(incomplete)
    ]


@click.command(cls=Command)
@click.argument("page", required=False, shell_complete=_complete)
def manual(page: str | None) -> None:
    """Print a page of the manual, or list the pages.

    On a terminal, the page is formatted to its width and opens in a pager ($PAGER, usually less).
    Otherwise the stored Markdown text is printed, one table row per line, for grep.
    """
    if page is None:
        click.echo("\n".join(_listing()))
    elif page not in PAGES:
        _fail_for_unknown(page)
    elif sys.stdout.isatty():
        click.echo_via_pager(formatted(read_page(page), _columns()))
    else:
        click.echo(read_page(page), nl=False)


def _listing() -> list[str]:
    width = max(map(len, PAGES))
    return [f"{name:{width}}  {description(name)}" for name in PAGES]


def _fail_for_unknown(page: str) -> NoReturn:
    near = difflib.get_close_matches(page.lower(), PAGES, n=1, cutoff=_SIMILARITY)
    hint = f"did you mean {near[0]}?" if near else "`octane-analytics manual` lists all pages"
    raise click.UsageError(f"the manual does not have a page {page!r}; {hint}")


def _columns() -> int:
    return min(Console().width, _MAX_COLUMNS)


def formatted(text: str, columns: int) -> str:
    """Return Markdown text formatted for a terminal of this width, with ANSI styles.

    A link to another page becomes its text, which is the page's name: a terminal cannot follow it.
    """
    output = io.StringIO()
    console = Console(file=output, width=columns, force_terminal=True, theme=_THEME)
    console.print(_Page(_PAGE_LINK.sub(r"\1", text), hyperlinks=False), crop=False)
    return output.getvalue()
