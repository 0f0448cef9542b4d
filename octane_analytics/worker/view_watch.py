"""Watch for materialized views that are added to the table while workers run."""

import time
from collections.abc import Callable, Collection
from typing import Protocol

from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.views import View, view_findings


class ViewLister(Protocol):
    @property
    def table(self) -> TableName: ...

    def describe(self) -> LiveTable | None: ...

    def views(self) -> Collection[View]: ...


class ViewWatch:
    """Reports views that may count repeated inserts twice, again every `repeat_seconds`.

    The start refuses such a view. Running workers go on: the events are safe, and stopping would not
    correct the view.
    """

    def __init__(
        self,
        server: ViewLister,
        report: Callable[[str], object],
        *,
        servers: int = 1,
        now: Callable[[], float] = time.monotonic,
        repeat_seconds: float = 3600.0,
    ) -> None:
        """`servers` is the number of replicas that rows are inserted through."""
        self._server = server
        self._servers = servers
        self._report = report
        self._now = now
        self._repeat_seconds = repeat_seconds
        self._reported: dict[str, float] = {}

    def look(self) -> None:
        """Report new problems of views, and old ones that are due. Raises as the server's methods."""
        live = self._server.describe()
        if live is None:
            return
        now = self._now()
        messages = [
            finding.message
            for finding in view_findings(
                self._server.table, live, self._server.views(), servers=self._servers
            )
        ]
        self._reported = {text: at for text, at in self._reported.items() if text in messages}
        for text in messages:
            if now - self._reported.get(text, -self._repeat_seconds) >= self._repeat_seconds:
                self._reported[text] = now
                self._report(text)
