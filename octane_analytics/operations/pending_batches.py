"""Pending batches of a group, and the partitions that must not be moved because of them.

The next owner of any partition of a pending batch inserts all of it again, so a batch blocks every
partition that it names, also those whose own offset is completed already.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from octane_analytics.errors import ConfigError
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.start_positions import start_position
from octane_analytics.types import Committed, LogIdentity, TopicPartition


@dataclass(frozen=True, slots=True)
class PendingBatches:
    """Batches that workers started now would insert first."""

    by_partition: Mapping[TopicPartition, Intent]
    """Batch that a partition's own metadata announces."""
    unreadable: Mapping[TopicPartition, str]
    """Error by partition whose metadata cannot be read: its batch may name any partition."""

    @property
    def partitions(self) -> list[int]:
        """Every partition that some batch names, in order."""
        return sorted({n for intent in self.by_partition.values() for n in intent.partitions})

    def require_none(self, moved: Collection[TopicPartition]) -> None:
        """Raise ConfigError if a batch names one of the partitions, or if that cannot be known."""
        if not moved:
            return
        for error in self.unreadable.values():
            raise ConfigError(f"{error}; or use --drop-intents, which may insert its batch twice")
        blocked = sorted({where.partition for where in moved} & set(self.partitions))
        if blocked:
            raise ConfigError(
                f"a batch that may be inserted already is pending for partitions "
                f"{', '.join(map(str, blocked))}: start the worker and stop it with SIGTERM, which "
                "finishes it; or use --drop-intents, which may insert it twice or not at all"
            )

    def carriers_of(self, moved: Collection[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions whose metadata announces a batch that names one of these."""
        numbers = {where.partition for where in moved}
        return {
            where
            for where, intent in self.by_partition.items()
            if not numbers.isdisjoint(intent.partitions)
        }


def pending_batches(
    committed: Mapping[TopicPartition, Committed], log: LogIdentity
) -> PendingBatches:
    """Return the pending batches of this log, from the committed offsets of all partitions."""
    found: dict[TopicPartition, Intent] = {}
    unreadable: dict[TopicPartition, str] = {}
    for where, offset in committed.items():
        try:
            start = start_position(where.topic, where.partition, offset, log)
        except ConfigError as error:
            unreadable[where] = str(error)
            continue
        if start.pending is not None:
            found[where] = start.pending
    return PendingBatches(found, unreadable)
