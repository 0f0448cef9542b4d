"""Process that runs a replay, by the entries of its journal."""

import json
import os
import socket

import pytest

from octane_analytics.cli.replay.owners import identity_of, process_identity, running_owner
from octane_analytics.replay.interfaces import JournalEntry

ALIVE, OWN = identity_of(os.getppid()), process_identity()
DEAD = json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "ticks": -1})
ELSEWHERE = json.dumps({"host": "elsewhere.invalid", "pid": 1, "ticks": 1})


@pytest.mark.parametrize(
    ("bodies", "age_seconds", "is_running"),
    [
        ([], 0.0, False),
        ([ALIVE], 500.0, True),
        ([DEAD], 0.0, False),
        ([ALIVE, "stopped"], 0.0, False),
        ([ALIVE, "stopped", OWN], 0.0, False),
        ([ALIVE, DEAD], 0.0, True),  # the dead one was refused
        ([ALIVE, OWN], 0.0, True),
        ([DEAD, OWN, ALIVE], 0.0, True),
        ([DEAD, OWN], 0.0, False),
        ([ELSEWHERE], 119.0, True),
        ([ELSEWHERE], 121.0, False),
        ([ELSEWHERE, OWN], 121.0, False),
    ],
)
def test_running_owner_is_another_living_process(
    bodies: list[str], age_seconds: float, is_running: bool
) -> None:
    entries = [
        JournalEntry(0.0, "stopped", "")
        if body == "stopped"
        else JournalEntry(0.0 if body == OWN else age_seconds, "owner", body)
        for body in bodies
    ]
    assert (running_owner(entries) is not None) == is_running
