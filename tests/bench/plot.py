"""Medians as a picture: bars of two colours, each with its figures beside it. Plain SVG, no library."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tests.bench.measure import Run

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 900, 20, 10, 280, 190
_COLOURS = ("#2f6f9f", "#e3a72f")


@dataclass(frozen=True)
class Bar:
    label: str
    values: tuple[float, float]
    """How long it is in each colour, one behind the other."""
    figures: str
    is_first: bool = False
    """Of a group, which stands apart."""


def svg(runs: Sequence[Run]) -> str:
    """CPU time of an event: one group of bars for each batch size and process count."""
    groups: dict[tuple[int, int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.batch_size, run.processes, run.contender), []).append(run)
    drawn: list[Bar] = []
    shape = None
    for (batch_size, processes, contender), of in sorted(groups.items()):
        client = statistics.median(run.client_cpu_us for run in of)
        clickhouse = statistics.median(run.clickhouse_cpu_us for run in of)
        rate = statistics.median(run.events_per_second for run in of)
        drawn.append(
            Bar(
                f"{contender}, batches of {batch_size:,}, x{processes}",
                (client, clickhouse),
                f"{client + clickhouse:.1f} µs, {rate:,.0f}/s",
                is_first=(batch_size, processes) != shape,
            )
        )
        shape = (batch_size, processes)
    return bars("CPU time of one event, median", drawn, ("client", "ClickHouse"))


def bars(title: str, drawn: Sequence[Bar], legend: tuple[str, str]) -> str:
    """All on one scale that begins at zero, under the title and what the two colours mean."""
    scale = (_WIDTH - _LEFT - _RIGHT) / max((sum(bar.values) for bar in drawn), default=1.0)
    shapes, top = [_text(12, 22, title, weight="bold")], 36
    left = 12.0
    for colour, meaning in zip(_COLOURS, legend, strict=True):
        shapes += [_rect(left, top, 14, 14, colour), _text(left + 20, top + 12, meaning)]
        left += 40 + 7.5 * len(meaning)
    top += 30
    for bar in drawn:
        if bar.is_first:
            top += _GAP
        shapes.append(_text(_LEFT - 8, top + 15, bar.label, "end"))
        left = float(_LEFT)
        for colour, value in zip(_COLOURS, bar.values, strict=True):
            shapes.append(_rect(left, top, value * scale, _BAR, colour))
            left += value * scale
        shapes.append(_text(left + 6, top + 15, bar.figures))
        top += _BAR + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top + 12}" '
        'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _rect(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(
    left: float, base: float, text: str, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{left:.1f}" y="{base}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
