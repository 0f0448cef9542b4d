"""Outages of dependencies: reports their start and end to the observer."""

from collections.abc import Iterator
from contextlib import contextmanager

from octane_analytics.errors import Rebalancing, Unavailable
from octane_analytics.interfaces import Clock, Observer

CLICKHOUSE, KAFKA, DEAD_LETTERS = "clickhouse", "kafka", "dead_letters"


class Outages:
    """Failing calls by dependency; an outage ends once every kind of failed call has succeeded."""

    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._failing: dict[str, set[str]] = {}

    @contextmanager
    def track(self, dependency: str, call: str) -> Iterator[None]:
        """Track the result and the duration of one call; its exception passes through."""
        began = self._clock.now()
        try:
            yield
        except Rebalancing:
            raise  # not an outage
        except Unavailable as error:
            self.failed(dependency, call, error)
            raise
        finally:
            self._observer.call_finished(call, self._clock.now() - began)
        self.served(dependency, call)

    def failed(self, dependency: str, call: str, error: Unavailable) -> None:
        """Report a failed call that `track` has not seen; `served` ends it."""
        self._failing.setdefault(dependency, set()).add(call)
        self._observer.failed(dependency, error)

    def served(self, dependency: str, call: str) -> None:
        """Record that the call succeeds again."""
        failing = self._failing.get(dependency)
        if failing is None:
            return
        failing.discard(call)
        if not failing:
            del self._failing[dependency]
            self._observer.resumed(dependency)
