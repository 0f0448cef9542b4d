"""Command line of this run, for messages that print a command to run next."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

ARGUMENTS = "octane_analytics.arguments"
"""Key in a click context's `meta`: arguments of the whole command line."""
FILES = "octane_analytics.files"
"""Key in `meta`: path of the --env-file by variable."""
APPLIED = "octane_analytics.applied"
"""Key in `meta`: names of the variables of --env-file that the environment did not have."""
_VARIABLE = "OCTANE_COMMAND"
"""Variable with the path of the calling script, set by the scripts of bin/install."""


def program() -> list[str]:
    """Return the words that start this program: its name if it is on the PATH, otherwise its path."""
    path = Path(os.environ.get(_VARIABLE) or sys.argv[0]).absolute()
    if path.name == "__main__.py":
        return [sys.executable, "-m", "octane_analytics"]
    found = shutil.which(path.name)
    is_on_path = found is not None and path.exists() and Path(found).samefile(path)
    return [path.name if is_on_path else str(path)]


def root_words() -> list[str]:
    """Return the program and its --env-file options, which precede the command's name."""
    files = click.get_current_context().find_root().params.get("env_files", ())
    return [*program(), *(word for file in files for word in ("--env-file", str(file)))]


def command_line(*extra: str) -> str:
    """Return the command line of this run with the extra words at its end, quoted for a shell."""
    arguments: Sequence[str] = click.get_current_context().meta.get(ARGUMENTS, ())
    return shlex.join([*program(), *arguments, *extra])
