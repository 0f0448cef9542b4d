"""Commands that end with the thread that started them, even when that was killed."""

import os
import sys
from collections.abc import Sequence

# Runs before the command, in its process. (subprocess's preexec_fn could do it too, but is unsafe once
# there are threads.)
_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def leashed(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command`, whose first word is a path, in a leash."""
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
