"""Fetch a report from the API as any client would, and print it as a table."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from octane_analytics.cli.output.table import terminal_width
from octane_analytics.errors import Unavailable

_TIMEOUT_SECONDS = 30.0
_UNLIMITED = Console(width=1_000_000)


@dataclass(frozen=True, slots=True)
class PrintedReport:
    """Result of a report: column names in order, and rows by column name."""

    name: str
    columns: list[str]
    rows: list[dict[str, object]]


def fetch(api_url: str, name: str, parameters: Mapping[str, object]) -> PrintedReport:
    """Return the report. Blocks; raises Unavailable, with the response, unless the API returns it."""
    body = json.dumps({"template": name, "params": dict(parameters)}).encode()
    request = urllib.request.Request(  # noqa: S310 (always http, to the sandbox's own API)
        f"{api_url}/report", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            result = json.load(response)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace").strip()
        raise Unavailable(f"report {name}: the API returned {error.code}: {text}") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"report {name}: no response from {api_url}: {error}") from error
    columns = [column["name"] for column in result["columns"]]
    return PrintedReport(name, columns, result["rows"])


def print_table(report: PrintedReport) -> None:
    """Print the table on standard output, at the width of the terminal if it is one."""
    width = terminal_width()
    Console(width=width or _UNLIMITED.width).print(table(report, width))


def table(report: PrintedReport, width: int | None = None) -> Table:
    """Return a table with a line per row, and numbers aligned to the right with grouped digits.

    If it is wider than `width`, the table has no borders and its headings are wrapped after
    underscores. If that is still too wide, or if there is one row only, each line is a name and a value.
    """
    if len(report.rows) != 1:
        for candidate in (_bordered(report), _compact(report)):
            needed = Measurement.get(_UNLIMITED, _UNLIMITED.options, candidate).maximum
            if width is None or needed <= width:
                return candidate
    return _name_value_table(report)


def _bordered(report: PrintedReport) -> Table:
    empty = Table(title=report.name, title_justify="left")
    return _fill(empty, report, report.columns)


def _compact(report: PrintedReport) -> Table:
    empty = Table(
        title=report.name, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False
    )
    headings = []
    for column in report.columns:
        values = (len(_format_value(row[column])) for row in report.rows)
        headings.append(_wrap_heading(column, max(values, default=0)))
    return _fill(empty, report, headings)


def _wrap_heading(name: str, width: int) -> str:
    """Return the name in lines of about that width, wrapped after underscores."""
    parts = re.findall(r"[^_]*_*", name)
    width = max(width, *map(len, parts))
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _fill(table: Table, report: PrintedReport, headings: Sequence[str]) -> Table:
    for column, heading in zip(report.columns, headings, strict=True):
        is_number = any(_is_number(row[column]) for row in report.rows)
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(Text(heading), overflow="fold", justify=justify)
    for row in report.rows:
        table.add_row(*(Text(_format_value(row[column])) for column in report.columns))
    return table


def _name_value_table(report: PrintedReport) -> Table:
    table = Table(title=report.name, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", justify="right")
    for row in report.rows:
        for column in report.columns:
            table.add_row(Text(column), Text(_format_value(row[column])))
        table.add_section()
    return table


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if _is_number(value) else str(value)
