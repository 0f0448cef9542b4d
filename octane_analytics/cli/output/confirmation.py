"""Asks before a command changes data: on a terminal only, and never twice."""

import signal
import sys

import click

from octane_analytics.errors import OctaneError


def has_terminal() -> bool:
    """Whether somebody can be asked on standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def require_terminal_or_yes(action: str, *, yes: bool) -> None:
    """Raises click.UsageError (exit code 2) where nobody can be asked and --yes is missing."""
    if not (yes or has_terminal()):
        raise click.UsageError(
            f"{action} changes data, and standard input is not a terminal: add --yes to run it without "
            "a question"
        )


def confirm(question: str, action: str, *, yes: bool) -> None:
    """Returns when the operator has agreed.

    Raises click.UsageError without a terminal, OctaneError (exit code 1) for "n", click.Abort (130) for
    Ctrl-C, also where a command handles SIGINT by itself.
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
