# ruff: noqa: S608  # only names of definitions and checked identifiers are interpolated
"""Rollups of a live table: which exist, which months lack them, and the mutations that build them.

system.parts lists the projections of each part, so the state is read in one query and is also right
after a crash. Values are bound; only names of the definitions and identifiers from the server that
consist of word characters are interpolated.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS, UNKNOWN_TABLE
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.rollups import Rollup
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import NeedsOperator, StatementRejected

SAMPLE_ROWS = 200_000
_WORD = re.compile(r"\w+\Z", re.ASCII)
_UNKNOWN_IDENTIFIER, _NO_SETTING, _DENIED, _NO_SPACE = 47, 115, 497, 243
_MINIMUM_VERSION = "24.9"
_OF_TABLE = "database = {database:String} AND table = {table:String}"
_PARTS = f"""
SELECT partition_id, arraySort(projections) AS built, sum(rows), sum(bytes_on_disk)
FROM system.parts WHERE active AND {_OF_TABLE} GROUP BY partition_id, built
"""
_ROOM = f"""
SELECT (
    SELECT min(bytes_on_disk) FROM system.parts WHERE active AND {_OF_TABLE}
        AND ({{partition:String}} = '' OR partition_id = {{partition:String}})
        AND NOT hasAll(projections, {{names:Array(String)}})
), (
    SELECT max(unreserved_space) FROM system.disks WHERE has(
        (SELECT groupArrayArray(disks) FROM system.storage_policies WHERE policy_name =
            (SELECT any(storage_policy) FROM system.tables WHERE database = {{database:String}}
                AND name = {{table:String}})),
        name
    )
), (SELECT count() FROM system.merges WHERE {_OF_TABLE})
"""
_ROOM_RATIO = 1.1
"""ClickHouse mutates a part only if this multiple of it is free."""
_BUILDS = (
    "arrayExists(name -> startsWith(trimLeft(command, '('), "
    "concat('MATERIALIZE PROJECTION ', name, ' ')), {names:Array(String)})"
)
_RIGHTS = (
    "ALTER ADD PROJECTION",
    "ALTER DROP PROJECTION",
    "ALTER MATERIALIZE PROJECTION",
    "ALTER SETTINGS",
)


@dataclass(frozen=True, slots=True)
class PartGroup:
    """Parts of one partition with the same projections."""

    partition_id: str
    built: frozenset[str]
    """Names of the projections that these parts have."""
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RollupState:
    projections: frozenset[str]
    """Names of the projections that belong to the product, of any version."""
    parts: tuple[PartGroup, ...]

    def missing(self, wanted: Sequence[Rollup]) -> list[Rollup]:
        """Return those of the rollups that the table does not have in this definition."""
        return [rollup for rollup in wanted if rollup.name not in self.projections]

    def outdated(self) -> list[str]:
        """Return the projections of another definition than the current one, by name."""
        current = {rollup.name for rollup in rollups.ROLLUPS}
        return sorted(self.projections - current)

    def lacking(self, rollup: Rollup) -> dict[str, int]:
        """Return the rows in parts without the rollup by partition, the latest partition first."""
        rows: dict[str, int] = {}
        for group in self.parts:
            if rollup.name not in group.built and group.rows:
                rows[group.partition_id] = rows.get(group.partition_id, 0) + group.rows
        return dict(sorted(rows.items(), reverse=True))

    def differences(self) -> list[str]:
        """Return one sentence for each rollup that is missing, outdated or lacks rows.

        A set of which the table has nothing is a choice and not a difference.
        """
        found = []
        labels = {rollups.label_of(name) for name in self.projections}
        for rollup in rollups.ROLLUPS:
            if rollup.name in self.projections:
                lacking = self.lacking(rollup)
                months = ", ".join(lacking)
                if lacking:
                    found.append(
                        f"rollup {rollup.label} lacks {sum(lacking.values()):,} rows of {months}"
                    )
            elif rollup.label in labels:
                found.append(f"rollup {rollup.label} is of another definition")
            elif labels & {other.label for other in rollups.of_sets([rollup.set_name])}:
                found.append(f"rollup {rollup.label} is missing")
        return found

    def rows_lacking(self, wanted: Sequence[Rollup]) -> int:
        """Return the rows in parts that lack at least one of the rollups."""
        names = {rollup.name for rollup in wanted}
        return sum(group.rows for group in self.parts if names - group.built)


@dataclass(frozen=True, slots=True)
class Mutation:
    """Unfinished mutation of the table."""

    mutation_id: str
    is_ours: bool
    """True if it builds rollups."""
    failure: str
    """Reason of its latest failure; empty if there is none."""
    error_name: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of building rollups, for one row of a sample."""

    seconds: float
    bytes: float


def read_state(
    select: Callable[[str, Mapping[str, object]], Result], table: TableName
) -> RollupState:
    """Return the rollups of a table and the parts that have them."""
    name = {"database": table.database, "table": table.table}
    found = select(f"SELECT name FROM system.projections WHERE {_OF_TABLE}", name)
    parts = select(_PARTS, name).rows
    return RollupState(
        frozenset(name for (name,) in found.rows if rollups.label_of(name) is not None),
        tuple(
            PartGroup(partition, frozenset(built), rows, size)
            for partition, built, rows, size in parts
        ),
    )


class RollupTable:
    """Rollups of the table of a connection. All methods block; they raise NeedsOperator with advice."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        name = clickhouse.table
        self._name = {"database": name.database, "table": name.table}

    def state(self) -> RollupState:
        """Return the rollups of the table and the parts that have them."""
        return read_state(self._run, self._clickhouse.table)

    def require_rights(self) -> None:
        """Raise NeedsOperator if the user lacks a right to add, build or drop rollups."""
        table = self._clickhouse.table
        missing = [
            right
            for right in _RIGHTS
            if not self._run(f"CHECK GRANT {right} ON {table}").rows[0][0]
        ]
        if missing:
            self._clickhouse.check_profile()
            raise NeedsOperator(
                f"the ClickHouse user lacks {', '.join(missing)} on {table}: GRANT ALTER PROJECTION, "
                f"ALTER SETTINGS ON {table} TO the user, or use one that has them"
            )

    def add(self, wanted: Sequence[Rollup]) -> None:
        """Add the rollups and the settings they need: rows inserted from now on are in them."""
        if wanted:
            self.change_settings()
        for rollup in wanted:
            self._run(rollups.add(self._clickhouse.table, rollup))

    def change_settings(self) -> None:
        """Set what a table with rollups needs; on this replica only, if the table is replicated."""
        self._run(rollups.alter_settings(self._clickhouse.table))

    def drop(self, projections: Sequence[str]) -> None:
        for projection in projections:
            self._run(rollups.drop(self._clickhouse.table, _word(projection)))

    def materialize(self, wanted: Sequence[Rollup], partition_id: str) -> None:
        """Start the mutation that builds the rollups for the partition's parts; does not wait for it."""
        self._run(
            rollups.materialize(
                self._clickhouse.table, [r.name for r in wanted], _word(partition_id)
            ),
            # clickhouse-local and some profiles wait for mutations by default.
            settings={"mutations_sync": 0},
        )

    def unfinished(self) -> list[Mutation]:
        """Return the unfinished mutations, also those of an earlier run, in their order."""
        found = self._run(
            f"SELECT mutation_id, max({_BUILDS}), max(latest_fail_reason), "
            f"max(latest_fail_error_code_name) FROM system.mutations WHERE {_OF_TABLE} "
            "AND NOT is_done GROUP BY mutation_id, create_time ORDER BY create_time, mutation_id",
            {"names": [rollup.name for rollup in rollups.ROLLUPS]},
        )
        return [
            Mutation(mutation, bool(is_ours), failure, error)
            for mutation, is_ours, failure, error in found.rows
        ]

    def require_room(self, wanted: Sequence[Rollup], partition_id: str = "") -> None:
        """Raise NeedsOperator if no part that lacks a rollup can be built for lack of disk.

        ClickHouse postpones such a mutation for ever, without a failure. Running merges and mutations
        have reserved disk that they will free. Does nothing if the user cannot read the system tables.
        """
        names = [rollup.name for rollup in wanted]
        try:
            found = self._run(_ROOM, {"names": names, "partition": partition_id}).rows
        except (StatementRejected, NeedsOperator):
            return
        part_bytes, free_bytes, merges = (int(value or 0) for value in found[0])
        needed = part_bytes * _ROOM_RATIO
        if needed > free_bytes and not merges:
            raise NeedsOperator(
                f"ClickHouse cannot build the rollups: the smallest part that lacks one needs "
                f"{needed / (1 << 20):,.0f} MiB of disk, and {free_bytes / (1 << 20):,.0f} MiB are "
                "free; free disk, then repeat the command"
            )

    def kill(self, mutation: Mutation) -> None:
        """Cancel the mutation; the parts that it has finished keep their rollups."""
        self._run(
            f"KILL MUTATION WHERE {_OF_TABLE} AND mutation_id = {{mutation:String}}",
            {"mutation": mutation.mutation_id},
        )

    def sample_cost(self, wanted: Sequence[Rollup], partition_id: str) -> Cost | None:
        """Build the rollups for a sample of the partition's latest hour in a temporary table.

        Return None if there are no rows, or if the server does not allow such a table.
        """
        sample = f"octane_rollup_sample_{secrets.token_hex(4)}"
        names = ", ".join(schema.COLUMN_NAMES)
        columns = ", ".join(f"{column.name} {column.type}" for column in schema.COLUMNS)
        partition = {"partition": partition_id, "rows": SAMPLE_ROWS}
        latest = (
            "timestamp >= toDateTime((SELECT max(max_time) FROM system.parts WHERE active "
            f"AND {_OF_TABLE} AND partition_id = {{partition:String}})) - 3600"
        )
        took = []
        size = rows = 0
        try:
            for projections in ("", *(f", PROJECTION {r.name} ({r.select})" for r in wanted)):
                self._run(
                    f"CREATE TEMPORARY TABLE {sample} ({columns}{projections}) ENGINE = MergeTree "
                    f"ORDER BY ({schema.SORTING_KEY})"
                )
                began = time.monotonic()
                self._run(
                    f"INSERT INTO {sample} ({names}) SELECT {names} FROM {self._clickhouse.table} "
                    f"WHERE _partition_id = {{partition:String}} AND {latest} LIMIT {{rows:UInt64}}",
                    partition,
                )
                took.append(time.monotonic() - began)
                if projections:
                    size += self._sample_bytes(projections.split()[2])
                rows = self._run(f"SELECT count() FROM {sample}").rows[0][0]
                self._run(f"DROP TABLE {sample}")
        except (StatementRejected, NeedsOperator):
            return None
        if not rows:
            return None
        return Cost(sum(max(0.0, seconds - took[0]) for seconds in took[1:]) / rows, size / rows)

    def _sample_bytes(self, projection: str) -> int:
        found = self._run(
            "SELECT sum(bytes_on_disk) FROM system.projection_parts "
            "WHERE active AND startsWith(database, '_temporary') AND name = {name:String}",
            {"name": projection},
        )
        return int(found.rows[0][0])

    def _run(
        self,
        sql: str,
        values: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Result:
        try:
            return self._clickhouse.select(sql, {**self._name, **(values or {})}, settings=settings)
        except StatementRejected as error:
            advice = _advice(error.code)
            if advice is None:
                raise
            raise NeedsOperator(
                f"ClickHouse rejected a statement: {str(error).rstrip('. ')}; {advice}"
            ) from error


def mutation_advice(error_name: str) -> str:
    """Return what to do about a failed mutation, by the name of its error."""
    if error_name == "NOT_ENOUGH_SPACE":
        return OPERATOR_ERRORS[_NO_SPACE]
    return "see the server's log"


def _advice(code: int) -> str | None:
    if code == _DENIED:
        return (
            "GRANT ALTER PROJECTION, ALTER SETTINGS on the table, and SELECT ON system.parts, "
            "system.projections, system.projection_parts, system.mutations"
        )
    if code in {UNKNOWN_TABLE, _UNKNOWN_IDENTIFIER, _NO_SETTING}:
        return (
            f"rollups need ClickHouse {_MINIMUM_VERSION} or later: use --no-rollups on older ones"
        )
    return OPERATOR_ERRORS.get(code)


def _word(name: str) -> str:
    if not _WORD.match(name):
        raise NeedsOperator(f"{name!r} cannot be the name of a rollup or of a month's partition")
    return name
