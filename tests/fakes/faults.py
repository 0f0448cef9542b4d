"""Faults injected by fakes into chosen calls."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from octane_analytics.errors import (
    OctaneError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    error: OctaneError
    is_done: bool = False
    """True if the operation takes effect and only its answer is lost."""


class Faults:
    """Queues of faults by operation."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = defaultdict(deque)

    def push(self, operation: str, *errors: OctaneError, is_done: bool = False) -> None:
        self._queues[operation].extend(Fault(error, is_done) for error in errors)

    def take(self, operation: str) -> Fault | None:
        queue = self._queues[operation]
        return queue.popleft() if queue else None

    def clear(self) -> None:
        self._queues.clear()

    def run(self, operation: str, act: Callable[[], None]) -> None:
        fault = self.take(operation)
        if fault is None:
            act()
            return
        if fault.is_done:
            act()
        raise fault.error
