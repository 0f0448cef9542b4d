"""Process that runs a replay: its identity, and whether it is alive, by the journal."""

import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from octane_analytics.clickhouse.replay_journal import OWNER
from octane_analytics.clickhouse.replay_survey import JournalCopy
from octane_analytics.replay.interfaces import JournalEntry
from octane_analytics.runtime.process_start import start_ticks

STOPPED = "stopped"
"""Kind of journal entries: a process left the replay, which can be resumed."""
_ALIVE_SECONDS = 120.0
"""Age of the last journal entry from which a replay on another machine counts as dead."""


def process_identity() -> str:
    """Return JSON that identifies this process, also after its PID has been reused."""
    return identity_of(os.getpid())


def identity_of(pid: int) -> str:
    """Return what `process_identity` returns in that process."""
    return json.dumps({"host": socket.gethostname(), "pid": pid, "ticks": start_ticks(pid)})


def running_process(copies: Iterable[JournalCopy]) -> str | None:
    """Return a description of another process that runs the replay by any copy of its journal; None if
    there is none."""
    return next(filter(None, map(_owner_of, copies)), None)


def is_known_here(copies: Iterable[JournalCopy]) -> bool:
    """Return whether this machine alone shows if the replay runs: all its processes ran on it."""
    owners = [_parsed(body) for copy in copies for body in _owners(copy)]
    return bool(owners) and all(
        owner is not None and owner["host"] == socket.gethostname() for owner in owners
    )


def _owner_of(copy: JournalCopy) -> str | None:
    if any(entry.kind == OWNER for entry in copy.entries) or copy.created is None:
        return running_owner(copy.entries)
    # Another process is between the creation of the journal and its first entry, or died there.
    return running_owner([copy.created, *copy.entries])


def _owners(copy: JournalCopy) -> list[str]:
    created = [] if copy.created is None else [copy.created]
    return [entry.body for entry in [*created, *copy.entries] if entry.kind == OWNER]


def running_owner(entries: Sequence[JournalEntry]) -> str | None:
    """Return a description of another process that runs the replay; None if there is none.

    A process that was refused has left an entry after that of the running one.
    """
    own = process_identity()
    others = [entry for entry in entries if entry.body != own]
    if not others or others[-1].kind == STOPPED:
        return None
    is_recent = others[-1].age_seconds < _ALIVE_SECONDS
    for body in [entry.body for entry in others[::-1] if entry.kind == OWNER]:
        owner = _parsed(body)
        if owner is None:
            if is_recent:
                return "a process of another release"
        elif owner["host"] == socket.gethostname():
            if start_ticks(owner["pid"]) == owner["ticks"]:
                return f"process {owner['pid']} on {owner['host']}"
        elif is_recent:
            return f"process {owner['pid']} on {owner['host']}"
    return None


def _parsed(body: str) -> dict[str, Any] | None:
    """Return the fields of an owner; None for a text of another form."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    is_owner = isinstance(found, dict) and isinstance(found.get("pid"), int)
    return found if is_owner and {"host", "ticks"} <= found.keys() else None
