"""What the fakes record, in order."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One line of the journal."""

    what: str
    detail: object


class InsertEntry(NamedTuple):
    token: str | None
    rows: int
