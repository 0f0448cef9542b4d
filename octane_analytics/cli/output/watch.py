"""Option `--watch`, the same in every command that has it, on a terminal, in a pipe and in a file."""

import sys
from collections.abc import Callable

import click

from octane_analytics.runtime.stop_signal import StopSignal

_SECONDS = 2.0
_CLEAR = "\x1b[H\x1b[2J"

watch_option = click.option(
    "--watch",
    type=click.FloatRange(0.1, 3600.0),
    is_flag=False,
    flag_value=_SECONDS,
    metavar="[SECONDS]",
    help=f"Repeat at this interval in seconds ({_SECONDS:g} without a value) until Ctrl-C, which exits "
    "with 0.  [default: print once]",
)


def show(render: Callable[[], str], seconds: float | None, stop: StopSignal) -> None:
    """Print the text that `render` returns, once or every `seconds` until a signal.

    A terminal is cleared each time; elsewhere the outputs follow each other.
    """
    while True:
        text = render()
        click.echo(f"{_CLEAR}{text}" if seconds and sys.stdout.isatty() else text)
        if seconds is None or stop.wait(seconds):
            return
