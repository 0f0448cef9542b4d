"""Tells systemd how the service does: sd_notify(3)'s protocol, datagrams to one socket.

Where no NOTIFY_SOCKET is given every call does nothing. A datagram that cannot be sent is dropped:
what runs must not fail because nobody listens.
"""

import contextlib
import os
import socket
from collections.abc import Mapping

_SEND_SECONDS = 0.5


class Notifier:
    """Touches nothing until the first call. `pid` is this process's, which a watchdog may be for."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_pid = environ.get("WATCHDOG_PID", "")
        self._watchdog_usec = environ.get("WATCHDOG_USEC", "")
        self._pid = pid
        self._status: str | None = None

    @property
    def is_heard(self) -> bool:
        return self._address is not None

    @property
    def watchdog_seconds(self) -> float | None:
        """How often at least systemd wants to hear `alive`; None: it does not wait for it."""
        is_ours = self._watchdog_pid in ("", str(self._pid))
        if self._address is None or not is_ours or not self._watchdog_usec.isdecimal():
            return None
        return int(self._watchdog_usec) / 1e6 or None

    def ready(self) -> None:
        """Started, or done with reloading."""
        self._send("READY=1")

    def reloading(self, now: float) -> None:
        """`now` is of the monotonic clock: systemd tells by it which reload this is."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.settimeout(_SEND_SECONDS)
            sender.sendto(message.encode(), self._address)


def _address(given: str) -> bytes | None:
    """A path, or a name in the abstract namespace, which is written with an @."""
    if given.startswith("@"):
        return b"\0" + os.fsencode(given[1:])
    return os.fsencode(given) if given.startswith("/") else None
