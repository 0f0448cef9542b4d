# ruff: noqa: S608  # only table names from the settings and column names of the schema are interpolated
"""Months of a rebuild: counts that decide about each, its build, and the replacement, on one server."""

from collections.abc import Mapping

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.replay_staging import (
    BEFORE,
    BETWEEN,
    IN_SLICE,
    ReplayStaging,
    partition_array,
)
from octane_analytics.clickhouse.replay_tables import ROW_HASH
from octane_analytics.replay.rebuild import MonthFacts

IN_MONTH = f"{schema.PARTITION_KEY} = {{month:UInt32}}"
_NAMES = ", ".join(schema.COLUMN_NAMES)


class Months:
    """Builds beside the target, on the server of the staging tables; implements
    `replay.rebuild.MonthBuilder`."""

    def __init__(self, staging: ReplayStaging) -> None:
        self._staging = staging

    def month_facts(self, month: int, limits: Mapping[int, int]) -> MonthFacts:
        staging = self._staging
        values = {"month": month, "limits": partition_array(limits)}
        staged = f"{IN_MONTH} AND reason = '' AND {staging.alive}"
        in_log, outside = staging.query(
            "SELECT count(), countIf(NOT is_wanted) FROM ("
            f"SELECT any(is_wanted) AS is_wanted FROM {staging.table('log')} "
            f"WHERE {staged} AND {BEFORE} GROUP BY partition, offset)",
            values,
        ).rows[0]
        # Rows that only another replica has would be replaced too.
        staging.sync()
        # By rows of the target; many hashes of the log's month spill to disk.
        unknown = staging.query(
            "SELECT count() FROM ("
            f"SELECT row, max(kafka) AS known FROM ("
            f"SELECT row, 1 AS kafka FROM {staging.table('log')} WHERE {IN_MONTH} AND reason = '' "
            f"UNION ALL SELECT {ROW_HASH} AS row, 0 AS kafka FROM {staging.target_rows} "
            f"WHERE {IN_MONTH} AND {staging.alive}"
            ") GROUP BY row) WHERE NOT known",
            values,
        ).rows[0][0]
        in_target = staging.query(
            f"SELECT count() FROM {staging.target_rows} WHERE {IN_MONTH}", values
        ).rows[0][0]
        return MonthFacts(in_log, outside, unknown, in_target)

    def build(self, month: int, limits: Mapping[int, int]) -> int:
        staging, build = self._staging, self._staging.table("build")
        # From scratch: the target's rollups may have changed since an interrupted build.
        staging.execute(f"DROP TABLE IF EXISTS {build}")
        staging.execute(schema.create_table_like(build, staging.target))
        values = {"month": month, "limits": partition_array(limits)}
        for part in staging.slices():
            staging.query(
                f"INSERT INTO {build} ({_NAMES}) SELECT {_NAMES} FROM {staging.table('log')} "
                f"WHERE {IN_SLICE} AND {IN_MONTH} AND {BEFORE} AND reason = '' AND {staging.alive} "
                "LIMIT 1 BY partition, offset",
                {**values, "first": part.first, "last": part.end - 1},
            )
        return int(staging.query(f"SELECT count() FROM {build}").rows[0][0])

    def count_between(self, month: int, limits: Mapping[int, int], ends: Mapping[int, int]) -> int:
        found = self._staging.query(
            f"SELECT count() FROM {self._staging.table('log')} "
            f"WHERE {IN_MONTH} AND reason = '' AND {BETWEEN}",
            {"month": month, "limits": partition_array(limits), "ends": partition_array(ends)},
        )
        return int(found.rows[0][0])

    def replace(self, month: int) -> None:
        staging = self._staging
        staging.execute(replace_month(staging, month))

    def mark_month_undecided(
        self, number: int, month: int, limits: Mapping[int, int], ends: Mapping[int, int]
    ) -> None:
        self._staging.query(
            f"INSERT INTO {self._staging.table('undecided')} SELECT DISTINCT {{pass:UInt32}}, row "
            f"FROM {self._staging.table('log')} WHERE {IN_MONTH} AND reason = '' AND {BETWEEN}",
            {
                "pass": number,
                "month": month,
                "limits": partition_array(limits),
                "ends": partition_array(ends),
            },
        )


def replace_month(staging: ReplayStaging, month: int) -> str:
    """Return the statement that replaces the month of the target by the build on the same server."""
    return (
        f"ALTER TABLE {staging.target} REPLACE PARTITION {int(month)} FROM {staging.table('build')}"
    )
