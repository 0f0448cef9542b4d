"""Repeated insert of a block: count the rows that the table lacks, insert exactly these, count again.

A repeat cannot rely on the deduplication token alone. The server may have stored the token and been
killed before it added the part, or may have forgotten the token. All processes that repeat a block use
the same tokens in the same order, and count after each: an insert takes effect only if no other one did
since its count, however long the process was suspended between the two.

Equal rows are counted. A row of another block can therefore stand in for an equal one of this block: of
two equal events one may stay missing after a repeat, never is one there too often.

A block that the server refuses for its data goes in by parts. In each partition of the table, the first
accepted rows claim the token of the block, so that nobody inserts the whole block once the table accepts
it. The rows are counted afterwards.

Used by worker, replay and dead-letter retry. Every call may raise Unavailable; repeat it. ConfigError
means that the table does not show rows that it has just stored: to repeat would insert them without end.
"""

from collections.abc import Callable, Iterable, Sequence

from octane_analytics.errors import ConfigError, DataRejected, NeedsOperator
from octane_analytics.interfaces import BlockSink
from octane_analytics.types import RepeatRules

ATTEMPTS = 4
"""Number of inserts after which rows must not be missing."""
MAX_TOKENS = 10_000
"""Number of tokens of a block after which something must be wrong: a killed server may have stored each
without the part, and a block that goes in by parts uses one for each."""

Rows = Sequence[Sequence[object]]
"""Columns in the order of `event.Row`, all of one length."""


def insert_repeated(
    sink: BlockSink,
    columns: Rows,
    token: str,
    *,
    not_before: float | None = None,
    prefers_token: bool = False,
) -> None:
    """Insert a block that may be in the table, wholly or in part. Blocks.

    `not_before` is a time in epoch seconds before which it was not inserted; None if not known. With
    `prefers_token` the whole block is inserted before the first count, if the table still has its token:
    for rows that may equal rows of other blocks. A worker does not use it: other hosts may have inserted
    more blocks than the table remembers, and then the whole block would be there twice. Raise
    Unavailable, or DataRejected if the block must be inserted in parts.
    """
    rules = sink.repeat_rules(not_before)
    is_sent_whole = rules.inserts_whole or (prefers_token and rules.remembers_token)
    if is_sent_whole:
        sink.insert_block(columns, token, token)
    if not rules.counts_rows:
        return
    number = attempts = int(is_sent_whole)
    stored: Sequence[int] = ()
    while (missing := sink.missing_rows(columns)) and attempts < ATTEMPTS and number < MAX_TOKENS:
        check_visible(stored, missing)
        check_repair(rules, number, len(missing))
        block = pick_rows(columns, missing)
        is_stored = sink.insert_block(block, numbered_token(token, number), token)
        number += 1
        if is_stored:
            attempts, stored = attempts + 1, missing
        else:
            stored = ()
            # Others have used the token, and many more if the block went in by parts: count few rows.
            columns = pick_rows(columns, equal_rows(columns, missing))
    check_nothing_missing(missing, token)


def insert_in_parts(
    sink: BlockSink,
    columns: Rows,
    token: str,
    part_token: Callable[[int, int], str],
    *,
    is_repeat: bool,
    refused: dict[int, str],
) -> None:
    """Insert a block that the server refuses, by halves, without the rows that it refuses alone. Blocks.

    `part_token` returns the token of the rows `[first, end)`. `is_repeat` means that parts of the block
    may be in the table. `refused` receives the reasons by row; give it again when the call is repeated
    after Unavailable, because a refused row is not tried again.
    """
    rules = sink.repeat_rules()
    partitions = sink.partitions(columns)
    for attempt in range(ATTEMPTS + 1):
        if rules.counts_rows and (attempt or is_repeat):
            missing = _missing_of_accepted(sink, columns, refused)
        else:
            missing = range(len(columns[0]))
        if not missing:
            return
        if attempt == ATTEMPTS:
            check_nothing_missing(missing, token)
        check_repair(rules, attempt, len(missing))
        halves = _Halves(
            sink, columns, token, part_token, partitions, refused, set(missing), attempt
        )
        halves.insert(0, len(columns[0]))
        if not rules.counts_rows:
            return


def _missing_of_accepted(sink: BlockSink, columns: Rows, refused: dict[int, str]) -> Sequence[int]:
    kept = [row for row in range(len(columns[0])) if row not in refused]
    missing = sink.missing_rows(pick_rows(columns, kept)) if kept else ()
    return [kept[row] for row in missing]


class _Halves:
    """One attempt at a refused block: parts in the order of the rows, divided where refused."""

    def __init__(
        self,
        sink: BlockSink,
        columns: Rows,
        token: str,
        part_token: Callable[[int, int], str],
        partitions: Sequence[object],
        refused: dict[int, str],
        missing: set[int],
        attempt: int,
    ) -> None:
        self._sink = sink
        self._columns = columns
        self._token = token
        self._part_token = part_token
        self._partitions = partitions
        self._refused = refused
        self._missing = missing
        self._attempt = attempt
        self._claimed: set[object] = set()
        """Partitions that have the token of the whole block."""

    def insert(self, first: int, end: int) -> None:
        rows = [row for row in range(first, end) if row not in self._refused]
        # The process that inserted rows before has claimed their partitions.
        self._claim(row for row in rows if row not in self._missing)
        try:
            self._insert_missing(rows, first, end)
        except DataRejected as error:
            if end - first == 1:
                self._refused[first] = str(error)
                return
            middle = (first + end) // 2
            self.insert(first, middle)
            self.insert(middle, end)

    def _insert_missing(self, rows: Sequence[int], first: int, end: int) -> None:
        missing = [row for row in rows if row in self._missing]
        claiming = [row for row in missing if self._partitions[row] not in self._claimed]
        others = [row for row in missing if self._partitions[row] in self._claimed]
        for picked, token in ((claiming, self._token), (others, self._part_token(first, end))):
            if picked:
                block = pick_rows(self._columns, picked)
                self._sink.insert_block(block, numbered_token(token, self._attempt), self._token)
                self._missing.difference_update(picked)
                self._claim(picked)

    def _claim(self, rows: Iterable[int]) -> None:
        self._claimed.update(self._partitions[row] for row in rows)


def numbered_token(token: str, number: int) -> str:
    """Return the token of an insert of the block; the first one uses the block's own."""
    return f"{token}/again{number}" if number else token


def check_repair(rules: RepeatRules, attempt: int, missing: int) -> None:
    """Raise NeedsOperator if rows that are missing after an attempt may not go in under a new token."""
    if attempt and rules.repair_refusal:
        raise NeedsOperator(
            f"{missing} rows of a batch are missing although their token is known, and "
            f"{rules.repair_refusal}"
        )


def check_nothing_missing(missing: Sequence[int], token: str) -> None:
    """Raise NeedsOperator if rows are missing after the last attempt."""
    if missing:
        raise NeedsOperator(
            f"{len(missing)} rows of a batch are not in the table after {ATTEMPTS} inserts under "
            f"{token}: check that nothing deletes rows of the table, and the server's log"
        )


def check_visible(stored: Sequence[int], missing: Sequence[int]) -> None:
    """Raise ConfigError if all rows that were just stored are missing as before."""
    if stored and list(stored) == list(missing):
        raise ConfigError(
            f"ClickHouse has stored {len(stored)} rows of a batch and does not show them to this user: "
            "check its row policies, the settings of its profile, and that nothing deletes or changes "
            "rows; then start again"
        )


def equal_rows(columns: Rows, indices: Iterable[int]) -> list[int]:
    """Return the indices of all rows that equal one of these, in ascending order: the rows to count, if
    all others are known to be in the table."""
    rows = list(zip(*columns, strict=True))
    values = {rows[index] for index in indices}
    return [index for index, row in enumerate(rows) if row in values]


def pick_rows(columns: Rows, indices: Sequence[int]) -> Rows:
    """Return the rows at these indices, in ascending order."""
    if len(indices) == len(columns[0]):
        return columns
    return [[values[index] for index in indices] for values in map(list, columns)]
