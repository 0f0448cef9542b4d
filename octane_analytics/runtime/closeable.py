"""Base classes of context managers that close themselves, and of those that are started before."""

from abc import abstractmethod
from types import TracebackType
from typing import Self


class Closeable:
    """Context manager that calls `close` on exit, also after an exception."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...


class Startable(Closeable):
    """Closeable that is started on entry. What a failing `start` leaves is closed.

    `close` must accept an object that is started in part, or not at all.
    """

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    @abstractmethod
    def start(self) -> None:
        """Block until it serves."""
