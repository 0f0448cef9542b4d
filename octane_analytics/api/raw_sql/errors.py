"""Errors of statements that are not allowed."""

from octane_analytics.errors import QueryError


def forbidden(message: str) -> QueryError:
    """Return the error (403) of a statement that the rules do not allow."""
    return QueryError(403, "forbidden_statement", message)
