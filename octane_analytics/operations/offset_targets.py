"""Where a group is to go on reading: a word, a time or offsets by partition, as commits.

Pure: what the broker knows comes as values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.delivery_ledger import DeliveryLedger, Intent
from octane_analytics.replay.ranges import BadRange, parse_offsets, parse_time
from octane_analytics.types import Commit, Committed, LogIdentity, OffsetRange, TopicPartition

_BY_PARTITION = re.compile(r"\s*\d+\s*:", re.ASCII)


class Bound(Enum):
    BEGINNING = "beginning"
    END = "end"


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record with this Kafka timestamp or a later one; the end where there is none."""

    epoch_seconds: float


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """Of these partitions only."""

    offsets: Mapping[int, int]


Target = Bound | AtTime | AtOffsets


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What a broker says of one partition."""

    first: int
    end: int
    """The last stable offset: no consumer reads further, so that nothing is skipped unseen."""
    committed: Committed
    at_time: int | None = None


def parse_target(text: str, now: datetime) -> Target:
    """`beginning` or `earliest`, `end` or `latest`, `PARTITION:OFFSET,…`, RFC 3339, or as far back as
    `-6h`. Raises BadRange."""
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
            f"{text!r} says neither partition nor time: write PARTITION:OFFSET,… or a time as "
            "2026-02-02T12:00:00Z"
        )
    try:
        return AtTime(parse_time(text, now))
    except BadRange as error:
        raise BadRange(
            f"{text!r}: write beginning (earliest), end (latest), PARTITION:OFFSET,…, a time as "
            "2026-02-02T12:00:00Z, or as far back as -6h"
        ) from error


def set_to(
    target: Target,
    log: LogIdentity,
    facts: Mapping[TopicPartition, PartitionFacts],
    *,
    drop_intents: bool = False,
) -> list[Commit]:
    """The commits that move the group. Raises ConfigError that says what is in the way.

    `drop_intents` is the operator's word that ranges which were being inserted may be inserted twice.
    """
    wanted = _wanted(target, facts)
    pending = [where.partition for where in wanted if _is_pending(facts[where].committed, log)]
    if pending and not drop_intents:
        raise ConfigError(
            f"partitions {', '.join(map(str, pending))} have announced ranges that may be inserted "
            "already: start the worker and stop it with SIGTERM, which finishes them; or say "
            "--drop-intents, and those ranges may be there twice or not at all"
        )
    for where, offset in wanted.items():
        first, end = facts[where].first, facts[where].end
        if not first <= offset <= end:
            raise ConfigError(
                f"{where} holds the offsets from {first} to {end}, and --to says {offset}: nothing was "
                "set"
            )
    return [
        Commit(where, offset, Intent(OffsetRange(offset, offset), log).metadata())
        for where, offset in wanted.items()
    ]


def consequences(commits: list[Commit], facts: Mapping[TopicPartition, PartitionFacts]) -> str:
    """How many offsets are skipped and how many are read again, in one line."""
    skipped = repeated = 0
    for commit in commits:
        known = facts[commit.partition]
        before = known.committed.offset
        position = known.first if before is None else min(max(before, known.first), known.end)
        skipped += max(0, commit.offset - position)
        if before is not None:
            repeated += max(0, position - commit.offset)
    return f"{skipped:,} offsets are skipped, {repeated:,} are read again"


def _wanted(
    target: Target, facts: Mapping[TopicPartition, PartitionFacts]
) -> dict[TopicPartition, int]:
    match target:
        case Bound.BEGINNING:
            return {where: known.first for where, known in facts.items()}
        case Bound.END:
            return {where: known.end for where, known in facts.items()}
        case AtTime():
            return {
                where: known.end if known.at_time is None else min(known.at_time, known.end)
                for where, known in facts.items()
            }
        case AtOffsets():
            by_number = {where.partition: where for where in facts}
            unknown = sorted(target.offsets.keys() - by_number.keys())
            if unknown:
                raise ConfigError(
                    f"there is no partition {unknown[0]}: the topic has 0 to {max(by_number)}"
                )
            return {by_number[number]: offset for number, offset in target.offsets.items()}
    raise AssertionError(f"no target: {target!r}")


def _is_pending(committed: Committed, log: LogIdentity) -> bool:
    """Whether a worker that starts now would first insert an announced range of this log."""
    start = DeliveryLedger().assign(TopicPartition("", 0), committed, log)
    return start.recovering is not None
