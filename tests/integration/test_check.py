"""`octane-analytics check` against real engines, in order and out of order."""

import socket
import time

import pytest

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from tests.acceptance.command import run, wait_until
from tests.integration.operations_fixtures import Site, event, site

__all__ = ["site"]


def levels(found: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {item["subject"]: item["level"] for item in found["checks"]}


def test_check_of_a_site_in_order_fails_nothing(site: Site) -> None:
    site.send(event(1))
    site.environ["WORKER_PROCS"] = "2"
    found = site.json("check")
    where = f"{site.environ['CLICKHOUSE_HOST']}:{site.environ['CLICKHOUSE_PORT']}"
    table = f"disk at {where}"
    assert {k: v for k, v in levels(found).items() if k not in (table, "API_PORT")} == {
        "settings": "OK",
        "METRICS_PORT": "OK",
        "open files": "OK",
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
        f"deduplication at {where}": "OK",
    }
    text = site.run("check")
    assert "OK    group" in text
    assert text.splitlines()[-1].startswith("0 failures")


def test_check_knows_our_own_running_service(site: Site) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    site.environ["METRICS_PORT"] = port
    with site.worker() as worker:
        worker.wait_for("assignment changed")
        found = site.json("check")
        messages = {item["subject"]: item["message"] for item in found["checks"]}
        assert "held by octane-analytics" in messages["METRICS_PORT"]
        assert "octane-analytics-0@127.0.0.1" in messages["group"]
        worker.child.terminate()
        assert worker.wait() == 0


def test_check_finds_what_has_to_be_mended(site: Site) -> None:
    site.clickhouse.execute(
        f"ALTER TABLE {site.clickhouse.table} MODIFY SETTING non_replicated_deduplication_window = 0"
    )
    site.environ["KAFKA_DLQ_TOPIC"] = f"{site.topic}.other-dlq"
    found = site.json("check", code=78)
    where = f"{site.environ['CLICKHOUSE_HOST']}:{site.environ['CLICKHOUSE_PORT']}"
    assert levels(found)[f"deduplication at {where}"] == "FAIL"
    messages = {item["subject"]: item["message"] for item in found["checks"]}
    assert "the worker will make it" in messages["dead-letter topic"]
    listed = site.kafka.topics("--list")
    assert f"{site.topic}.other-dlq" not in listed, "check changes nothing"


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
    ("settings", "subject", "told"),
    [
        ({"KAFKA_TOPIC": "nowhere"}, "topic", "create the topic"),
        ({"CLICKHOUSE_PASSWORD": "wrong"}, "clickhouse", "check CLICKHOUSE_USER"),
        ({"CLICKHOUSE_DATABASE": "nowhere"}, "clickhouse", "create the database"),
        ({"CLICKHOUSE_TABLE": "nowhere"}, "table", "schema apply"),
    ],
)
def test_check_says_what_to_do(
    site: Site, settings: dict[str, str], subject: str, told: str
) -> None:
    done = run("check", settings=site.environ | settings)
    assert done.returncode == 78, done.stdout
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1, done.stdout
    assert failures[0].split()[1] == subject
    assert told in failures[0]


def test_check_of_a_user_without_rights(site: Site) -> None:
    users = [User("poor", grants=["GRANT SELECT ON default.other"])]
    with EmbeddedClickHouse(site.directory / "other", users=users) as engine:
        done = run(
            "check",
            settings=site.environ
            | {
                "CLICKHOUSE_HOST": engine.host,
                "CLICKHOUSE_PORT": str(engine.tcp_port),
                "CLICKHOUSE_USER": "poor",
                "CLICKHOUSE_DATABASE": "default",
            },
        )
    assert done.returncode == 78
    assert "rights of poor" in done.stdout
    assert "GRANT INSERT ON default.ai_analytics_events TO poor" in done.stdout


def test_check_ends_in_time_with_everything_down() -> None:
    # One that refuses, one that takes connections and never says a word.
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
