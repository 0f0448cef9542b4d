"""Sources of events to send: generated events, or the lines of a file or of standard input."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click

from octane_analytics.cli.produce.line_reader import Line, read_lines
from octane_analytics.cli.produce.sender import SendStats
from octane_analytics.runtime import rfc3339
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.sandbox.generator import generate
from octane_analytics.sandbox.history import generate_history

STANDARD_INPUT = "-"

seed_option = click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Seed of generated events; the same seed gives the same events.",
)
rate_option = click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="EVENTS/S",
    help="Send evenly at this number of events per second.  [default: no limit]",
)


def parse_time(text: str) -> datetime:
    """Parse RFC 3339, in UTC without an offset; raise click.BadParameter for other text."""
    try:
        return rfc3339.parse_as_utc(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a time: write RFC 3339, for example 2026-02-02T12:00:00Z"
        ) from error


@dataclass(frozen=True, slots=True)
class Input:
    """Lines to send, and their number or size for progress."""

    lines: Iterable[Line]
    total: int | None
    """Number of lines or bytes; None if it is unknown."""
    is_in_bytes: bool

    def done(self, stats: SendStats) -> int:
        """Return how much of `total` has been sent, in its unit."""
        return stats.sent_bytes if self.is_in_bytes else stats.sent


def generated(
    count: int, *, seed: int, until: datetime | None = None, days: int | None = None
) -> Input:
    """Return generated events before `until` (default: now): of so many days, otherwise of six hours."""
    end = until or datetime.now(UTC)
    if days is None:
        events = generate(count, seed=seed, until=end)
    else:
        events = generate_history(count, seed=seed, until=end, span=timedelta(days=days))
    return Input(events, count, is_in_bytes=False)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Yield a descriptor of the file, or of standard input for `-`.

    Blocks on a FIFO without a writer. Raises click.UsageError if the file cannot be opened.
    """
    if path == STANDARD_INPUT:
        yield 0
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(descriptor: int, stop: StopSignal) -> Input:
    """Return the lines from the current position of the descriptor."""
    status = os.fstat(descriptor)
    total = None
    if stat.S_ISREG(status.st_mode):
        total = status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
    return Input(read_lines(descriptor, stop.wait_readable), total, is_in_bytes=True)
