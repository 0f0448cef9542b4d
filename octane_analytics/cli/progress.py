"""Progress on standard error: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

_LINE_SECONDS = 5.0


class Reporter(Protocol):
    """Shows how far something is, while entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, done: int, note: str) -> None: ...


def reporter(label: str, total: int | None, now: Callable[[], float] = time.monotonic) -> Reporter:
    """`total` None where nobody knows the end."""
    return _Bar(label, total) if sys.stderr.isatty() else _Lines(label, total, now)


class _Bar:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._task: TaskID | None = None
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._label, total=self._total, note="")
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
            self._progress.update(self._task, completed=done, note=note)


class _Lines:
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
