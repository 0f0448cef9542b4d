"""Limits of one raw query."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ComplexityLimits:
    """What one report may take of ClickHouse."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int

    def settings(self, comment: str) -> Mapping[str, object]:
        """For `ClickHouse.select`. `comment` is what system.query_log will show of the query.

        One row more than allowed is asked for, which tells a cut answer from a whole one.
        """
        return {
            # 1 and not 2, which would let url() and remote() through and settings be changed.
            "readonly": 1,
            "limit": self.result_rows + 1,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_execution_time": self.seconds,
            "timeout_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "log_comment": comment,
            # The driver's own: a DateTime without a zone comes in local time with `fold` set, which
            # can be turned into UTC exactly; the server's zone could not.
            "use_client_time_zone": True,
        }


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one raw query may take of ClickHouse and of this process."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int
    rows_read: int
    bytes_read: int
    threads: int

    def settings(self) -> dict[str, object]:
        """One row more than allowed is asked for, which tells a cut answer from a whole one."""
        return {
            # 1 and not 2, which would let url() and remote() through and settings be changed.
            "readonly": 1,
            "limit": self.result_rows + 1,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_execution_time": self.seconds,
            "timeout_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "max_rows_to_read": self.rows_read,
            "max_bytes_to_read": self.bytes_read,
            "read_overflow_mode": "throw",
            "max_threads": self.threads,
            # The side of a join that is held in memory; what it multiplies to, time and memory bound.
            "max_rows_in_join": self.rows_read,
            "max_bytes_in_join": self.memory_bytes,
            "join_overflow_mode": "throw",
            "allow_introspection_functions": 0,
            "allow_ddl": 0,
        }
