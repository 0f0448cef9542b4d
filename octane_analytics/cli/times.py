"""Moments as these commands print them."""

from datetime import UTC, datetime


def utc(milliseconds: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
