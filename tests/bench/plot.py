"""The medians as a picture: CPU of an event, a bar for each contender. Plain SVG, no library."""

import statistics
from collections.abc import Sequence
from html import escape

from tests.bench.measure import Run

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 860, 20, 10, 250, 170
_CLIENT, _CLICKHOUSE = "#2f6f9f", "#e3a72f"


def svg(runs: Sequence[Run]) -> str:
    """One group of bars for each batch size and process count; each bar is client, then ClickHouse."""
    groups: dict[tuple[int, int, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.batch_size, run.processes, run.contender), []).append(run)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(run.cpu_us for run in runs)
    drawn, top, shape = [], 50, None
    for (batch_size, processes, contender), of in sorted(groups.items()):
        if shape not in (None, (batch_size, processes)):
            top += _GAP
        shape = (batch_size, processes)
        client = statistics.median(run.client_cpu_us for run in of)
        clickhouse = statistics.median(run.clickhouse_cpu_us for run in of)
        rate = statistics.median(run.events_per_second for run in of)
        end = _LEFT + (client + clickhouse) * scale
        drawn += [
            _text(_LEFT - 8, top + 15, f"{contender}, {batch_size:,} x{processes}", "end"),
            _bar(_LEFT, top, client * scale, _CLIENT),
            _bar(_LEFT + client * scale, top, clickhouse * scale, _CLICKHOUSE),
            _text(end + 6, top + 15, f"{client + clickhouse:.1f} µs, {rate:,.0f}/s"),
        ]
        top += _BAR + 4
    legend = [
        _text(_LEFT, 20, "CPU time of one event, median: "),
        _bar(_LEFT + 205, 8, 14, _CLIENT),
        _text(_LEFT + 224, 20, "client"),
        _bar(_LEFT + 280, 8, 14, _CLICKHOUSE),
        _text(_LEFT + 299, 20, "ClickHouse"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top + 10}" '
        'font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(legend + drawn)
        + "\n</svg>\n"
    )


def _bar(left: float, top: float, width: float, colour: str) -> str:
    height = min(_BAR, 14) if top < 30 else _BAR
    return f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(left: float, base: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{left:.1f}" y="{base}" text-anchor="{anchor}">{escape(text)}</text>'
