"""Heartbeat in a thread of its own."""

import threading

import pytest

from octane_analytics.cli.replay.heartbeat import heartbeat
from octane_analytics.errors import Unavailable

SOON = 0.001


@pytest.mark.parametrize("error", [None, Unavailable("away")], ids=["healthy", "outage"])
def test_heartbeat_repeats_while_entered(error: Exception | None) -> None:
    beats, enough = [], threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) >= 3:
            enough.set()
        if error is not None:
            raise error

    with heartbeat(beat, SOON):
        assert enough.wait(30.0)
    count = len(beats)
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
    assert len(beats) == count, "a beat after the end"


def test_heartbeat_left_before_first_beat_ends_immediately() -> None:
    beats: list[int] = []
    with heartbeat(lambda: beats.append(1), 3600.0):
        pass
    assert beats == []
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
