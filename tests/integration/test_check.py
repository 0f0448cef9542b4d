"""`octane-analytics check` against real servers, correct and faulty ones."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import ConfigError, NeedsOperator
from octane_analytics.operations.checks.clickhouse import check_clickhouse
from octane_analytics.operations.checks.finding import Finding, Level
from octane_analytics.operations.checks.query_user import check_query_user
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.worker.preflight import check_table
from tests.support.command import run, wait_until
from tests.support.operations_fixtures import Site, event, site
from tests.support.ports import free_port
from tests.support.raw_sql import PASSWORD, users_file

__all__ = ["site"]

TABLE = "default.ai_analytics_events"
LIMITS = {
    "max_execution_time": 30,
    "max_memory_usage": 1 << 30,
    "max_result_bytes": 1 << 20,
    "max_rows_to_read": 1000,
}
USERS = [
    User("worker", grants=[f"GRANT SELECT, INSERT ON {TABLE}"]),
    User("stranger", grants=["GRANT SELECT ON default.other"]),
    User("reader", grants=[f"GRANT SELECT ON {TABLE}"]),
    User("frozen", grants=[f"GRANT SELECT, INSERT ON {TABLE}"], settings={"readonly": 1}),
    User("mighty", grants=["GRANT SELECT, INSERT ON *.*"]),
    User(
        "unbounded",
        grants=[f"GRANT SELECT ON {TABLE}"],
        settings={"readonly": 1, **LIMITS},
    ),
    User(
        "lifting",
        grants=[f"GRANT SELECT ON {TABLE}"],
        settings={"readonly": 2, **LIMITS, "max_bytes_to_read": 1 << 30},
    ),
]


@pytest.fixture(scope="module")
def peopled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseSettings]:
    """Server with users of few and of many rights, and the user of conf/."""
    with EmbeddedClickHouse(
        tmp_path_factory.mktemp("users"),
        users=USERS,
        users_files={"octane-query.xml": users_file()},
    ) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(settings, client_name="tests") as root:
            root.execute(schema.create_table(root.table))
            root.execute("CREATE TABLE default.other (n UInt8) ENGINE = Memory")
        yield settings


def levels(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {item["subject"]: item["level"] for item in found["checks"]}


def test_check_of_correct_site_has_no_failures(site: Site) -> None:
    site.send(event(1))
    site.environ["WORKER_PROCS"] = "2"
    found = site.json("check")
    where = f"{site.environ['CLICKHOUSE_HOST']}:{site.environ['CLICKHOUSE_PORT']}"
    table = f"disk at {where}"
    assert {k: v for k, v in levels(found).items() if k not in (table, "API_PORT")} == {
        "settings": "OK",
        "METRICS_PORT": "OK",
        "open files": "OK",
        "decoder": "OK",
        "kafka": "OK",
        "dead-letter topic": "OK",
        "topic": "OK",
        "group": "OK",
        "offsets": "OK",
        "clock and kafka": "OK",
        f"clickhouse {where}": "OK",
        f"clock and {where}": "OK",
        "rights of default": "OK",
        f"table at {where}": "OK",
        f"rollups at {where}": "OK",
        f"deduplication at {where}": "OK",
        "raw SQL": "WARN",
    }
    text = site.run("check")
    assert "OK    group" in text
    assert text.splitlines()[-1].startswith("0 failures")


def test_check_recognises_own_running_service(site: Site) -> None:
    site.environ["METRICS_PORT"] = str(free_port())
    with site.worker() as worker:
        worker.wait_for("assignment changed")
        found = site.json("check")
        messages = {item["subject"]: item["message"] for item in found["checks"]}
        assert "held by octane-analytics" in messages["METRICS_PORT"]
        assert "members: octane-analytics-v2-0-t" in messages["group"]
        worker.child.terminate()
        assert worker.wait() == 0


def test_check_reports_problems_to_fix(site: Site) -> None:
    site.clickhouse.execute(
        f"ALTER TABLE {site.clickhouse.table} MODIFY SETTING non_replicated_deduplication_window = 0"
    )
    compacted = f"{site.topic}.compacted"
    site.kafka.create_topic(compacted, 1, {"cleanup.policy": "compact,delete"})
    site.environ |= {"KAFKA_TOPIC": compacted, "KAFKA_DLQ_TOPIC": f"{site.topic}.other-dlq"}
    found = site.json("check", code=78)
    where = f"{site.environ['CLICKHOUSE_HOST']}:{site.environ['CLICKHOUSE_PORT']}"
    assert levels(found)[f"deduplication at {where}"] == "FAIL"
    messages = {item["subject"]: item["message"] for item in found["checks"]}
    assert "the worker will create it" in messages["dead-letter topic"]
    assert "is compacted (cleanup.policy=compact,delete)" in messages["topic"]
    listed = site.kafka.topics("--list")
    assert site.environ["KAFKA_DLQ_TOPIC"] not in listed, "check changes nothing"


def test_check_finds_a_foreign_member(site: Site) -> None:
    consumer = site._consumer()
    consumer.subscribe([site.topic])
    try:
        consumer.poll(0.1)
        wait_until(lambda: bool(consumer.poll(0.1)) or bool(consumer.assignment()))
        found = site.json("check", code=78)
    finally:
        consumer.close()
    assert levels(found)["group"] == "FAIL"


@pytest.mark.parametrize(
    ("settings", "subject", "expected"),
    [
        ({"KAFKA_TOPIC": "nowhere"}, "topic", "create the topic"),
        ({"CLICKHOUSE_PASSWORD": "wrong"}, "clickhouse", "check CLICKHOUSE_USER"),
        ({"CLICKHOUSE_DATABASE": "nowhere"}, "clickhouse", "create the database"),
        ({"CLICKHOUSE_TABLE": "nowhere"}, "table", "schema apply"),
        ({"CLICKHOUSE_TIMEOUT": "600"}, "settings", "shorter than DRAIN_TIMEOUT"),
    ],
)
def test_check_reports_the_fix(
    site: Site, settings: dict[str, str], subject: str, expected: str
) -> None:
    done = run("check", settings=site.environ | settings)
    assert done.returncode == 78, done.stdout
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1, done.stdout
    assert failures[0].split()[1] == subject
    assert expected in failures[0]


@pytest.mark.parametrize(
    ("user", "advice"),
    [
        ("worker", []),
        ("reader", [f"GRANT INSERT ON {TABLE} TO reader"]),
        ("stranger", [f"GRANT {right} ON {TABLE} TO stranger" for right in ("SELECT", "INSERT")]),
        ("frozen", ["profile is read-only"]),
    ],
)
def test_rights_of_worker_user_are_checked(
    peopled: ClickHouseSettings, user: str, advice: list[str]
) -> None:
    settings = replace(load({}).settings, clickhouse=replace(peopled, user=user))
    with ClickHouse(settings.clickhouse, client_name="tests") as server:
        found = list(check_clickhouse(server, "ch", settings, time.time))
    messages = [
        f.message for f in found if f.subject == f"rights of {user}" and f.level is Level.FAIL
    ]
    assert len(messages) == len(advice)
    for expected, message in zip(advice, messages, strict=True):
        assert expected in message


@pytest.mark.parametrize(
    ("user", "expected"),
    [("frozen", "profile is read-only"), ("reader", f"GRANT INSERT ON {TABLE} TO reader")],
)
def test_worker_user_without_insert_is_refused(
    peopled: ClickHouseSettings, user: str, expected: str
) -> None:
    settings = replace(load({}).settings, clickhouse=replace(peopled, user=user))
    with (
        ClickHouse(settings.clickhouse, client_name="tests") as server,
        pytest.raises(NeedsOperator, match=expected),
    ):
        check_table(server, settings)


def test_table_with_datetime64_is_refused(
    peopled: ClickHouseSettings,
) -> None:
    settings = replace(load({}).settings, clickhouse=replace(peopled, table="finer"))
    with ClickHouse(settings.clickhouse, client_name="tests") as server:
        ddl = schema.create_table(server.table).replace("DateTime CODEC", "DateTime64(3) CODEC")
        server.execute(ddl)
        with pytest.raises(ConfigError, match=r"has timestamp as DateTime64\(3\), not as DateTime"):
            check_table(server, settings)
        server.execute(f"DROP TABLE {server.table}")


@pytest.mark.parametrize(
    ("user", "level", "expected"),
    [
        ("octane_query", Level.OK, ["may only read"]),
        ("stranger", Level.FAIL, [f"GRANT SELECT ON {TABLE} TO stranger"]),
        ("nobody", Level.FAIL, ["check CLICKHOUSE_QUERY_USER and CLICKHOUSE_QUERY_PASSWORD"]),
        (
            "mighty",
            Level.WARN,
            [f"may INSERT into {TABLE}", "may read every table", "readonly=0", "max_memory_usage"],
        ),
        ("unbounded", Level.WARN, ["limit of max_bytes_to_read:", "schema grants"]),
        ("lifting", Level.WARN, ["readonly=2", "limit of max_execution_time, max_memory_usage"]),
    ],
)
def test_rights_of_query_user_are_checked(
    peopled: ClickHouseSettings, user: str, level: Level, expected: list[str]
) -> None:
    password = PASSWORD if user == "octane_query" else ""
    found = query_user_findings(peopled, user, password)
    worst = max(found, key=lambda finding: finding.level)
    assert worst.level is level
    assert [part for part in expected if part not in worst.message] == []
    assert level is not Level.OK or len(found) == 1


def test_additional_raw_sql_tables_are_checked(peopled: ClickHouseSettings) -> None:
    findings = query_user_findings(
        peopled, "octane_query", PASSWORD, API_QUERY_TABLES="default.other"
    )
    assert [(f.level, f.message) for f in findings] == [
        (
            Level.FAIL,
            "octane_query lacks SELECT on default.other: GRANT SELECT ON default.other TO "
            "octane_query",
        )
    ]


def test_query_user_of_unreachable_server_adds_no_failure() -> None:
    nowhere = ClickHouseSettings(host="127.0.0.1", port=1)
    assert query_user_findings(nowhere, "octane_query", PASSWORD) == []


def query_user_findings(
    server: ClickHouseSettings, user: str, password: str, **environ: str
) -> list[Finding]:
    loaded = load({"CLICKHOUSE_QUERY_USER": user, **environ}).settings
    asking = replace(server, user=user, password=password)
    with ClickHouse(asking, client_name="tests", is_confined=True) as connection:
        return list(check_query_user(connection, "ch", replace(loaded, clickhouse=server)))


def test_check_of_users_without_rights(site: Site, peopled: ClickHouseSettings) -> None:
    done = run(
        "check",
        settings=site.environ
        | {
            "CLICKHOUSE_HOST": peopled.host,
            "CLICKHOUSE_PORT": str(peopled.port),
            "CLICKHOUSE_USER": "reader",
            "CLICKHOUSE_QUERY_USER": "stranger",
            "CLICKHOUSE_DATABASE": "default",
        },
    )
    assert done.returncode == 78
    assert f"GRANT INSERT ON {TABLE} TO reader" in done.stdout
    assert f"GRANT SELECT ON {TABLE} TO stranger" in done.stdout


def test_check_of_unreachable_servers_ends_in_time() -> None:
    # One port that refuses, one that accepts connections and never responds.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = str(silent.getsockname()[1])
        started = time.monotonic()
        done = run(
            "check",
            settings={
                "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
                "CLICKHOUSE_HOST": f"127.0.0.1:{port},127.0.0.1:1",
                "METRICS_PORT": "0",
                "API_PORT": "0",
            },
        )
        assert time.monotonic() - started < 20
    assert done.returncode == 69, done.stdout
    assert done.stdout.count("FAIL") == 3
