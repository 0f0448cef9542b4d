"""Client of systemd's notification protocol, sd_notify(3): datagrams to one socket.

Without NOTIFY_SOCKET every call does nothing. A datagram that cannot be sent is dropped: the service
must not fail because of its notifications.
"""

import contextlib
import os
import socket
from collections.abc import Mapping

_SEND_SECONDS = 0.5


class Notifier:
    """Sends notifications. Opens no socket before the first call.

    `pid` is this process's; WATCHDOG_PID may name another one.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_pid = environ.get("WATCHDOG_PID", "")
        self._watchdog_usec = environ.get("WATCHDOG_USEC", "")
        self._pid = pid
        self._status: str | None = None

    @property
    def is_enabled(self) -> bool:
        return self._address is not None

    @property
    def watchdog_seconds(self) -> float | None:
        """Longest pause between watchdog pings that systemd accepts; None without a watchdog."""
        is_ours = self._watchdog_pid in ("", str(self._pid))
        if self._address is None or not is_ours or not self._watchdog_usec.isdecimal():
            return None
        return int(self._watchdog_usec) / 1e6 or None

    def ready(self) -> None:
        """Report that the start or a reload has finished."""
        self._send("READY=1")

    def reloading(self, now: float) -> None:
        """Report a reload. `now`, monotonic seconds, identifies the reload to systemd."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def ping_watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Send one line for `systemctl status`, if it differs from the last one."""
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


def _socket_address(value: str) -> bytes | None:
    """Return a path, or a name in the abstract namespace, which is written with a leading @."""
    if value.startswith("@"):
        return b"\0" + os.fsencode(value[1:])
    return os.fsencode(value) if value.startswith("/") else None
