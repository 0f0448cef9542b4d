"""One report, asked of the API as any client would, and as a table for a terminal."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from octane_analytics.errors import Unavailable

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    name: str
    columns: list[str]
    rows: list[dict[str, object]]


def fetch(api_url: str, name: str, parameters: Mapping[str, object]) -> Report:
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
    return Report(name, columns, found["rows"])


def table(report: Report) -> Table:
    """One row stands upright, several lie; numbers are grouped and to the right."""
    if len(report.rows) == 1:
        upright = Table(title=report.name, title_justify="left", show_header=False)
        upright.add_column(overflow="fold")
        upright.add_column(overflow="fold", justify="right")
        for column, value in report.rows[0].items():
            upright.add_row(Text(column), Text(_shown(value)))
        return upright
    lying = Table(title=report.name, title_justify="left")
    for column in report.columns:
        is_number = any(_is_number(row[column]) for row in report.rows)
        lying.add_column(column, overflow="fold", justify="right" if is_number else "left")
    for row in report.rows:
        lying.add_row(*(Text(_shown(row[column])) for column in report.columns))
    return lying


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if _is_number(value) else str(value)
