"""Insert of a batch that ClickHouse refuses for its data: in parts, until the bad rows are isolated.

The batch is split by partitions and then by halves of their offsets.

In each partition of the table the inserts of a batch are numbered, from its own token on, whether a
worker inserts all of it or a part (`repeated_insert`). A worker uses a number only if it knows that all
lower ones are used, and has counted the missing rows since. So of all workers that insert the batch only
one can use each number, and its insert takes effect only if the table got no row of the batch since its
count: a worker that is suspended between count and insert, while another one inserts the batch because
the table accepts it now, has its insert dropped, and counts again.

Tables with materialized views, and those whose rows cannot be counted, must not get rows under another
token than before. There the first rows claim the token of the whole batch, and each other part has a
token of its offsets, so that all workers use the same one for the same part.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from octane_analytics.errors import DataRejected, Unavailable
from octane_analytics.events.event import Decode
from octane_analytics.interfaces import BlockSink, Clock
from octane_analytics.pipeline.batch_writer import place_of
from octane_analytics.pipeline.dlq_limit import DlqLimit
from octane_analytics.pipeline.intents import Intent
from octane_analytics.pipeline.repeated_insert import (
    ATTEMPTS,
    MAX_TOKENS,
    check_nothing_missing,
    check_repair,
    check_visible,
    equal_rows,
    numbered_token,
    pick_rows,
)
from octane_analytics.types import PartitionRange, Record, RejectedRecord, RepeatRules

_REASON = "refused_by_clickhouse"


class PlacedRows:
    """Rows of a batch with their records, in the order of partition and offset."""

    def __init__(self, records: Iterable[Record], decode: Decode) -> None:
        records = sorted(records, key=place_of)
        decoded = decode([record.value() for record in records])
        invalid = {index for index, _, _ in decoded.invalid}
        self.rejected = [
            RejectedRecord(records[index], reason, detail)
            for index, reason, detail in decoded.invalid
        ]
        self.records = [record for index, record in enumerate(records) if index not in invalid]
        self.columns: list[list[object]] = [list(column) for column in decoded.columns]
        self._by_partition: dict[int, list[int]] = {}
        for index, record in enumerate(self.records):
            self._by_partition.setdefault(place_of(record)[0], []).append(index)

    def within(self, part: PartitionRange) -> list[int]:
        """Return the indices of the part's rows."""
        of_partition = self._by_partition.get(part.partition, [])
        return [index for index in of_partition if _is_within(self.records[index], part)]


class SplitInsert:
    """Insert of one refused batch. Each call continues where the last one ended."""

    def __init__(
        self,
        sink: BlockSink,
        rows: PlacedRows,
        intent: Intent,
        clock: Clock,
        dlq_limit: DlqLimit,
        *,
        is_repeat: bool,
        is_counted: bool,
    ) -> None:
        """`is_repeat` means that rows of the batch may be in the table, `is_counted` that the
        dead-letter limit has counted the records when they were read."""
        self._sink = sink
        self._rows = rows
        self._intent = intent
        self._token = intent.token()
        self._clock = clock
        self._dlq_limit = dlq_limit
        self._is_repeat = is_repeat
        self._is_counted = is_counted
        self._used: Counter[object] = Counter()
        """Number of tokens that are used, the lowest ones, by partition of the table."""
        self._counted: set[int] = set()
        """Indices of rows whose result the dead-letter limit has counted: each counts once, however
        often an outage interrupts."""
        self._refused: dict[int, str] = {}
        """Reasons by the row's index. A refused row stays refused, even if the table would accept it
        later: it may be in the dead-letter topic."""
        self._table_partitions: Sequence[object] = ()
        """Partition of the table of each row."""
        self._restart()

    def _restart(self) -> None:
        self._rules = RepeatRules()
        self._attempt = -1
        self._missing: set[int] = set()
        self._stored: set[int] = set()
        """Indices of rows that this attempt has stored."""
        self._left: list[tuple[PartitionRange, list[int]]] = []
        self._claimed: set[object] = set()
        """Partitions of the table that have the token of the whole batch."""

    @property
    def refused(self) -> list[RejectedRecord]:
        """Rows that ClickHouse refuses, each alone."""
        records = self._rows.records
        return [
            RejectedRecord(records[index], _REASON, reason)
            for index, reason in sorted(self._refused.items())
        ]

    def run(self, deadline: float) -> bool:
        """Insert parts until the deadline; return whether every row is in the table or refused.

        Raise Unavailable: call again. Raise TooManyRejected before the rows are dead-lettered.
        """
        try:
            while self._left or self._begin_attempt():
                if self._clock.now() >= deadline:
                    return False
                self._insert(*self._left.pop())
        except Unavailable:
            self._restart()
            self._is_repeat = True  # the part may be in the table
            raise
        return True

    def _begin_attempt(self) -> bool:
        """Find the rows to insert; return whether there are any."""
        rules = self._rules = self._sink.repeat_rules()
        if self._attempt < 0:
            self._table_partitions = self._sink.partitions(self._rows.columns)
        if self._attempt >= 0 and not rules.counts_rows:
            return False
        self._attempt += 1
        kept = [index for index in range(len(self._rows.records)) if index not in self._refused]
        if rules.counts_rows and (self._attempt or self._is_repeat):
            # A first insert is not preceded by a count: rows of other batches that are equal would
            # count as its own.
            kept = self._count_missing(kept)
            check_visible(sorted(self._stored), kept)
        self._stored.clear()
        if self._attempt == ATTEMPTS:
            check_nothing_missing(kept, self._token)
        if kept:
            check_repair(rules, self._attempt, len(kept))
            parts = [(part, self._rows.within(part)) for part in self._intent.ranges]
            self._left = parts[::-1]
        self._missing = set(kept)
        return bool(kept)

    def _count_missing(self, indices: list[int]) -> list[int]:
        """Return which of the rows are missing. All at once, because some may be equal."""
        if not indices:
            return []
        found = self._sink.missing_rows(pick_rows(self._rows.columns, indices))
        return [indices[index] for index in found]

    def _count_again(self) -> None:
        """Count the missing rows again; rows that are in the table stay there."""
        same = equal_rows(self._rows.columns, self._missing)
        self._missing = set(self._count_missing([n for n in same if n not in self._refused]))

    @property
    def _is_numbered(self) -> bool:
        return self._rules.counts_rows and not self._rules.repair_refusal

    def _insert(self, part: PartitionRange, rows: list[int]) -> None:
        """Insert the part's missing rows; leave its halves to be inserted if they are refused."""
        accepted = [index for index in rows if index not in self._refused]
        # The worker that inserted rows before has claimed their partitions of the table.
        self._claim(index for index in accepted if index not in self._missing)
        insert = self._insert_numbered if self._is_numbered else self._insert_claiming
        try:
            insert(part, [index for index in accepted if index in self._missing])
        except DataRejected as error:
            if part.end - part.first == 1:
                self._count_refused(accepted)
                self._refused.update(dict.fromkeys(accepted, str(error)))
            else:
                self._split(part, rows)

    def _insert_numbered(self, part: PartitionRange, rows: list[int]) -> None:
        """Insert the rows, those of each partition of the table under its next token."""
        for where in dict.fromkeys(self._table_partitions[index] for index in rows):
            picked = [n for n in rows if self._table_partitions[n] == where and n in self._missing]
            if not picked:
                continue
            if self._used[where] >= MAX_TOKENS:
                check_nothing_missing(picked, self._token)
            token = numbered_token(self._token, self._used[where])
            is_stored = self._sink.insert_block(
                pick_rows(self._rows.columns, picked), token, self._token
            )
            self._used[where] += 1
            if is_stored:
                self._missing.difference_update(picked)
                self._stored.update(picked)
            else:
                # Others may have inserted any rows of the batch since the last count.
                self._count_again()
            if still_missing := self._missing.intersection(picked):
                self._left.append((part, sorted(still_missing)))
            self._count_inserted([n for n in picked if n not in self._missing])

    def _insert_claiming(self, part: PartitionRange, rows: list[int]) -> None:
        claiming = [index for index in rows if self._table_partitions[index] not in self._claimed]
        others = [index for index in rows if self._table_partitions[index] in self._claimed]
        for picked, token in ((claiming, self._token), (others, self._intent.part_token(part))):
            if picked:
                block = pick_rows(self._rows.columns, picked)
                self._sink.insert_block(block, numbered_token(token, self._attempt), self._token)
                self._missing.difference_update(picked)
                self._claim(picked)
                self._count_inserted(picked)

    def _claim(self, rows: Iterable[int]) -> None:
        self._claimed.update(self._table_partitions[index] for index in rows)

    def _split(self, part: PartitionRange, rows: list[int]) -> None:
        middle = (part.first + part.end) // 2
        for half in (part._replace(first=middle), part._replace(end=middle)):
            within = [index for index in rows if _is_within(self._rows.records[index], half)]
            if within:
                self._left.append((half, within))

    def _count_inserted(self, rows: Sequence[int]) -> None:
        uncounted = [index for index in rows if index not in self._counted]
        self._counted.update(uncounted)
        self._dlq_limit.record_inserted(0 if self._is_counted else len(uncounted))

    def _count_refused(self, rows: Sequence[int]) -> None:
        uncounted = [index for index in rows if index not in self._counted]
        self._counted.update(uncounted)
        if uncounted:
            self._dlq_limit.record_refused(len(uncounted), is_counted=self._is_counted)


def _is_within(record: Record, part: PartitionRange) -> bool:
    partition, offset = place_of(record)
    return partition == part.partition and part.first <= offset < part.end
