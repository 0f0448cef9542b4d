"""Command on a pseudo-terminal of a given width, with typed answers."""

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tests.support.command import COMMAND, environment

CTRL_C = "\x03"
_NONE: Mapping[str, str] = MappingProxyType({})
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Shown:
    """Output of a command in a terminal, without styles, and its exit code."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return _ESCAPE.sub("", self.raw).replace("\r\n", "\n").splitlines()


def on_terminal(
    *arguments: str,
    columns: int = 80,
    answers: Sequence[tuple[str, str]] = (),
    settings: Mapping[str, str] = _NONE,
    command: Sequence[str] = (COMMAND,),
    timeout_seconds: float = 60.0,
) -> Shown:
    """Run the command to its end; each of `answers` is a text to wait for and the keys to type then."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = environment(settings) | {"TERM": "xterm"}
    for name in ("COLUMNS", "LINES"):
        environ.pop(name, None)
    process = subprocess.Popen(
        [*command, *arguments],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    left, raw, seen = list(answers), "", 0
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            assert time.monotonic() < deadline, f"still running, and has shown: {raw}"
            if not select.select([ours], [], [], 0.2)[0]:
                # No more output: the command waits. An earlier key press could precede its read.
                if left and left[0][0] in raw[seen:]:
                    seen = len(raw)
                    os.write(ours, left.pop(0)[1].encode())
                continue
            part = _read(ours)
            if not part:
                break
            raw += part
        return Shown(process.wait(10.0), raw)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


def _read(descriptor: int) -> str:
    """Return the next output; empty at the end, which Linux reports as EIO."""
    with contextlib.suppress(OSError):
        return os.read(descriptor, 65536).decode(errors="replace")
    return ""


def _take_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


PYTHON = (sys.executable, "-c")
