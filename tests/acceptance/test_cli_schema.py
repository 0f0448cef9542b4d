import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from clickhouse_driver import Client

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from tests.support.command import run

Schema = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    reader = User("reader", "secret", grants=["GRANT SELECT ON *.*"])
    directory = tmp_path_factory.mktemp("clickhouse")
    with EmbeddedClickHouse(directory, users=[reader]) as started:
        yield started


@pytest.fixture
def client(server: EmbeddedClickHouse) -> Iterator[Client]:
    with Client(server.host, server.tcp_port) as connected:
        connected.execute("DROP TABLE IF EXISTS default.ai_analytics_events SYNC")
        connected.execute("DROP DATABASE IF EXISTS `other place`")
        yield connected


@pytest.fixture
def schema(server: EmbeddedClickHouse, client: Client) -> Schema:
    def schema(*arguments: str, **settings: str) -> CompletedProcess[str]:
        base = {"CLICKHOUSE_HOST": server.host, "CLICKHOUSE_PORT": str(server.tcp_port)}
        return run("schema", *arguments, settings=base | settings)

    return schema


def test_shown_statement_creates_a_table_passing_check(schema: Schema, client: Client) -> None:
    shown = schema("show", "--no-rollups")
    assert (shown.returncode, shown.stderr) == (0, "")
    client.execute(shown.stdout.strip().removesuffix(";"))
    checked = schema("check")
    assert checked.returncode == 0, checked.stdout
    assert "default.ai_analytics_events matches the expected schema" in checked.stdout
    assert "10,000 inserts" in checked.stdout


def test_apply_creates_the_table_and_can_be_repeated(schema: Schema) -> None:
    first = schema("apply")
    assert (first.returncode, first.stderr) == (0, "")
    assert "created table default.ai_analytics_events" in first.stdout
    assert "10,000 inserts, 83 minutes of this host's 2 inserts/s" in first.stdout
    second = schema("apply", "--inserts-per-second", "0.5", "--worker-procs", "8")
    assert second.returncode == 0
    assert "nothing to do" in second.stdout
    assert "104 minutes of this host's 1.6 inserts/s" in second.stdout


def test_apply_widens_a_window_and_never_narrows_one(schema: Schema, client: Client) -> None:
    client.execute(
        re.sub(
            r"SETTINGS.*",
            "",
            schema("show", "--no-rollups").stdout.strip().removesuffix(";"),
            flags=re.S,
        )
    )
    checked = schema("check")
    assert checked.returncode == 1
    assert "difference: non_replicated_deduplication_window is 0" in checked.stdout
    applied = schema("apply", "--window", "500")
    assert applied.returncode == 0
    assert "from 0 to 500 inserts" in applied.stdout
    assert "nothing to do" in schema("apply", "--window", "100").stdout
    assert "deduplication window: 500 inserts" in schema("check").stdout


def test_apply_creates_the_database(schema: Schema, client: Client) -> None:
    applied = schema("apply", "--clickhouse-database", "other place")
    assert applied.returncode == 0, applied.stderr
    assert "created database `other place`" in applied.stdout
    assert "created table `other place`.ai_analytics_events" in applied.stdout
    assert schema("check", "--clickhouse-database", "other place").returncode == 0


@pytest.mark.parametrize("database", ["default", "missing"])
def test_check_of_a_missing_table_fails(schema: Schema, database: str) -> None:
    checked = schema("check", CLICKHOUSE_DATABASE=database)
    assert checked.returncode == 1
    assert "does not exist: run `octane-analytics schema apply`" in checked.stdout


def test_difference_is_reported_and_not_changed(schema: Schema, client: Client) -> None:
    client.execute(
        "CREATE TABLE default.ai_analytics_events (timestamp DateTime64(3), app_id String, "
        "event_name String CODEC(ZSTD), user_id String CODEC(ZSTD), extra UInt8) "
        "ENGINE = MergeTree ORDER BY (app_id, timestamp) PARTITION BY toYYYYMMDD(timestamp)"
    )
    checked = schema("check")
    assert checked.returncode == 1
    differences = [
        line.removeprefix("difference: ")
        for line in checked.stdout.splitlines()
        if line.startswith("difference: ")
    ]
    for expected in (
        "column timestamp is of type DateTime64(3), must be DateTime",
        "column app_id has the default codec, must have CODEC(ZSTD)",
        "column properties is missing",
        "column extra is not in the expected schema",
        "sorting key is app_id, timestamp, must be app_id, event_name, timestamp",
        "partition key is toYYYYMMDD(timestamp), must be toYYYYMM(timestamp)",
        "TTL is not set, must be timestamp + toIntervalDay(90)",
    ):
        assert expected in differences
    assert "refused by worker and replay: table default.ai_analytics_events has timestamp as" in (
        checked.stdout
    )
    applied = schema("apply")
    assert applied.returncode == 1
    assert "widened the deduplication window" in applied.stdout
    assert "difference: column properties is missing" in applied.stdout


def test_unreachable_server_is_one_line(schema: Schema) -> None:
    failed = schema("check", CLICKHOUSE_PORT="1")
    assert failed.returncode == 69
    assert failed.stderr.startswith("octane-analytics: error: cannot talk to ClickHouse at ")
    assert failed.stderr.count("\n") == 1


def test_wrong_password_exits_with_78(schema: Schema) -> None:
    failed = schema("check", CLICKHOUSE_USER="reader", CLICKHOUSE_PASSWORD="wrong")
    assert failed.returncode == 78
    assert "check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_missing_right_is_reported_with_advice(schema: Schema) -> None:
    failed = schema("apply", CLICKHOUSE_USER="reader", CLICKHOUSE_PASSWORD="secret")
    assert failed.returncode == 1
    assert "grant the user what it lacks" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_http_port_is_rejected_before_connecting(schema: Schema) -> None:
    failed = schema("check", "--clickhouse-port", "8123")
    assert failed.returncode == 78
    assert "use 9000" in failed.stderr


def test_password_can_come_from_a_file(schema: Schema, client: Client, tmp_path: Path) -> None:
    schema("apply")
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    checked = schema("check", CLICKHOUSE_USER="reader", CLICKHOUSE_PASSWORD_FILE=str(secret))
    assert checked.returncode == 0, checked.stderr


def test_rollups_are_added_built_compared_and_dropped(schema: Schema, client: Client) -> None:
    client.execute(schema("show", "--no-rollups").stdout.strip().removesuffix(";"))
    client.execute(
        "INSERT INTO default.ai_analytics_events SELECT now() - number, 'a', 'e', 'u', '{}' "
        "FROM numbers(1000)"
    )
    checked = schema("check")
    assert (checked.returncode, "rollup" in checked.stdout) == (0, False)
    applied = schema("apply", "--rollups=totals")
    assert applied.returncode == 0, applied.stderr
    assert "1,000 rows lack rollups: about" in applied.stdout
    assert "built rollups for 1,000 rows" in applied.stdout
    assert "lack" not in schema("apply", "--rollups=totals").stdout
    assert schema("check").returncode == 0
    refused = schema("drop-rollups")
    assert refused.returncode == 2
    assert "dropped" in schema("drop-rollups", "--yes").stdout
    assert "nothing to do" in schema("drop-rollups", "--yes").stdout


def test_unknown_set_of_rollups_is_refused(schema: Schema) -> None:
    refused = schema("apply", "--rollups=totals,other")
    assert refused.returncode == 2
    assert "'other' is not one of totals" in refused.stderr


def test_user_without_right_gets_the_grant(schema: Schema) -> None:
    assert schema("apply", "--no-rollups").returncode == 0
    failed = schema("apply", "--rollups", CLICKHOUSE_USER="reader", CLICKHOUSE_PASSWORD="secret")
    assert failed.returncode == 78
    assert "GRANT ALTER PROJECTION, ALTER SETTINGS ON default.ai_analytics_events" in failed.stderr


def test_timeout_beyond_the_drain_is_accepted(schema: Schema) -> None:
    for command in ("apply", "check"):
        done = schema(command, CLICKHOUSE_TIMEOUT="600")
        assert (done.returncode, done.stderr) == (0, "")
