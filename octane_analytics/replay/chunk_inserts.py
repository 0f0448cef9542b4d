"""Insert of one chunk of missing rows, divided where ClickHouse refuses rows for their data.

A chunk cannot be counted by itself as a worker's batch is: it may hold further copies of rows that the
target has. Its inserts are exact by tokens, and by two rules:

- Each part has a token of its own, and is divided only after a definite refusal, which the journal
  records first. So a resumed replay divides identically, and never inserts a divided part as a whole,
  even if the table accepts it by then.
- A part with an unknown result that is refused afterwards, because the table was changed in between, may
  be in the target. It is not divided but left to the next comparison, which counts its rows. Append,
  which compares nothing, stops if that happens within one process.

All statements of a chunk have one query id: ClickHouse refuses to run a second one while an earlier one,
of a killed process or a cut connection, is still running.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from octane_analytics.errors import DataRejected, OctaneError
from octane_analytics.interfaces import Clock
from octane_analytics.pipeline.repeated_insert import Rows, pick_rows
from octane_analytics.replay.interfaces import JournalEntry, StagedChunk, StagingStore
from octane_analytics.replay.pacing import retry_while_unavailable

_DIVIDED = "divided"


@dataclass(slots=True)
class ChunkOutcome:
    inserted: int = 0
    refused: int = 0
    """Rows that ClickHouse rejects because of their data."""
    refusal: str = ""
    is_doubtful: bool = False
    """True if some rows may be missing or not: all events must be compared again."""


class ChunkInserts:
    """Inserts the chunks of one replay. Not thread-safe."""

    def __init__(
        self,
        replay_id: str,
        staging: StagingStore,
        clock: Clock,
        is_stopping: Callable[[], bool],
        *,
        is_compared_again: bool,
    ) -> None:
        """`is_compared_again` means that rows missing after an insert are found by a comparison."""
        self._replay_id = replay_id
        self._staging = staging
        self._clock = clock
        self._is_stopping = is_stopping
        self._is_compared_again = is_compared_again
        self._divided: set[str] = set()

    def recover(self, entries: Iterable[JournalEntry]) -> None:
        """Take over the divisions of an earlier process."""
        self._divided = {entry.body for entry in entries if entry.kind == _DIVIDED}

    def insert(self, chunk: StagedChunk, columns: Rows, *, is_repeat: bool) -> ChunkOutcome:
        """Insert the chunk. Blocks.

        `is_repeat` means that an earlier process may have inserted some of it. Raise Unavailable,
        Interrupted, and OctaneError if the result of rows cannot be known.
        """
        outcome = ChunkOutcome()
        self._insert(chunk_name(chunk), columns, (0, len(columns[0])), outcome, is_repeat=is_repeat)
        return outcome

    def _insert(
        self,
        name: str,
        columns: Rows,
        part: tuple[int, int],
        outcome: ChunkOutcome,
        *,
        is_repeat: bool,
    ) -> None:
        first, end = part
        label = f"{name} {first}-{end}"
        if label not in self._divided:
            rejection = self._insert_part(name, columns, part, outcome, is_repeat=is_repeat)
            if rejection is None:
                return
            if end - first == 1:
                outcome.refused += 1
                outcome.refusal = str(rejection)
                return
            self._staging.journal(_DIVIDED, label)
            self._divided.add(label)
        middle = (first + end) // 2
        self._insert(name, columns, (first, middle), outcome, is_repeat=is_repeat)
        self._insert(name, columns, (middle, end), outcome, is_repeat=is_repeat)

    def _insert_part(
        self,
        name: str,
        columns: Rows,
        part: tuple[int, int],
        outcome: ChunkOutcome,
        *,
        is_repeat: bool,
    ) -> DataRejected | None:
        """Return the error of a definite refusal; None if the part needs no further insert."""
        first, end = part
        rows = pick_rows(columns, range(first, end))
        prefix = f"octane-replay/{self._replay_id}/{name}"
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            self._staging.insert(rows, f"{prefix}/{first}-{end}", prefix)

        try:
            retry_while_unavailable(attempt, self._clock, self._is_stopping)
        except DataRejected as error:
            if attempts == 1 and not (is_repeat and self._is_compared_again):
                return error
            if not self._is_compared_again:
                raise OctaneError(
                    f"the result of an insert of {end - first:,} rows is not known, and the table "
                    f"refuses them now ({error}): undo the change of the table, then resume the replay"
                ) from error
            outcome.is_doubtful = True
            return None
        outcome.inserted += end - first
        # A killed server may have stored the token without the rows.
        outcome.is_doubtful |= attempts > 1 or is_repeat
        return None


def chunk_name(chunk: StagedChunk) -> str:
    return "/".join(map(str, chunk))
