"""One report, asked of the API as any client would, and as a table for a terminal."""

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
    name: str
    columns: list[str]
    rows: list[dict[str, object]]


def fetch(api_url: str, name: str, parameters: Mapping[str, object]) -> PrintedReport:
    """Blocks on the API. Raises Unavailable, with what it says, unless it answers with a report."""
    body = json.dumps({"template": name, "params": dict(parameters)}).encode()
    request = urllib.request.Request(  # noqa: S310 (always http, and the sandbox's own)
        f"{api_url}/report", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace").strip()
        raise Unavailable(f"report {name}: the API answered {error.code}: {told}") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"report {name}: no answer from {api_url}: {error}") from error
    columns = [column["name"] for column in found["columns"]]
    return PrintedReport(name, columns, found["rows"])


def print_table(report: PrintedReport) -> None:
    """On standard output: as wide as the terminal, or as the table where there is none."""
    width = terminal_width()
    Console(width=width or _UNLIMITED.width).print(table(report, width))


def table(report: PrintedReport, width: int | None = None) -> Table:
    """The rows below one another: numbers are grouped, and to the right.

    Wider than `width`, without borders and with headings broken after underscores; where that is too
    wide as well, and for one row, a name and a value a line.
    """
    if len(report.rows) != 1:
        for lying in (_bordered(report), _compact(report)):
            needed = Measurement.get(_UNLIMITED, _UNLIMITED.options, lying).maximum
            if width is None or needed <= width:
                return lying
    return _upright(report)


def _bordered(report: PrintedReport) -> Table:
    lying = Table(title=report.name, title_justify="left")
    return _filled(lying, report, report.columns)


def _compact(report: PrintedReport) -> Table:
    lying = Table(
        title=report.name, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False
    )
    headings = []
    for column in report.columns:
        values = (len(_shown(row[column])) for row in report.rows)
        headings.append(_broken(column, max(values, default=0)))
    return _filled(lying, report, headings)


def _broken(name: str, width: int) -> str:
    """The name in lines of about that width, broken after underscores."""
    parts = re.findall(r"[^_]*_*", name)
    width = max(width, *map(len, parts))
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _filled(lying: Table, report: PrintedReport, headings: Sequence[str]) -> Table:
    for column, heading in zip(report.columns, headings, strict=True):
        is_number = any(_is_number(row[column]) for row in report.rows)
        justify: Literal["left", "right"] = "right" if is_number else "left"
        lying.add_column(Text(heading), overflow="fold", justify=justify)
    for row in report.rows:
        lying.add_row(*(Text(_shown(row[column])) for column in report.columns))
    return lying


def _upright(report: PrintedReport) -> Table:
    upright = Table(title=report.name, title_justify="left", show_header=False)
    upright.add_column(no_wrap=True)
    upright.add_column(overflow="fold", justify="right")
    for row in report.rows:
        for column in report.columns:
            upright.add_row(Text(column), Text(_shown(row[column])))
        upright.add_section()
    return upright


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if _is_number(value) else str(value)
