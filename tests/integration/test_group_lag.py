"""`octane-analytics lag` on Apache Kafka, with workers and without."""

import json
import time

import pytest

from octane_analytics.sandbox.kafka import EmbeddedKafka
from tests.support.command import call, run, running, wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]


def test_lag_of_missing_group_is_whole_log(site: Site) -> None:
    site.send(*events(range(7)))
    found = site.json("lag")
    assert found["state"] == "no such group"
    assert found["messages"] == 7
    first, second = found["partitions"]
    assert (first["committed"], first["end"], first["messages"], first["owner"]) == (
        None,
        7,
        7,
        None,
    )
    assert 0 <= first["seconds"] < 60
    assert (second["messages"], second["seconds"]) == (0, 0.0)
    text = site.run("lag")
    assert "(no such group)" in text
    assert "7 messages behind" in text


def test_lag_shows_committed_offsets_and_pending_intent(site: Site) -> None:
    site.send(*events(range(10)))
    time.sleep(1.1)
    site.send(*events(range(10)))
    site.commit(0, 12, "octane1;12-18;cluster;topic;")
    first, _ = site.json("lag")["partitions"]
    assert (first["committed"], first["messages"], first["pending"]) == (12, 8, [12, 18])
    recent = first["seconds"]
    site.commit(0, 3, "octane1;12-18;cluster;topic;")  # not the start of its intent
    first, _ = site.json("lag")["partitions"]
    assert (first["messages"], first["pending"]) == (17, None)
    assert first["seconds"] > recent + 1.0
    assert " 12-18 " not in site.run("lag")


def test_lag_names_the_owner_while_a_worker_runs(site: Site) -> None:
    site.send(*events(range(5)))
    with site.worker() as worker:
        site.wait_until_stored()
        found = site.json("lag")
        assert found["state"] == "stable"
        owners = {p["owner"]["client_id"] for p in found["partitions"]}
        (owner,) = owners
        assert owner.startswith("octane-analytics-v2-0-t")
        assert found["partitions"][0]["owner"]["host"] == "127.0.0.1"
        assert f"{owner}@127.0.0.1" in site.run("lag")
        worker.child.terminate()
        assert worker.wait() == 0, worker.output
    text = site.run("lag")
    assert "nothing behind" in text
    assert "(empty)" in text


def test_lag_watch_runs_until_interrupted(site: Site) -> None:
    with running(
        site.directory / "lag.log", "lag", "--watch", "0.2", "--json", settings=site.environ
    ) as watching:
        wait_until(lambda: watching.output.count("\n") >= 3)
        watching.interrupt()
        assert watching.wait() == 0
    assert all(json.loads(line)["messages"] == 0 for line in watching.output.splitlines())


def test_lag_without_controller_has_unknown_owner() -> None:
    with EmbeddedKafka(topics={"octane.events": 1}) as kafka:
        done = run("lag", settings={"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers})
    assert done.returncode == 0, done.stderr
    assert "(unknown)" in done.stdout
    assert done.stdout.splitlines()[2].endswith("unknown")


@pytest.mark.parametrize(
    ("settings", "code", "expected"),
    [
        ({"KAFKA_TOPIC": "nowhere"}, 78, "topic nowhere"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 69, "cannot reach a Kafka broker"),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, 69, "kafka:9092"),
    ],
)
def test_lag_reports_errors_in_one_line(
    site: Site, settings: dict[str, str], code: int, expected: str
) -> None:
    said = site.run("lag", code=code, **settings)
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", [["lag"], ["replay", "--from-offset", "0"]])
def test_listener_that_requires_password_is_reported(site: Site, arguments: list[str]) -> None:
    listener = {"KAFKA_BOOTSTRAP_SERVERS": site.kafka.sasl_bootstrap_servers}
    wrong = {
        "KAFKA_RDKAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_RDKAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
        "KAFKA_RDKAFKA_SASL_USERNAME": "somebody",
        "KAFKA_RDKAFKA_SASL_PASSWORD": "mistaken-for-it",
    }
    for given, code, expected in (
        ({}, 69, "requires TLS or SASL (KAFKA_RDKAFKA_SECURITY_PROTOCOL)"),
        (wrong, 78, "check the SASL settings"),
    ):
        done = call(*arguments, settings=site.environ | listener | given)
        assert done.returncode == code, done.stderr
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
        assert "mistaken" not in done.stderr
