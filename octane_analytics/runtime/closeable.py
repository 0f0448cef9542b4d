"""Context managers that close what they are."""

from abc import abstractmethod
from types import TracebackType
from typing import Self


class Closeable:
    """Calls `close` when its `with` block ends, whatever ended it."""

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
