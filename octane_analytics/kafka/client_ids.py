"""Client ids of the workers, which carry the version of the delivery protocol.

librdkafka lets a member publish nothing of its own in the group's protocol; the coordinator reports the
client ids of all members.
"""

import re

PROTOCOL_VERSION = 2
"""Version of the delivery protocol: changes when workers of two versions would insert rows twice."""

_WORKER = re.compile(r"octane-analytics(?:-v([0-9]{1,6}))?(?:-[0-9]{1,6})?", re.ASCII)


def worker_client_id(slot: int | None) -> str:
    """Return the client id of a worker; `slot` is None for a dynamic member."""
    name = f"octane-analytics-v{PROTOCOL_VERSION}"
    return name if slot is None else f"{name}-{slot}"


def version_of(client_id: str) -> int | None:
    """Return the protocol version of a member; None if it is not a worker of this service. Version 1 put
    none into its client id."""
    match = _WORKER.fullmatch(client_id)
    return None if match is None else int(match[1] or 1)
