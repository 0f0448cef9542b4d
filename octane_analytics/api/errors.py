"""HTTP status and body of each error.

The body is `{"error": {"code", "message", ...}}`. Details that only the operator can act on are
logged and not returned to clients. Does not depend on routes.
"""

import re

from octane_analytics.errors import NeedsOperator, QueryError, StatementRejected, Unavailable

RETRY_AFTER_SECONDS = 2

_UNAVAILABLE = "ClickHouse is unavailable: try again later"
_OVERLOADED = "ClickHouse lacks memory, threads, connections or disk space: try again later"

_LIMITS = {
    128: (422, "result_too_large"),  # TOO_LARGE_ARRAY_SIZE: a constant array of more than a million
    158: (422, "too_many_rows"),  # TOO_MANY_ROWS
    159: (504, "timeout"),  # TIMEOUT_EXCEEDED
    160: (504, "timeout"),  # TOO_SLOW
    241: (422, "memory_limit"),  # MEMORY_LIMIT_EXCEEDED
    307: (422, "too_many_bytes"),  # TOO_MANY_BYTES
    396: (422, "result_too_large"),  # TOO_MANY_ROWS_OR_BYTES
}
_REPORT_TEXTS = {
    "timeout": "the report takes longer than API_QUERY_TIMEOUT",
    "memory_limit": "the report needs more memory than API_MAX_MEMORY_BYTES",
    "result_too_large": "the answer is larger than API_MAX_RESULT_BYTES",
    "too_many_rows": "the report reads more rows than the user's profile in ClickHouse allows",
    "too_many_bytes": "the report reads more bytes than the user's profile in ClickHouse allows",
}
"""Messages for clients. ClickHouse's own hold the rows of the range, of which a token may see a part."""
_FORBIDDEN = frozenset(
    {
        164,  # READONLY
        291,  # DATABASE_ACCESS_DENIED
        446,  # FUNCTION_NOT_ALLOWED
        452,  # SETTING_CONSTRAINT_VIOLATION
        497,  # ACCESS_DENIED
    }
)
_BUSY = frozenset(
    {
        173,  # CANNOT_ALLOCATE_MEMORY
        201,  # QUOTA_EXCEEDED
        203,  # NO_FREE_CONNECTION
        236,  # ABORTED
        243,  # NOT_ENOUGH_SPACE, for the data that a query spills
        394,  # QUERY_WAS_CANCELLED
        439,  # CANNOT_SCHEDULE_TASK
        473,  # DEADLOCK_AVOIDED
    }
)
_HINTS = {
    # SAMPLING_NOT_SUPPORTED
    141: "it has no sampling key: a tenth of the users is WHERE cityHash64(user_id) % 10 = 0",
}
_QUERY_MEMORY_LIMIT = re.compile(r"(?:Query m|M)emory limit (?:\(for query\) )?exceeded")
"""Beginning of MEMORY_LIMIT_EXCEEDED (26.9 and earlier) for the query's own limit, as opposed to the
user's or the server's. The rest may quote the statement and is not examined."""
_MISSING = frozenset({60, 81})  # UNKNOWN_TABLE, UNKNOWN_DATABASE


def from_client(error: StatementRejected) -> QueryError:
    """Return the error that a client receives for its own SQL that ClickHouse rejected."""
    known = {"clickhouse_code": error.code, "clickhouse_error": error.name}
    if _is_server_wide(error):
        return QueryError(503, "overloaded", _OVERLOADED)
    status, code = _LIMITS.get(error.code, (400, "sql_error"))
    if error.code in _FORBIDDEN:
        status, code = 403, "forbidden_statement"
    message = str(error)
    if error.code in _HINTS:
        message = f"{message.rstrip('. ')}; {_HINTS[error.code]}"
    return QueryError(status, code, message, **known)


def from_report(error: StatementRejected) -> QueryError:
    """Return the error that a client receives for SQL of this service that ClickHouse rejected."""
    if error.code in _LIMITS and not _is_server_wide(error):
        status, code = _LIMITS[error.code]
        text = _REPORT_TEXTS[code]
        return QueryError(status, code, f"{text}: ask for a shorter range or for one app_id")
    if error.code in _MISSING:
        return QueryError(503, "not_ready", "the table does not exist yet")
    if error.code in _FORBIDDEN or _is_server_wide(error):
        return QueryError(503, "unavailable", _UNAVAILABLE)
    return QueryError(500, "internal", "the report failed: see the service's log")


def unavailable(error: Unavailable) -> QueryError:
    """Return the error that a client receives while ClickHouse is unavailable."""
    code = "misconfigured" if isinstance(error, NeedsOperator) else "unavailable"
    return QueryError(503, code, _UNAVAILABLE)


def error_body(error: QueryError, request_id: str) -> dict[str, object]:
    """Return the response body, to be encoded as JSON."""
    return {
        "error": {
            "code": error.code,
            "message": str(error),
            **error.details,
            "request_id": request_id,
        }
    }


def _is_server_wide(error: StatementRejected) -> bool:
    return error.code in _BUSY or (error.code == 241 and not _QUERY_MEMORY_LIMIT.match(str(error)))
