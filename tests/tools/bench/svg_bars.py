"""Picture of bars in two colours, in groups and on one scale. Plain SVG, no library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 1000, 20, 14, 190, 300
_COLOURS = ("#2f6f9f", "#e3a72f")
_GREY, _LINE = "#666666", "#dddddd"
_TICKS = 5
"""Largest number of ticks, without zero."""


@dataclass(frozen=True)
class Bar:
    group: str
    """Heading above the first of consecutive bars of one group."""
    label: str
    values: tuple[float, float]
    """Length in each colour, drawn one after the other."""
    figures: str
    """Label at the end of the bar."""


def bars(title: str, unit: str, drawn: Sequence[Bar], legend: tuple[str, str]) -> str:
    """Return the bars on one scale that begins at zero, below the title and the legend."""
    longest = max((sum(bar.values) for bar in drawn), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    shapes, begin = [text(12, 24, f"{title}, {unit}", weight="bold")], 70
    left = 12.0
    for colour, meaning in zip(_COLOURS, legend, strict=True):
        shapes += [rect(left, 38, 14, 14, colour), text(left + 20, 50, meaning)]
        left += 44 + 7.5 * len(meaning)
    top, over = begin, []
    for group, members in groupby(drawn, key=lambda bar: bar.group):
        over.append(text(12, top + 15, group, weight="bold"))
        top += _BAR + 2
        for bar in members:
            over.append(text(_LEFT - 8, top + 15, bar.label, "end"))
            left = float(_LEFT)
            for colour, value in zip(_COLOURS, bar.values, strict=True):
                over.append(rect(left, top, value * scale, _BAR, colour))
                left += value * scale
            over.append(text(left + 6, top + 15, bar.figures))
            top += _BAR + 4
        top += _GAP
    for tick in ticks(longest):
        at = _LEFT + tick * scale
        shapes.append(rect(at, begin, 1, top - begin, _LINE))
        over.append(text(at, top + 14, f"{tick:,g}", "middle", colour=_GREY))
    return document(_WIDTH, top + 28, shapes + over)


def ticks(longest: float) -> list[float]:
    """Return round numbers from zero to at most the longest value, at even steps."""
    magnitude = 10.0 ** math.floor(math.log10(longest / _TICKS))
    for factor in (1, 2, 5, 10):
        step = factor * magnitude
        count = math.floor(round(longest / step, 9))
        if count <= _TICKS:
            break
    return [number * step for number in range(count + 1)]


def document(width: int, height: int, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def rect(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def text(
    left: float,
    base: float,
    content: str,
    anchor: str = "start",
    *,
    weight: str = "normal",
    colour: str = "black",
) -> str:
    return (
        f'<text x="{left:.1f}" y="{base}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{colour}">{escape(content)}</text>'
    )
