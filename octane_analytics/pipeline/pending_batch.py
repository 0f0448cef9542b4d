"""Batch of the delivery state whose ranges no longer change."""

from dataclasses import dataclass

from octane_analytics.pipeline.intents import Intent


@dataclass(slots=True)
class PendingBatch:
    """Frozen batch, from its first announcement to the end of its insert."""

    intent: Intent
    members: set[int]
    """Partitions of the batch that the worker has held without interruption since it was frozen."""
    is_announced: bool
    is_repeat: bool = False
    """True if the batch may be in the table already, in whole or in part."""
    withdrawing: frozenset[int] = frozenset()
    """Partitions whose intent alone was accepted, of a commit that others of the batch refused."""
    may_be_announced: bool = False
    """True if an announcement was refused of which an earlier copy may have been stored."""
    was_announced: bool = False
    """True while an announcement that was accepted is made again."""
    is_placed: bool = False
    """True once the shard is chosen: an announcement may name it from then on."""

    @property
    def must_be_placed(self) -> bool:
        """True if the batch needs a shard before it can be announced."""
        return not (self.is_announced or self.is_placed)

    def place(self, shard: str) -> None:
        """Choose the shard, empty for the only one. Raise ConfigError if its identity is too long."""
        if not self.must_be_placed:
            raise ValueError("the batch has a shard already")
        self.intent = self.intent.on_shard(shard)
        self.is_placed = True
