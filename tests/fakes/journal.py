"""Journal of the calls of fakes, in order."""

from typing import NamedTuple


class Entry(NamedTuple):
    """Entry of the journal."""

    what: str
    detail: object


class InsertEntry(NamedTuple):
    token: str | None
    rows: int
