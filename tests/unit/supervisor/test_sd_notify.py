"""Notifications to systemd, over a real datagram socket."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.supervisor.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Return the value of NOTIFY_SOCKET and the listening socket."""
    name = f"@octane-{uuid.uuid4().hex}" if request.param == "abstract" else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(0)
        yield name, listening


def test_each_message_is_a_datagram(systemd: tuple[str, socket.socket]) -> None:
    name, listening = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name}, os.getpid())
    notifier.ready()
    notifier.reloading(12.3456785)
    notifier.status("2 of 2 workers up")
    notifier.status("2 of 2 workers up")
    notifier.status("1 of 2 workers up")
    notifier.ping_watchdog()
    notifier.stopping()
    assert [listening.recv(1000) for _ in range(6)] == [
        b"READY=1",
        b"RELOADING=1\nMONOTONIC_USEC=12345678",
        b"STATUS=2 of 2 workers up",
        b"STATUS=1 of 2 workers up",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]
    with pytest.raises(BlockingIOError):
        listening.recv(1000)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_notifier_without_systemd_is_disabled(environ: dict[str, str]) -> None:
    notifier = Notifier(environ, 1)
    assert not notifier.is_enabled
    notifier.ready()


def test_missing_listener_is_ignored(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1).ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_applies_to_the_named_process(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@x"} | environ, 7).watchdog_seconds == seconds
