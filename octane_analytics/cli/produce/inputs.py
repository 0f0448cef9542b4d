"""What a command sends: made-up events, or the lines of a file or of standard input."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from octane_analytics.cli.produce.line_reader import Line, read_lines
from octane_analytics.cli.produce.sender import SendStats
from octane_analytics.runtime import rfc3339
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.sandbox.generator import generate

STANDARD_INPUT = "-"

seed_option = click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Of made-up events: the same seed makes the same events.",
)
rate_option = click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="EVENTS/S",
    help="Send evenly at this rate.  [default: as fast as possible]",
)


def moment(text: str) -> datetime:
    """RFC 3339; without an offset it is UTC. The type of an option."""
    try:
        return rfc3339.parse_as_utc(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no time: write for example 2026-02-02T12:00:00Z"
        ) from error


@dataclass(frozen=True, slots=True)
class Input:
    lines: Iterable[Line]
    total: int | None
    """Lines or bytes; None where nobody knows the end."""
    is_in_bytes: bool

    def done(self, tally: SendStats) -> int:
        """How much of `total` has been sent."""
        return tally.sent_bytes if self.is_in_bytes else tally.sent


def generated(count: int, *, seed: int, until: datetime | None = None) -> Input:
    """Events of the six hours up to `until`, or up to now."""
    events = generate(count, seed=seed, until=until or datetime.now(UTC))
    return Input(events, count, is_in_bytes=False)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the file, or of standard input for `-`. Blocks on a FIFO nobody writes to."""
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
    """The lines that can be read from where the descriptor stands."""
    status = os.fstat(descriptor)
    total = None
    if stat.S_ISREG(status.st_mode):
        total = status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR)
    return Input(read_lines(descriptor, stop.wait_readable), total, is_in_bytes=True)
