"""Confirmation before a command changes data, on a terminal only and at most once."""

import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from octane_analytics.errors import OctaneError

R = TypeVar("R")

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def dry_run_option(text: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return the decorator of `--dry-run`, which passes the argument `dry_run`."""
    return click.option("--dry-run", is_flag=True, help=text)


def has_terminal() -> bool:
    """Return whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def require_terminal_or_yes(action: str, *, yes: bool) -> None:
    """Raise click.UsageError (exit code 2) without a terminal and without --yes."""
    if not (yes or has_terminal()):
        raise click.UsageError(
            f"{action} changes data, and standard input is not a terminal: add --yes to run it without "
            "confirmation"
        )


def confirm(question: str, action: str, *, yes: bool) -> None:
    """Block until the operator confirms.

    Raises click.UsageError without a terminal, OctaneError (exit code 1) for "n", and click.Abort (130)
    for Ctrl-C, also in commands that handle SIGINT themselves.
    """
    require_terminal_or_yes(action, yes=yes)
    if yes:
        return
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        has_agreed = click.confirm(question, err=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    if not has_agreed:
        raise OctaneError(f"{action} declined: nothing was changed")
