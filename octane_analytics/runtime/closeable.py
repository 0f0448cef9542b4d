"""Base class of context managers that close themselves."""

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
