"""Limits of a report and of a raw query, as ClickHouse settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from octane_analytics.clickhouse.connection import ALL_SHARDS

BLOCK_ROWS = 8_192
"""Rows of a block of raw SQL: the unit of work between two checks of the limits."""

_ESTIMATE_SECONDS = 5.0
"""Time that a report runs before ClickHouse estimates how long it will take."""


@dataclass(frozen=True, slots=True)
class ComplexityLimits:
    """Resources that one report may use in ClickHouse."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int

    def settings(self, comment: str) -> Mapping[str, object]:
        """Return the settings for `ClickHouse.select`; `comment` appears in system.query_log."""
        return {
            **_shared_settings(self),
            "log_comment": comment,
            # Refuses early: ClickHouse compares the share of the rows read until then with the limit.
            "max_estimated_execution_time": self.seconds,
            "timeout_before_checking_execution_speed": min(_ESTIMATE_SECONDS, self.seconds / 2),
            # A setting of the driver: a DateTime without a zone is returned in local time with `fold`
            # set, which converts to UTC exactly; the server's zone would not.
            "use_client_time_zone": True,
        }


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Resources that one raw query may use in ClickHouse and in this process."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int
    rows_read: int
    bytes_read: int
    threads: int
    reads_shards: bool = False
    """True if the table has several shards, all of which must answer, also to subqueries."""

    def settings(self) -> dict[str, object]:
        return {
            **_shared_settings(self),
            **(ALL_SHARDS if self.reads_shards else {}),
            "max_rows_to_read": self.rows_read,
            "max_bytes_to_read": self.bytes_read,
            "read_overflow_mode": "throw",
            "max_threads": self.threads,
            # ClickHouse checks the limits between blocks. indexOf over 20,000 values takes 4.4 s for a
            # block of its default of 65,409 rows, and 0.1 s for one of these.
            "max_block_size": BLOCK_ROWS,
            # The side of a join that is held in memory. The size of its product is bounded by the
            # limits of time and memory.
            "max_rows_in_join": self.rows_read,
            "max_bytes_in_join": self.memory_bytes,
            "join_overflow_mode": "throw",
            "allow_introspection_functions": 0,
            "allow_ddl": 0,
        }


def _shared_settings(limits: ComplexityLimits | QueryLimits) -> dict[str, object]:
    return {
        # 1 and not 2, which would allow url(), remote() and changes of settings.
        "readonly": 1,
        # One row more than allowed distinguishes a truncated result from a complete one.
        "limit": limits.result_rows + 1,
        "max_result_bytes": limits.result_bytes,
        "result_overflow_mode": "throw",
        "max_execution_time": limits.seconds,
        "timeout_overflow_mode": "throw",
        "max_memory_usage": limits.memory_bytes,
    }
