"""Progress on standard error: a bar on a terminal, otherwise a line every five seconds."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_SECONDS = 5.0
_ELAPSED_COLUMNS = 10
_MIN_BAR, _MAX_BAR = 8, 40


class Reporter(Protocol):
    """Shows progress while entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, done: int, note: str) -> None: ...


def reporter(label: str, total: int | None, now: Callable[[], float] = time.monotonic) -> Reporter:
    """Return a reporter for standard error. `total` is None if it is unknown."""
    return _BarReporter(label, total) if sys.stderr.isatty() else _LineReporter(label, total, now)


class _BarReporter:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._label, total=self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, done: int, note: str) -> None:
        if self._task is not None:
            share = min(1.0, done / self._total) if self._total else None
            room = self._progress.console.width - _ELAPSED_COLUMNS
            text = fitted(self._label, share, note, room)
            self._progress.update(self._task, completed=done, description=text)


def fitted(label: str, share: float | None, note: str, width: int) -> str:
    """Return label, bar, percentage and note in `width` columns; a part that does not fit is omitted.

    The bar is omitted first, then all but the first word of the label, then the parts of the note from
    the second one on; the first one states how much is done.
    """
    percent = [] if share is None else [f"{share:4.0%}"]
    parts = [part for part in note.split(", ") if part]
    text = " ".join([label, *percent, ", ".join(parts)]).rstrip()
    room = min(_MAX_BAR, width - len(text) - 1)
    if share is not None and room >= _MIN_BAR:
        filled = round(share * room)
        bar = "━" * filled + "─" * (room - filled)
        return " ".join([label, bar, *percent, ", ".join(parts)]).rstrip()
    if len(text) > width:
        label = label.partition(" ")[0]
    while len(parts) > 1 and len(" ".join([label, *percent, ", ".join(parts)])) > width:
        del parts[1]
    return " ".join([label, *percent, ", ".join(parts)]).rstrip()


class _LineReporter:
    def __init__(self, label: str, total: int | None, now: Callable[[], float]) -> None:
        self._label = label
        self._total = total
        self._now = now
        self._due = 0.0

    def __enter__(self) -> Self:
        self._due = self._now() + _LINE_SECONDS
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, done: int, note: str) -> None:
        if self._now() < self._due:
            return
        self._due = self._now() + _LINE_SECONDS
        share = f" {min(1.0, done / self._total):.0%}" if self._total else ""
        click.echo(f"{self._label}{share}: {note}", err=True)
