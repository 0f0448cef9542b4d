"""Reports and raw SQL over two shards: the same answers as over one table with all rows."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.types import ASGIApp

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_report_rollups import BEGIN, DAY, LABELS, SINGLE_USERS, many_events
from tests.integration.test_reports import approximately, rows_of
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import query, report
from tests.support.command import call
from tests.support.raw_sql import PASSWORD, users_file
from tests.tools.cluster.fixtures import running
from tests.tools.cluster.nodes import CLUSTER, ClickHouseCluster

DATABASE = "ledger"
RANGE = {"from": at(BEGIN + 5 * DAY + 600), "to": at(BEGIN + 35 * DAY + 600)}
REPORTS: dict[str, dict[str, object]] = {
    **{name: params for name, (_, params) in LABELS.items()},
    **SINGLE_USERS,
}
QUERY_USER = users_file().replace(
    "<!-- <query>GRANT SELECT ON default.ai_analytics_events_all</query> -->",
    "<query>GRANT SELECT ON ledger.*</query>",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseCluster]:
    directory = tmp_path_factory.mktemp("cluster")
    users = {"octane-query.xml": QUERY_USER}
    with running(ClickHouseCluster(directory, users_files=users)) as started:
        yield started


@pytest.fixture(scope="module")
def ledger(cluster: ClickHouseCluster) -> ClickHouseSettings:
    """Return the settings of the cluster, whose shards have the odd and the even events."""
    settings = dataclasses.replace(cluster.settings(), database=DATABASE)
    applied = call(
        "schema",
        "apply",
        "--replicated",
        settings={
            "CLICKHOUSE_HOST": settings.host,
            "CLICKHOUSE_CLUSTER": CLUSTER,
            "CLICKHOUSE_DATABASE": DATABASE,
        },
    )
    assert applied.returncode == 0, applied
    rows = many_events(6_000)
    for number, shard in enumerate(settings.of_each_shard()):
        with ClickHouseSink(shard, client_name="tests") as sink:
            sink.execute(f"ALTER TABLE {sink.table} REMOVE TTL")
        insert(shard, rows[number::2])
    synchronise(cluster)
    return settings


def environ(cluster: ClickHouseCluster) -> dict[str, str]:
    return {
        "CLICKHOUSE_HOST": cluster.hosts(),
        "CLICKHOUSE_CLUSTER": CLUSTER,
        "CLICKHOUSE_DATABASE": DATABASE,
    }


def synchronise(cluster: ClickHouseCluster) -> None:
    for node in cluster.nodes:
        with ClickHouse(ClickHouseSettings(host=node.authority), client_name="tests") as server:
            server.execute(f"SYSTEM SYNC REPLICA {DATABASE}.ai_analytics_events")


@pytest.fixture(scope="module")
def whole(ledger: ClickHouseSettings) -> ClickHouseSettings:
    """Return the settings of one plain table with the same events."""
    first = ledger.of_each_shard()[0]
    settings = dataclasses.replace(first, table="whole")
    with ClickHouseSink(settings, client_name="tests") as sink:
        sink.execute(schema.create_table(TableName(DATABASE, "whole")))
        sink.execute(f"ALTER TABLE {sink.table} REMOVE TTL")
    insert(settings, many_events(6_000))
    return settings


@pytest.fixture(scope="module")
def apps(
    ledger: ClickHouseSettings, whole: ClickHouseSettings
) -> Iterator[tuple[ASGIApp, ASGIApp]]:
    confined = dataclasses.replace(ledger, user="octane_query", password=PASSWORD)
    with ExitStack() as stack:
        yield (
            stack.enter_context(app_over(ledger, query_settings=confined)),
            stack.enter_context(app_over(whole)),
        )


@pytest.mark.parametrize("is_exact", [False, True])
@pytest.mark.parametrize("template", REPORTS)
def test_reports_answer_as_over_one_table(
    apps: tuple[ASGIApp, ASGIApp], template: str, is_exact: bool
) -> None:
    more = {"exact": True} if is_exact and template in LABELS else {}
    params = RANGE | REPORTS[template] | more
    sharded, single = (rows_of(app, template, **params) for app in apps)
    assert sharded
    assert sharded == approximately(single)


EVENTS = "ledger.ai_analytics_events_all"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count() AS n, uniqExact(user_id) AS users FROM {table}",
        "SELECT count() AS n FROM {table} WHERE user_id IN (SELECT user_id FROM {table} "
        "WHERE app_id = 'a')",
        "SELECT count() AS n FROM {table} WHERE user_id GLOBAL NOT IN (SELECT user_id FROM {table} "
        "WHERE app_id = 'a')",
        "SELECT count() AS n FROM {table} AS x GLOBAL JOIN {table} AS y ON x.user_id = y.user_id "
        "AND x.timestamp = y.timestamp WHERE x.event_name = 'search'",
        "SELECT count() AS n FROM {table} AS x JOIN {table} AS y ON x.user_id = y.user_id AND "
        "x.timestamp = y.timestamp WHERE x.event_name = 'search'",
        "WITH first AS (SELECT user_id, min(timestamp) AS t FROM {table} GROUP BY user_id) "
        "SELECT count() AS n FROM {table} AS e JOIN first ON first.user_id = e.user_id "
        "WHERE e.timestamp <= first.t + 86400",
        "SELECT app_id, n, sum(n) OVER () AS total FROM (SELECT app_id, count() AS n FROM {table} "
        "GROUP BY app_id) ORDER BY app_id",
        "SELECT user_id, count() AS n FROM {table} GROUP BY user_id ORDER BY n DESC, user_id LIMIT 3",
        "SELECT (SELECT max(timestamp) FROM {table}) AS latest, count() AS n FROM {table}",
    ],
)
def test_raw_sql_reads_every_shard(apps: tuple[ASGIApp, ASGIApp], statement: str) -> None:
    sharded = query(apps[0], statement.format(table=EVENTS))
    assert sharded.status_code == 200, sharded.text
    single = query(apps[1], statement.format(table="ledger.whole"))
    assert sharded.json()["rows"] == single.json()["rows"]


def test_subquery_of_any_connection_reads_every_shard(ledger: ClickHouseSettings) -> None:
    with ClickHouse(ledger, client_name="tests") as clickhouse:
        (found,) = clickhouse.select(
            f"SELECT count(), countIf(user_id IN (SELECT user_id FROM {EVENTS})) FROM {EVENTS}"
        ).rows
    assert found[0] == found[1] == 6_000


def test_raw_sql_without_query_user_reads_every_shard(ledger: ClickHouseSettings) -> None:
    """The user's own profile does not have the settings that `schema grants` gives the query user."""
    subquery = f"SELECT count() AS n FROM {EVENTS} WHERE user_id IN (SELECT user_id FROM {EVENTS})"
    with app_over(ledger) as app:
        answer = query(app, subquery)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == [{"n": 6_000}]


def test_raw_sql_may_not_read_one_shard(apps: tuple[ASGIApp, ASGIApp]) -> None:
    answer = query(apps[0], "SELECT count() FROM ledger.ai_analytics_events")
    assert answer.status_code == 403


def test_shard_that_is_away_fails_the_answer(
    apps: tuple[ASGIApp, ASGIApp], cluster: ClickHouseCluster
) -> None:
    away = cluster.shards[1]
    for node in away:
        node.kill()
    try:
        answer = query(apps[0], f"SELECT count() AS n FROM {EVENTS}")
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "unavailable"
        shown = call("report", "overview_stats", settings=environ(cluster))
        assert shown.returncode == 69, shown
        assert report(apps[0], "overview_stats", **RANGE).status_code == 503
    finally:
        for node in away:
            node.start()


def test_one_replica_of_each_shard_is_enough(
    apps: tuple[ASGIApp, ASGIApp], cluster: ClickHouseCluster
) -> None:
    cluster.shards[0][0].kill()
    cluster.shards[1][1].kill()
    try:
        rows = rows_of(apps[0], "overview_stats", **RANGE)
        assert rows == approximately(rows_of(apps[0], "overview_stats", **RANGE, exact=True))
        assert rows[0]["total_events"] > 0
    finally:
        cluster.shards[0][0].start()
        cluster.shards[1][1].start()


def test_report_command_reads_every_shard(
    ledger: ClickHouseSettings, cluster: ClickHouseCluster
) -> None:
    insert(ledger.of_each_shard()[0], [event(BEGIN + 100 * DAY, "only_one")])
    insert(ledger.of_each_shard()[1], [event(BEGIN + 100 * DAY, "only_one")])
    synchronise(cluster)
    ends = [f"from={at(BEGIN + 99 * DAY)}", f"to={at(BEGIN + 101 * DAY)}"]
    params = [argument for end in ends for argument in ("--param", end)]
    shown = call("report", "overview_stats", *params, "--format", "csv", settings=environ(cluster))
    assert shown.returncode == 0, shown
    (row,) = csv.DictReader(io.StringIO(shown.stdout))
    assert row["total_events"] == "2"
    explained = call("report", "overview_stats", *params, "--explain", settings=environ(cluster))
    assert explained.returncode == 0, explained
    assert "rollup users" in explained.stdout
