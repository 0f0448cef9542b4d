"""Options that several `dlq` commands share."""

import re
from collections.abc import Sequence

import click

from octane_analytics.cli.options import KAFKA, setting_options

Ranges = list[tuple[int | None, int, int]]
"""Partition (None for all), first and last offset, both included."""

_RANGE = re.compile(r"(?:(\d+):)?(\d+)(?:-(\d+))?")


def _parse_ranges(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> Ranges:
    ranges: Ranges = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None or (match[3] and int(match[3]) < int(match[2])):
            raise click.BadParameter(
                f"{text!r} is not a range: write FIRST-LAST or PARTITION:FIRST-LAST, as in 0:100-199"
            )
        number, first, last = match.groups()
        ranges.append((None if number is None else int(number), int(first), int(last or first)))
    return ranges


KAFKA_SETTINGS = (*KAFKA, "KAFKA_GROUP_ID", "KAFKA_DLQ_TOPIC")
kafka_options = setting_options(*KAFKA_SETTINGS)
reason_option = click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    help="Select messages of this reason only; repeatable.  [default: all]",
)
offsets_option = click.option(
    "--offsets",
    "ranges",
    multiple=True,
    metavar="[PARTITION:]FIRST[-LAST]",
    callback=_parse_ranges,
    help="Select messages at these offsets of the dead-letter topic only; repeatable.  [default: all]",
)
