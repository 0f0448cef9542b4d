"""The command as it was typed, for messages that print a command to run next."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

ARGUMENTS = "octane_analytics.arguments"
"""Key in a click context's `meta`: the arguments of the whole command line."""
FILES = "octane_analytics.files"
"""Key in `meta`: for each variable in an --env-file, that file's path."""
APPLIED = "octane_analytics.applied"
"""Key in `meta`: the names of those variables that the environment lacked."""
_VARIABLE = "OCTANE_COMMAND"
"""Set by the scripts of bin/install: the path by which they were called."""


def program() -> list[str]:
    """The words that start this program here: its name where the PATH leads to it, else its path."""
    called = os.environ.get(_VARIABLE) or sys.argv[0]
    path = Path(called).absolute()
    if path.name == "__main__.py":
        return [sys.executable, "-m", "octane_analytics"]
    found = shutil.which(path.name)
    is_on_path = found is not None and path.exists() and Path(found).samefile(path)
    return [path.name if is_on_path else str(path)]


def root_words() -> list[str]:
    """The program with its own options, which stand before the command's name: --env-file."""
    files = click.get_current_context().find_root().params.get("env_files", ())
    return [*program(), *(word for file in files for word in ("--env-file", str(file)))]


def typed(*further: str) -> str:
    """The whole command line of this run with further words at its end, quoted for a shell."""
    given: Sequence[str] = click.get_current_context().meta.get(ARGUMENTS, ())
    return shlex.join([*program(), *given, *further])
