"""The ClickHouse user of raw SQL: the file of conf/, its SQL form, and other profiles."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from clickhouse_driver import Client

from octane_analytics.cli.sandbox.servers import reader
from octane_analytics.clickhouse import query_user
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from tests.support.api_fixtures import QUERY_LIMITS, app_over
from tests.support.asgi_calls import query
from tests.support.raw_sql import PASSWORD, users_file

READER = reader("ai_analytics_events")
# In clickhouse-local, READ ON FILE and the like are effective in a user's grants only if named.
GRANT = ["GRANT SELECT ON *.*"]
USERS = [
    User("writable", grants=GRANT),
    User("readonly1", grants=GRANT, settings={"readonly": 1}),
    User("readonly2", grants=GRANT, settings={"readonly": 2}),
    User(
        "pinned",
        grants=GRANT,
        settings={"readonly": 2, "max_memory_usage": 10**9, "max_execution_time": 9},
        readonly_settings=["max_memory_usage", "max_execution_time", "limit", "max_threads"],
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseSettings]:
    directory = tmp_path_factory.mktemp("users")
    with EmbeddedClickHouse(
        directory, users=[*USERS, READER], users_files={"octane-query.xml": users_file()}
    ) as engine:
        yield ClickHouseSettings(host=engine.host, port=engine.tcp_port)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("user", [*(user.name for user in USERS), "octane_query"])
def test_query_runs_under_any_profile(
    server: ClickHouseSettings, user: str, compression: str
) -> None:
    settings = replace(
        server,
        user=user,
        password=PASSWORD if user == "octane_query" else "",
        compression=compression,
    )
    with app_over(server, query_settings=settings) as app:
        body = query(app, "SELECT number, toDateTime(0) AS t FROM numbers(3000)").json()
        assert (body["row_count"], body["truncated"]) == (2000, True)
        assert body["rows"][0] == {"number": 0, "t": "1970-01-01T00:00:00Z"}
        assert query(app, "SELECT 1").json()["rows"] == [{"1": 1}]
        rejected = query(app, "INSERT INTO x SELECT 1")
        assert rejected.status_code == 403


def test_limit_above_the_profile_is_clamped(server: ClickHouseSettings) -> None:
    settings = replace(server, user="octane_query", password=PASSWORD)
    generous = replace(QUERY_LIMITS, seconds=3600, memory_bytes=1 << 40, threads=64)
    with app_over(server, query_settings=settings, query_limits=generous) as app:
        assert query(app, "SELECT 1").status_code == 200
        too_much = query(app, "SELECT length(range(300000000 + number)) FROM numbers(1)")
        assert too_much.json()["error"]["code"] == "memory_limit"


def test_pinned_setting_is_logged_once(
    server: ClickHouseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with app_over(server, query_settings=replace(server, user="pinned")) as app:
        assert query(app, "SELECT 1").status_code == 200
        assert query(app, "SELECT 1").status_code == 200
    logged = [vars(record)["octane_fields"]["setting"] for record in caplog.records]
    assert "max_memory_usage" in logged
    assert len(logged) == len(set(logged))


def test_wrong_password_is_reported_as_misconfiguration(server: ClickHouseSettings) -> None:
    settings = replace(server, user="octane_query", password="wrong")
    with app_over(server, query_settings=settings) as app:
        answer = query(app, "SELECT 1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "misconfigured")
    assert "octane" not in answer.json()["error"]["message"]


def test_user_must_authenticate(server: ClickHouseSettings) -> None:
    with pytest.raises(Exception, match="Authentication failed"):
        Client(server.host, port=server.port, user="octane_query").execute("SELECT 1")


def test_user_of_file_may_read_one_table(server: ClickHouseSettings) -> None:
    settings = replace(server, user="octane_query", password=PASSWORD)
    with ClickHouse(settings, client_name="tests", is_confined=True) as connection:
        assert connection.select("SHOW GRANTS").rows == [
            ("GRANT SELECT ON default.ai_analytics_events TO octane_query",)
        ]


def profile_elements(text: str) -> set[str]:
    """Return the normalized elements of a settings profile."""
    text = re.sub(r"(\d)\.(?!\d)", r"\1", text).replace("false", "0")
    return {" ".join(element.split()) for element in text.split(", ")}


def test_file_and_sql_are_equivalent(server: ClickHouseSettings) -> None:
    with ClickHouse(server, client_name="tests") as connection:
        ((shown,),) = connection.select("SHOW CREATE PROFILE octane_query").rows
        ((quota,),) = connection.select("SHOW CREATE QUOTA octane_query").rows
        sql = query_user.statements(load({}).settings, None)
        (expected_quota,) = [statement for statement in sql if "QUOTA" in statement]
        ((expected_quota,),) = connection.select(
            "SELECT formatQuerySingleLine({sql:String})", {"sql": expected_quota}
        ).rows
    # CREATE SETTINGS PROFILE name SETTINGS …
    expected = profile_elements(", ".join(query_user.profile(load({}).settings)))
    assert profile_elements(shown.split("SETTINGS ", 2)[2]) == expected
    assert expected_quota.replace("OR REPLACE ", "") == quota


def test_sql_is_accepted_by_the_parser(server: ClickHouseSettings) -> None:
    """Parse only: an embedded server cannot store users."""
    settings = load(
        {
            "CLICKHOUSE_DATABASE": "my-db",
            "CLICKHOUSE_QUERY_USER": "an analyst",
            "API_QUERY_TABLES": "system.*,a.b",
        }
    ).settings
    statements = query_user.statements(
        settings,
        query_user.hashed("geheim'\\"),
        [ip_network("10.0.0.0/8"), ip_network("::1")],
        "c 1",
    )
    with ClickHouse(server, client_name="tests") as connection:
        for statement in statements:
            ((formatted,),) = connection.select(
                "SELECT formatQuerySingleLine({sql:String})", {"sql": statement}
            ).rows
            assert "ON CLUSTER" in formatted
            connection.select(f"EXPLAIN AST {statement}")
    text = "\n".join(statements)
    assert "geheim" not in text
    assert "SELECT ON `my-db`.ai_analytics_events TO" in text
    assert "SELECT ON system.* TO" in text
    assert "GRANT ON CLUSTER `c 1` octane_query TO `an analyst`" in text


def test_memory_of_all_queries_is_bounded(server: ClickHouseSettings) -> None:
    """Two at their full limit; a sandbox leaves a quarter of its server to inserts."""
    settings = load({}).settings
    bound = f"max_memory_usage_for_user = {2 * settings.api.max_memory_bytes}"
    assert bound in query_user.profile(settings)
    assert dict(READER.settings) == {"max_memory_usage_for_user": 3 << 29}
    with ClickHouse(
        replace(server, user=READER.name), client_name="tests", is_confined=True
    ) as connection:
        asked = (
            "SELECT value, readonly FROM system.settings WHERE name = 'max_memory_usage_for_user'"
        )
        assert connection.select(asked).rows == [(str(3 << 29), 1)]
