"""Offsets of a replay: the requested range, checked against the log and the group's commits.

Pure functions; the facts about the log are arguments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from octane_analytics.errors import OctaneError
from octane_analytics.runtime import rfc3339
from octane_analytics.types import OffsetRange

_AGO = re.compile(r"-(\d+(?:\.\d+)?)([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN = 8


class BadRange(OctaneError):
    """The requested range does not exist in this log; the target is unchanged."""


_ALIASES = {"earliest": "beginning", "latest": "end"}
"""Kafka's names."""

Offsets = int | str | Mapping[int, int]
"""One offset for all partitions, offsets by partition, or the word `beginning` or `end`."""


def parse_offsets(text: str, word: str) -> Offsets:
    """Parse `N`, `P:N,P:N`, or the given word: `beginning` (or `earliest`), `end` (or `latest`).

    Raise BadRange.
    """
    if _ALIASES.get(text, text) == word:
        return word
    if text.isdecimal():
        return int(text)
    named: dict[int, int] = {}
    for item in text.split(","):
        partition, colon, offset = item.strip().partition(":")
        if not (colon and partition.isdecimal() and offset.isdecimal()):
            raise BadRange(f"{text!r}: write an offset, PARTITION:OFFSET,… or {word}")
        if int(partition) in named:
            raise BadRange(f"{text!r} names partition {partition} twice")
        named[int(partition)] = int(offset)
    return named


def parse_time(text: str, now: datetime) -> float:
    """Parse RFC 3339 or a relative time such as `-6h`; return epoch seconds. Raise BadRange."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return (now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])).timestamp()
        return rfc3339.parse_as_utc(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRange(
            f"{text!r} is not a time: write for example 2026-02-02T12:00:00Z, or -6h"
        ) from error


@dataclass(frozen=True, slots=True)
class RequestedRange:
    """The range as the operator gave it; None for an absent option."""

    from_offset: Offsets | None = None
    from_time: float | None = None
    to_offset: Offsets | None = None
    to_time: float | None = None
    partitions: Sequence[int] = ()
    """Partitions to replay; all if empty."""
    should_clamp: bool = False
    """Begin at the earliest offset if retention has removed the requested ones."""


@dataclass(frozen=True, slots=True)
class LogFacts:
    """Offsets of the log and of the group, by partition."""

    held: Mapping[int, OffsetRange]
    committed: Mapping[int, int]
    """Committed offsets of the workers; a partition without a commit is absent."""
    from_time: Mapping[int, int | None]
    """Offsets of `RequestedRange.from_time`; empty if that is None."""
    to_time: Mapping[int, int | None]


def resolve(wanted: RequestedRange, facts: LogFacts, *, is_live: bool) -> dict[int, OffsetRange]:
    """Return the offset ranges of the chosen partitions, none of them empty.

    If the workers insert into the target (`is_live`), the ranges end at their committed offsets.
    Raise BadRange.
    """
    chosen = _chosen(wanted, facts)
    if wanted.from_offset is None and wanted.from_time is None:
        raise BadRange(
            "the start is missing: give --from-offset N, P:N,… or beginning, or --from-time"
        )
    if wanted.from_offset is not None and wanted.from_time is not None:
        raise BadRange("give --from-offset or --from-time, not both")
    if wanted.to_offset is not None and wanted.to_time is not None:
        raise BadRange("give --to-offset or --to-time, not both")
    if is_live and not facts.committed:
        raise BadRange(
            "the workers' group has committed nothing in this topic, so the workers will insert all of "
            "it: check KAFKA_GROUP_ID and KAFKA_TOPIC"
        )
    _check_named(wanted, chosen)
    chosen = [p for p in chosen if _is_named(wanted.from_offset, p)]
    firsts = _firsts(wanted, facts, chosen)
    ends = _ends(wanted, facts, chosen, is_live=is_live)
    ranges = {p: OffsetRange(firsts[p], ends[p]) for p in chosen if firsts[p] < ends[p]}
    if not ranges:
        up_to = " that the group has committed" if is_live else ""
        raise BadRange(f"the range is empty: it contains no offset{up_to}")
    return ranges


def _chosen(wanted: RequestedRange, facts: LogFacts) -> list[int]:
    unknown = [p for p in wanted.partitions if p not in facts.held]
    if unknown:
        raise BadRange(
            f"partition {unknown[0]} does not exist: the topic has 0 to {max(facts.held)}"
        )
    return sorted(set(wanted.partitions)) or sorted(facts.held)


def _check_named(wanted: RequestedRange, chosen: Sequence[int]) -> None:
    for option, offsets in (("from", wanted.from_offset), ("to", wanted.to_offset)):
        if isinstance(offsets, Mapping):
            unknown = [p for p in offsets if p not in chosen]
            if unknown:
                raise BadRange(
                    f"--{option}-offset names partition {unknown[0]}, which is not among those "
                    f"chosen or does not exist (there are {_listed(chosen)})"
                )


def _is_named(offsets: Offsets | None, partition: int) -> bool:
    return not isinstance(offsets, Mapping) or partition in offsets


def _firsts(wanted: RequestedRange, facts: LogFacts, chosen: Sequence[int]) -> dict[int, int]:
    held = facts.held
    if wanted.from_time is not None:
        found = {p: facts.from_time.get(p) for p in chosen}
        return {p: held[p].end if at is None else max(at, held[p].first) for p, at in found.items()}
    asked = wanted.from_offset
    if isinstance(asked, str):
        return {p: held[p].first for p in chosen}
    assert asked is not None
    firsts = {p: asked if isinstance(asked, int) else asked[p] for p in chosen}
    beyond = [p for p in chosen if firsts[p] > held[p].end]
    if beyond and (isinstance(asked, Mapping) or len(beyond) == len(chosen)):
        p = beyond[0]
        raise BadRange(f"offset {firsts[p]} is after the end of partition {p} ({held[p].end})")
    gone = [p for p in chosen if firsts[p] < held[p].first]
    if gone and not wanted.should_clamp:
        earliest = ",".join(f"{p}:{held[p].first}" for p in gone[:_SHOWN])
        more = ",…" if len(gone) > _SHOWN else ""
        raise BadRange(
            f"retention has removed requested offsets; the earliest offsets are {earliest}{more}: "
            "begin there, or give --clamp"
        )
    return {p: max(first, held[p].first) for p, first in firsts.items()}


def _ends(
    wanted: RequestedRange, facts: LogFacts, chosen: Sequence[int], *, is_live: bool
) -> dict[int, int]:
    held = facts.held
    limits = {p: facts.committed.get(p, 0) if is_live else held[p].end for p in chosen}
    defaults = {p: facts.committed.get(p, held[p].first) for p in chosen}
    if not is_live and not facts.committed:
        defaults = limits
    if wanted.to_time is not None:
        found = {p: facts.to_time.get(p) for p in chosen}
        return {p: limits[p] if at is None else min(at, limits[p]) for p, at in found.items()}
    asked = wanted.to_offset
    if asked is None:
        return defaults
    if isinstance(asked, str):
        ends = {p: held[p].end for p in chosen}
    elif isinstance(asked, int):
        if all(asked > held[p].end for p in chosen):
            raise BadRange(f"offset {asked} is after the end of every partition chosen")
        ends = {p: min(asked, held[p].end) for p in chosen}
    else:
        ends = {p: asked.get(p, defaults[p]) for p in chosen}
        for p, end in ends.items():
            if end > held[p].end:
                raise BadRange(f"offset {end} is after the end of partition {p} ({held[p].end})")
    for p, end in ends.items():
        if end > limits[p]:
            raise BadRange(
                f"partition {p}: the workers' group has committed {limits[p]} and will insert the "
                f"events from there to {end}: end at {limits[p]} or earlier"
            )
    return ends


def _listed(partitions: Sequence[int]) -> str:
    shown = ", ".join(str(p) for p in partitions[:_SHOWN])
    return f"{shown}, …" if len(partitions) > _SHOWN else shown
