"""The same reports through the API, uncached, at several numbers of clients."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import click

from tests.tools.bench.api import asking
from tests.tools.bench.api_process import answering
from tests.tools.bench.clients import at_once, quantile
from tests.tools.bench.reports.ledgers import Ledgers
from tests.tools.bench.reports.questions import RANGES, Cell, parameters, reports

BUDGET_SECONDS = 60.0
"""Longest expected duration of one measurement; longer ones are skipped."""


@dataclass(frozen=True)
class ApiCell:
    """One report over one range, requested by a number of concurrent clients."""

    events: int
    parts: int
    report: str
    span: str
    way: str
    clients: int
    requests: int
    per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    error: str = ""


def through_api(
    ledgers: Ledgers,
    cells: Sequence[Cell],
    crowds: Sequence[int],
    requests: int,
    port: int,
    timeout_seconds: float,
) -> list[ApiCell]:
    """Return a cell for each number of clients and each cell, whose ways are tables of their own."""
    found: list[ApiCell] = []
    by_table: dict[str, list[Cell]] = {}
    for cell in cells:
        by_table.setdefault(f"{cell.way}_{cell.events}_{cell.parts}", []).append(cell)
    for table, mine in by_table.items():
        settings = ledgers.settings(table)
        with answering(settings, port, {"API_QUERY_TIMEOUT": f"{timeout_seconds:g}"}):
            for cell in mine:
                for crowd in crowds:
                    found.append(_measure(ledgers, cell, crowd, max(requests, crowd), port))
    return found


def _measure(ledgers: Ledgers, cell: Cell, crowd: int, requests: int, port: int) -> ApiCell:
    named: dict[str, Any] = {
        "events": cell.events,
        "parts": cell.parts,
        "report": cell.report,
        "span": cell.span,
        "way": cell.way,
        "clients": crowd,
        "requests": requests,
    }
    if cell.error or median(cell.warm) * requests > BUDGET_SECONDS:
        return ApiCell(**named, error=cell.error or "skipped: too slow")
    given: Mapping[str, object] = parameters(
        reports()[cell.report], RANGES[cell.span], ledgers.ledger(cell.events)
    )
    with ExitStack() as stack:
        asks = [asking(stack, port, cell.report, lambda _: given, fresh=True) for _ in range(crowd)]
        try:
            at_once(asks, crowd)  # opens the connections
            took = at_once(asks, requests)
        except click.ClickException as error:
            return ApiCell(**named, error=_short(error.message))
    return ApiCell(
        **named,
        per_second=took.per_second,
        p50_ms=quantile(took.milliseconds, 0.5),
        p99_ms=quantile(took.milliseconds, 0.99),
    )


def _short(message: str) -> str:
    """Return the status of an answer that is not 200, and the start of its text."""
    answer = message.partition(": ")[2] or message
    return "timed out" if answer.startswith("504 ") else answer[:40]
