"""Main program of the embedded ClickHouse process: `python -m ... DIRECTORY PARENT_PID`.

Expects `config.xml` in DIRECTORY and serves until standard input closes. The process ends with
PARENT_PID, unless that is 0. Ports, users and readiness are left to the module `clickhouse`.
"""

import ctypes
import importlib
import importlib.util
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_RTLD_DEEPBIND = 0x8

# The last statement waits for a line on standard input that never arrives, which keeps the process and
# its listeners up until the parent closes the pipe or dies.
_SERVE = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT * FROM file('/dev/stdin', 'LineAsString', 'line String') FORMAT Null"
)


def die_with(parent_pid: int) -> None:
    """Have the kernel send SIGKILL when the parent ends; exit at once if it has already ended.

    Needed in addition to standard input: a stopped process does not notice that its input closed, and
    a fork of the parent may hold a copy of the pipe's other end.
    """
    if not parent_pid or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit(1)


def load_engine() -> Any:
    """Return the extension module `chdb._chdb` without running `chdb/__init__.py`.

    Importing the package opens a connection to a temporary server and closes it again, after which
    parts of ClickHouse (its Kafka table engine among them) assume that the process is shutting down. An
    empty module with the right `__path__` lets the extension be imported without that.
    """
    spec = importlib.util.find_spec("chdb")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("chdb-core is not installed: pip install 'octane-analytics[embedded]'")
    package = types.ModuleType("chdb")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["chdb"] = package
    flags = sys.getdlopenflags()
    if sys.platform == "linux":
        # As chdb/__init__.py does: the extension must find its own allocator before libstdc++'s.
        sys.setdlopenflags(flags | _RTLD_DEEPBIND)
    try:
        return importlib.import_module("chdb._chdb")
    finally:
        sys.setdlopenflags(flags)


def main() -> None:
    """Serve until standard input closes. Exit non-zero with the reason on stderr if it cannot start."""
    directory, parent_pid = Path(sys.argv[1]), int(sys.argv[2])
    die_with(parent_pid)
    engine = load_engine()
    # clickhouse-local reads config.xml from the working directory only.
    os.chdir(directory)
    # `_chdb.query` runs the program clickhouse-local and can listen; `connect` cannot.
    engine.query(_SERVE, "CSV", path=str(directory / "data"))


if __name__ == "__main__":
    main()
