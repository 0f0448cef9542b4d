"""What a user would do without reports: the query as an analyst writes it, and views for its totals.

The views count whole hours: their queries begin with the hour of `from`, and so show slightly more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from octane_analytics.clickhouse.schema import TableName

_RANGE = "timestamp >= {from:DateTime('UTC')} AND timestamp < {to:DateTime('UTC')}"
_HOURS = "hour >= toStartOfHour({from:DateTime('UTC')}) AND hour < {to:DateTime('UTC')}"
_TARGET = "{database:Identifier}.{target:Identifier}"
_CONTENT = (
    "if(JSONHas(properties, 'content_id'), JSONExtractString(properties, 'content_id'), "
    "JSONExtractString(properties, 'stream_id'))"
)


@dataclass(frozen=True)
class ByHand:
    """Alternatives to one report. The first column that both selects return is a total to compare."""

    query: str
    """SELECT of the table of events."""
    view_query: str
    """SELECT of the view's target."""
    columns: str
    """Columns of the view's target."""
    key: str
    """Sorting key of the view's target."""
    view: str
    """SELECT of the view, without its source."""
    group: str


ALTERNATIVES = {
    "overview_stats": ByHand(
        "SELECT count() AS events, uniq(user_id) AS users,"
        " uniq(JSONExtractString(properties, 'session_id')) AS sessions,"
        " countIf(event_name = 'video_heartbeat') AS heartbeats,"
        " sum(JSONExtractFloat(properties, 'watch_time')) AS watch_time,"
        " countIf(event_name = 'search') AS searches"
        f" FROM {{database:Identifier}}.{{table:Identifier}} WHERE {_RANGE}",
        "SELECT sum(events), uniqMerge(users), uniqMerge(sessions), sum(heartbeats), sum(watch_time),"
        f" sum(searches) FROM {_TARGET} WHERE {_HOURS}",
        "hour DateTime, app_id LowCardinality(String), events SimpleAggregateFunction(sum, UInt64),"
        " users AggregateFunction(uniq, String), sessions AggregateFunction(uniq, String),"
        " heartbeats SimpleAggregateFunction(sum, UInt64),"
        " watch_time SimpleAggregateFunction(sum, Float64),"
        " searches SimpleAggregateFunction(sum, UInt64)",
        "hour, app_id",
        "SELECT toStartOfHour(timestamp) AS hour, app_id, count() AS events,"
        " uniqState(user_id) AS users,"
        " uniqState(JSONExtractString(properties, 'session_id')) AS sessions,"
        " countIf(event_name = 'video_heartbeat') AS heartbeats,"
        " sum(JSONExtractFloat(properties, 'watch_time')) AS watch_time,"
        " countIf(event_name = 'search') AS searches",
        "GROUP BY hour, app_id",
    ),
    "top_content": ByHand(
        f"SELECT count() AS heartbeats, {_CONTENT} AS content,"
        " sum(JSONExtractFloat(properties, 'watch_time')) AS watch_time, uniq(user_id) AS viewers"
        " FROM {database:Identifier}.{table:Identifier}"
        f" WHERE event_name = 'video_heartbeat' AND {_RANGE}"
        " GROUP BY content ORDER BY watch_time DESC LIMIT 20",
        "SELECT sum(v.heartbeats), content, sum(v.watch_time) AS watched, uniqMerge(viewers)"
        f" FROM {_TARGET} AS v WHERE {_HOURS} GROUP BY content ORDER BY watched DESC LIMIT 20",
        "hour DateTime, app_id LowCardinality(String), content String,"
        " heartbeats SimpleAggregateFunction(sum, UInt64),"
        " watch_time SimpleAggregateFunction(sum, Float64), viewers AggregateFunction(uniq, String)",
        "hour, app_id, content",
        f"SELECT toStartOfHour(timestamp) AS hour, app_id, {_CONTENT} AS content,"
        " countIf(event_name = 'video_heartbeat') AS heartbeats,"
        " sum(JSONExtractFloat(properties, 'watch_time')) AS watch_time,"
        " uniqStateIf(user_id, event_name = 'video_heartbeat') AS viewers",
        "GROUP BY hour, app_id, content",
    ),
}


def target(source: TableName, report: str) -> TableName:
    return TableName(source.database, f"{source.table}_{report}")


def create_target(source: TableName, report: str) -> str:
    made = ALTERNATIVES[report]
    return (
        f"CREATE TABLE {target(source, report)} ({made.columns}) ENGINE = AggregatingMergeTree "
        f"PARTITION BY toYYYYMM(hour) ORDER BY ({made.key})"
    )


def create_view(source: TableName, report: str) -> str:
    """Return the statement for a view that adds every insert into the source to its target."""
    name = TableName(source.database, f"{source.table}_{report}_view")
    return (
        f"CREATE MATERIALIZED VIEW {name} TO {target(source, report)} AS {_select(source, report)}"
    )


def fill_target(source: TableName, report: str, partition_id: str) -> str:
    """Return the statement that adds one partition of the source to the target."""
    condition = f" WHERE _partition_id = '{partition_id}'"
    return f"INSERT INTO {target(source, report)} {_select(source, report, condition)}"


def drop_views(source: TableName) -> Iterator[str]:
    for report in ALTERNATIVES:
        view = TableName(source.database, f"{source.table}_{report}_view")
        yield f"DROP TABLE IF EXISTS {view} SYNC"
        yield f"DROP TABLE IF EXISTS {target(source, report)} SYNC"


def _select(source: TableName, report: str, condition: str = "") -> str:
    made = ALTERNATIVES[report]
    return f"{made.view} FROM {source}{condition} {made.group}"
