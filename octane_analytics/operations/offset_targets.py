"""Positions to which an operator sets a group: a bound, a time or offsets by partition.

Pure: the broker's facts are arguments.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from octane_analytics.errors import ConfigError
from octane_analytics.operations.pending_batches import pending_batches
from octane_analytics.pipeline.intents import completed
from octane_analytics.replay.ranges import BadRange, parse_offsets, parse_time
from octane_analytics.types import Commit, Committed, LogIdentity, TopicPartition

_BY_PARTITION = re.compile(r"\s*\d+\s*:", re.ASCII)


class Bound(Enum):
    BEGINNING = "beginning"
    END = "end"


@dataclass(frozen=True, slots=True)
class AtTime:
    """First record with this Kafka timestamp or a later one; the end if there is none."""

    epoch_seconds: float


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """Offsets of some partitions; the others are not moved."""

    offsets: Mapping[int, int]


Target = Bound | AtTime | AtOffsets


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """Broker's facts about one partition."""

    first: int
    end: int
    """Last stable offset: no consumer reads past it, so no unread record is skipped."""
    committed: Committed
    at_time: int | None = None


def parse_target(text: str, now: datetime) -> Target:
    """Parse `beginning` or `earliest`, `end` or `latest`, `PARTITION:OFFSET,…`, an RFC 3339 time, or a
    duration before `now` as in `-6h`. Raise BadRange."""
    for bound in Bound:
        if text in (bound.value, {"beginning": "earliest", "end": "latest"}[bound.value]):
            return bound
    if _BY_PARTITION.match(text):
        try:
            offsets = parse_offsets(text, "")
        except BadRange as error:
            raise BadRange(f"{text!r}: write PARTITION:OFFSET,PARTITION:OFFSET") from error
        assert isinstance(offsets, Mapping), "the text names partitions"
        return AtOffsets(offsets)
    if text.isdecimal():
        raise BadRange(
            f"{text!r} names neither a partition nor a time: write PARTITION:OFFSET,… or a time, as "
            "2026-02-02T12:00:00Z"
        )
    try:
        return AtTime(parse_time(text, now))
    except BadRange as error:
        raise BadRange(
            f"{text!r}: write beginning (earliest), end (latest), PARTITION:OFFSET,…, a time as "
            "2026-02-02T12:00:00Z, or a duration before now as -6h"
        ) from error


def set_to(
    target: Target,
    log: LogIdentity,
    facts: Mapping[TopicPartition, PartitionFacts],
    *,
    drop_intents: bool = False,
) -> list[Commit]:
    """Return the commits that move the group. Raise ConfigError, with the reason, if it cannot be moved.

    `facts` are those of all partitions: a batch that is pending for one of them is inserted whole by the
    next owner, so none of its partitions may be moved. `drop_intents` is the operator's consent that
    such batches may be inserted twice or not at all; they are dropped for all of their partitions.
    """
    offsets = _resolve(target, facts)
    pending = pending_batches({where: fact.committed for where, fact in facts.items()}, log)
    if not drop_intents:
        pending.require_none(offsets)
    for partition, offset in offsets.items():
        first, end = facts[partition].first, facts[partition].end
        if not first <= offset <= end:
            raise ConfigError(
                f"{partition} holds the offsets from {first} to {end}, and --to names {offset}: "
                "nothing was set"
            )
    dropped = {where: facts[where].committed.offset or 0 for where in pending.carriers_of(offsets)}
    return [
        Commit(partition, offset, completed(partition.topic, log))
        for partition, offset in (dropped | offsets).items()
    ]


def consequences(commits: list[Commit], facts: Mapping[TopicPartition, PartitionFacts]) -> str:
    """Return one line with the numbers of offsets that are skipped and that are read again."""
    skipped = repeated = 0
    for commit in commits:
        partition = facts[commit.partition]
        before = partition.committed.offset
        position = (
            partition.first if before is None else min(max(before, partition.first), partition.end)
        )
        skipped += max(0, commit.offset - position)
        if before is not None:
            repeated += max(0, position - commit.offset)
    return f"{skipped:,} offsets are skipped, {repeated:,} are read again"


def _resolve(
    target: Target, facts: Mapping[TopicPartition, PartitionFacts]
) -> dict[TopicPartition, int]:
    match target:
        case Bound.BEGINNING:
            return {partition: fact.first for partition, fact in facts.items()}
        case Bound.END:
            return {partition: fact.end for partition, fact in facts.items()}
        case AtTime():
            return {
                partition: fact.end if fact.at_time is None else min(fact.at_time, fact.end)
                for partition, fact in facts.items()
            }
        case AtOffsets():
            by_number = {partition.partition: partition for partition in facts}
            unknown = sorted(target.offsets.keys() - by_number.keys())
            if unknown:
                raise ConfigError(
                    f"partition {unknown[0]} does not exist: the topic has 0 to {max(by_number)}"
                )
            return {by_number[number]: offset for number, offset in target.offsets.items()}
    raise AssertionError(f"unknown target: {target!r}")
