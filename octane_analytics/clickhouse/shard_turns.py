"""Turns of the shards: which one the next batch goes to, in proportion to their weights."""

from collections.abc import Sequence


class ShardTurns:
    """Smooth weighted round robin: the turns of one shard are spread evenly over a round."""

    def __init__(self, weights: Sequence[int], first: int = 0) -> None:
        """`first` is the number of turns to skip, so that workers begin with different shards."""
        if not any(weights):
            raise ValueError("every shard has weight 0")
        self._weights = tuple(weights)
        self._credits = [0] * len(weights)
        for _ in range(first % sum(weights)):
            self.next_order()

    def next_order(self) -> list[int]:
        """Return the numbers of the shards in the order in which the next batch tries them.

        Only the first one's turn is used up. Shards of weight 0 are left out.
        """
        for number, weight in enumerate(self._weights):
            self._credits[number] += weight
        order = sorted(
            (number for number, weight in enumerate(self._weights) if weight),
            key=lambda number: (-self._credits[number], number),
        )
        self._credits[order[0]] -= sum(self._weights)
        return order
