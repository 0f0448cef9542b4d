"""`octane-analytics manual`: the pages of the manual, which are package data in Markdown."""

import difflib
import io
import re
import sys
import textwrap
from importlib import resources
from typing import NoReturn

import click
from click.shell_completion import CompletionItem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Markdown, TableElement
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

PAGES = (
    "delivery",
    "events",
    "settings",
    "settings-api",
    "api",
    "access",
    "reports",
    "raw-sql",
    "replay",
    "dead-letters",
    "operations",
    "metrics",
    "alerts",
    "runbook",
    "tracing",
    "install",
    "benchmarks",
    "architecture",
    "glossary",
)
"""In the order in which they are listed."""

_PAGE_LINK = re.compile(r"\[([^\[\]]+)\]\([\w-]+\.md(?:#[\w-]*)?\)")
_MAX_COLUMNS = 100
_SIMILARITY = 0.5
"""Share of equal characters from which a name is suggested, as difflib counts it."""
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
    """Indented, without colours; long lines are left to the pager."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = textwrap.indent(str(self.text).rstrip(), "  ")
        yield Text(code, no_wrap=True, overflow="ignore")


class _Table(TableElement):
    """Folds long words, such as names of settings: by default they end in an ellipsis."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Page(Markdown):
    elements = Markdown.elements | {
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "table_open": _Table,
    }


def read_page(name: str) -> str:
    """Return the Markdown text of a page."""
    return (resources.files("octane_analytics") / "manual" / f"{name}.md").read_text("utf-8")


def description(name: str) -> str:
    """Return the line below the page's title, which describes the page."""
    return read_page(name).splitlines()[2]


def _complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    return [
        CompletionItem(name, help=description(name)) for name in PAGES if name.startswith(typed)
    ]


@click.command()
@click.argument("page", required=False, shell_complete=_complete)
def manual(page: str | None) -> None:
    """Print a page of the manual, or list the pages.

    On a terminal a page is formatted to its width and opens in a pager ($PAGER, usually less). Into a
    pipe or a file it is printed as it is stored: Markdown text, one table row per line, for grep.
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
