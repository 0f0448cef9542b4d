"""Reports about views that are added while workers run."""

from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.views import View
from octane_analytics.worker.view_watch import ViewWatch

TABLE = TableName("default", "ai_analytics_events")
WRONG = View(TableName("default", "added"), TableName("default", "counts"), "SummingMergeTree")
RIGHT = View(TableName("default", "good"), TableName("default", "kept"), "MergeTree", 100)


class Server:
    """Server whose views the test changes."""

    table = TABLE

    def __init__(self, live: LiveTable | None) -> None:
        self.live = live
        self.found: list[View] = []

    def describe(self) -> LiveTable | None:
        return self.live

    def views(self) -> list[View]:
        return self.found


LIVE = LiveTable("ReplicatedMergeTree", "", "", "", 1000, ())


def test_added_view_is_reported_once_and_again_later() -> None:
    server, reports, clock = Server(LIVE), list[str](), [0.0]
    watch = ViewWatch(server, reports.append, now=lambda: clock[0], repeat_seconds=3600)
    watch.look()
    assert not reports
    server.found = [RIGHT, WRONG]
    watch.look()
    watch.look()
    assert len(reports) == 1
    assert "default.added" in reports[0]
    clock[0] = 3600.0
    watch.look()
    assert len(reports) == 2


def test_view_removed_and_added_again_is_reported_again() -> None:
    server, reports = Server(LIVE), list[str]()
    watch = ViewWatch(server, reports.append)
    for found in ([WRONG], [], [WRONG]):
        server.found = found
        watch.look()
    assert len(reports) == 2


def test_missing_table_is_not_reported() -> None:
    server, reports = Server(None), list[str]()
    server.found = [WRONG]
    ViewWatch(server, reports.append).look()
    assert not reports
