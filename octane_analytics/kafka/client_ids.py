"""Client ids of the workers, which carry the version of the delivery protocol and the table.

librdkafka lets a member publish nothing of its own in the group's protocol; the coordinator reports the
client ids of all members.
"""

import re
from typing import NamedTuple

PROTOCOL_VERSION = 2
"""Version of the delivery protocol: changes when workers of two versions would insert rows twice."""

HASH_DIGITS = 6
_MARK = rf"-t([0-9a-f]{{{HASH_DIGITS}}})([0-9a-f]{{{HASH_DIGITS}}})([0-9a-f]{{{HASH_DIGITS}}})?"
_WORKER = re.compile(
    rf"octane-analytics(?:-v([0-9]{{1,6}}))?(?:-[0-9]{{1,6}})?(?:{_MARK})?", re.ASCII
)


class TableMark(NamedTuple):
    """Topic and table of a worker, as hashes."""

    topic: str
    table: str
    """Names of database and table."""
    server: str = ""
    """Identity of the table's server, or of all replicas; empty if not known."""

    def is_other_table(self, other: "TableMark") -> bool:
        """Return True if both take records of one topic, and certainly insert into two tables."""
        if self.topic != other.topic:
            return False
        is_other_server = bool(self.server and other.server) and self.server != other.server
        return self.table != other.table or is_other_server


def worker_client_id(slot: int | None, mark: TableMark | None = None) -> str:
    """Return the client id of a worker; `slot` is None for a dynamic member."""
    name = f"octane-analytics-v{PROTOCOL_VERSION}"
    numbered = name if slot is None else f"{name}-{slot}"
    return numbered if mark is None else f"{numbered}-t{''.join(mark)}"


def version_of(client_id: str) -> int | None:
    """Return the protocol version of a member; None if it is not a worker of this service. Version 1 put
    none into its client id."""
    match = _WORKER.fullmatch(client_id)
    return None if match is None else int(match[1] or 1)


def mark_of(client_id: str) -> TableMark | None:
    """Return the mark of a worker's table; None if its release states none."""
    match = _WORKER.fullmatch(client_id)
    if match is None or match[2] is None:
        return None
    return TableMark(match[2], match[3], match[4] or "")
