"""Which dependencies fail just now, told to the observer when it begins and when it is over."""

from collections.abc import Iterator
from contextlib import contextmanager

from octane_analytics.errors import Rebalancing, Unavailable
from octane_analytics.interfaces import Clock, Observer

CLICKHOUSE, KAFKA, DEAD_LETTERS = "clickhouse", "kafka", "dead_letters"


class Outages:
    """A dependency serves again once every kind of call to it that failed has gone through."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._failing: dict[str, set[str]] = {}

    @contextmanager
    def track(self, dependency: str, call: str) -> Iterator[None]:
        """Around one call: notes how it ended and how long it took, lets its exception through."""
        began = self._clock.now()
        try:
            yield
        except Rebalancing:
            raise  # the group is alive and well
        except Unavailable as error:
            self._failed(dependency, call, error)
            raise
        finally:
            self._observer.call_finished(call, self._clock.now() - began)
        self._served(dependency, call)

    def _failed(self, dependency: str, call: str, error: Unavailable) -> None:
        self._failing.setdefault(dependency, set()).add(call)
        self._observer.failed(dependency, error)

    def _served(self, dependency: str, call: str) -> None:
        failing = self._failing.get(dependency)
        if failing is None:
            return
        failing.discard(call)
        if not failing:
            del self._failing[dependency]
            self._observer.resumed(dependency)
