"""Incidents of the runbook, caused on Apache Kafka and real ClickHouse and repaired by its commands.

The commands are read from the page of the manual, so that the tests run the text of the page.
"""

import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from octane_analytics.clickhouse import schema
from tests.support.command import wait_until
from tests.support.operations_fixtures import Site, event, events, site

__all__ = ["site"]

MANUAL = Path(__file__).resolve().parents[2] / "octane_analytics" / "manual"
PAGE = (MANUAL / "runbook.md").read_text()
STUBBORN = {"DLQ_MAX_RATIO": "1", "DLQ_MAX_CONSECUTIVE": "0"}
OLDER = """
from octane_analytics.events import decode as module
from octane_analytics.errors import DecodeError

module._OPENS  # fails if the module below is another one
original = module._decode_event

def older(value):
    event = original(value)
    if event.app_id == "tomorrow":
        raise module.msgspec.ValidationError("Expected `int`, got `str` - at `$.app_id`")
    return event

module._decode_event = older
"""
"""Decoder in Python of a version that rejects an application's events."""


def commands(section: str, part: str = "") -> list[list[str]]:
    """Return the `octane-analytics` lines below the heading, or below the bold words within it."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    if part:
        text = text.partition(f"**{part}**")[2].partition("\n**")[0]
    lines = re.findall(r"^octane-analytics (.*)$", text, re.MULTILINE)
    assert lines, f"{section} {part}"
    return [shlex.split(line) for line in lines]


def follow(site: Site, steps: list[list[str]], given: Mapping[str, str] | None = None) -> list[str]:
    """Run the commands, with `given` in place of their example values; return their outputs."""
    return [site.run(*((given or {}).get(word, word) for word in step)) for step in steps]


def users(*sets: range) -> Counter[str]:
    return Counter(str(user) for users in sets for user in users)


def stored(site: Site) -> Counter[str]:
    return Counter(site.users())


def test_dropped_table_is_replayed(site: Site) -> None:
    table = schema.TableName(*str(site.clickhouse.table).split("."))
    site.send(*events(range(200)))
    with site.worker() as worker:
        wait_until(lambda: site.rows() == 200)
        site.clickhouse.execute(f"DROP TABLE {table} SYNC")
        site.send(*events(range(200, 300)), partition=1)
        worker.wait_for("waiting for a dependency")
        assert "schema apply" in worker.output
        apply, dry_run, replay = commands("The table was dropped")
        follow(site, [apply])
        wait_until(lambda: site.rows() == 100)
        site.wait_until_stored()
        (planned,) = follow(site, [dry_run])
        assert "200" in planned
        assert site.rows() == 100
        follow(site, [replay])
        assert stored(site) == users(range(300))
        follow(site, [replay])
        worker.child.terminate()
        assert worker.wait() == 0, worker.output
    assert stored(site) == users(range(300))


def test_bad_deploy_upstream_is_retried(site: Site) -> None:
    older = site.directory / "older"
    older.mkdir()
    (older / "sitecustomize.py").write_text(OLDER)
    older_version = {"PYTHONPATH": str(older), "DECODER": "python"}
    fresh = [event(user).replace(b"openstream", b"tomorrow") for user in range(50, 1550)]
    site.store(*events(range(50)))
    site.send(*fresh, *events(range(1550, 1600)))
    with site.worker(**older_version) as worker:
        assert worker.wait() == 78, worker.output
        assert "are not valid events" in worker.output
    assert site.rows() == 50
    assert site.json("dlq", "list")["reasons"] == []
    site.ingest(**older_version, **STUBBORN)
    assert stored(site) == users(range(50), range(1550, 1600))
    listed, shown, planned, retried, purged = follow(site, commands("A bad deploy upstream"))
    assert "wrong_type" in listed
    assert '"app_id": "tomorrow"' in shown
    assert "1,500 dead-letter messages" in planned
    assert "1,500 inserted, 0 stay" in retried
    assert "kafka-delete-records" in purged
    assert stored(site) == users(range(1600))
    follow(site, commands("A bad deploy upstream"))
    assert stored(site) == users(range(1600))


def test_clickhouse_restored_from_backup_is_filled(site: Site) -> None:
    table = site.clickhouse.table
    site.store(*events(range(200)))
    site.clickhouse.execute(f"CREATE TABLE {table.database}.backup AS {table}")
    site.clickhouse.execute(f"INSERT INTO {table.database}.backup SELECT * FROM {table}")
    time.sleep(0.1)
    made = datetime.now(UTC).isoformat()
    time.sleep(0.1)
    # Equal and other events: only the number of equal ones shows what is missing.
    site.store(*events(range(150, 400)), partition=1)
    site.clickhouse.execute(f"TRUNCATE TABLE {table}")
    site.clickhouse.execute(f"INSERT INTO {table} SELECT * FROM {table.database}.backup")
    steps = commands("ClickHouse was restored from yesterday's backup")
    _, planned, _ = follow(site, steps, {"2026-11-23T02:00:00Z": made})
    assert "250" in planned
    assert stored(site) == users(range(200), range(150, 400))
    follow(site, steps, {"2026-11-23T02:00:00Z": made})
    assert stored(site) == users(range(200), range(150, 400))


def test_stuck_consumer_is_explained_by_foreign_member(site: Site) -> None:
    site.send(*events(range(100)))
    site.send(*events(range(100, 200)), partition=1)
    foreign = Consumer(
        {
            "bootstrap.servers": site.kafka.bootstrap_servers,
            "client.id": "somebody-else",
            "group.id": site.group,
            "enable.auto.commit": False,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "log_level": 0,
        }
    )
    foreign.subscribe([site.topic])
    wait_until(lambda: foreign.poll(0.1) is not None or bool(foreign.assignment()))
    look, check = commands("A consumer is stuck")
    try:
        with site.worker() as worker:

            def is_shared() -> bool:
                foreign.poll(0.1)
                return bool(site.rows() == 100)

            wait_until(is_shared)
            assert "somebody-else@127.0.0.1" in site.run(*look)
            found = site.run(*check, code=78)
            assert "members that are not of this service" in found
            assert "somebody-else@127.0.0.1" in found
            foreign.close()
            wait_until(lambda: site.rows() == 200)
            wait_until(lambda: "nothing behind" in site.run(*look))
            site.run(*check)
            worker.child.terminate()
            assert worker.wait() == 0, worker.output
    finally:
        foreign.close()
    assert stored(site) == users(range(200))


def test_offsets_moved_ahead_are_replayed(site: Site) -> None:
    site.store(*events(range(100)))
    site.send(*events(range(100, 300)))
    site.commit(0, 250)
    site.ingest()
    assert stored(site) == users(range(100), range(250, 300))
    follow(site, commands("The group's offsets are wrong", "Ahead."))
    assert stored(site) == users(range(300))


def test_offsets_moved_back_are_imported_before_a_run(site: Site) -> None:
    site.store(*events(range(100)))
    (export,) = [
        step
        for step in commands("The group's offsets are wrong")
        if step[:2] == ["offsets", "export"]
    ]
    kept = site.directory / "offsets.json"
    kept.write_text(site.run(*export[:2]))
    site.commit(0, 0)
    site.send(*events(range(100, 120)))
    part = "Back, and no worker has run since."
    steps = commands("The group's offsets are wrong", part)
    follow(site, steps, {"offsets.json": str(kept)})
    site.ingest()
    assert stored(site) == users(range(120))


def test_offsets_moved_back_are_rebuilt_after_a_run(site: Site) -> None:
    site.store(*events(range(100)))
    site.run("offsets", "set", "--to", "0:30", "--yes")
    site.send(*events(range(100, 120)))
    site.ingest()
    assert site.rows() == 190
    steps = commands("The group's offsets are wrong", "Back, and workers have run.")
    follow(site, steps)
    assert stored(site) == users(range(120))


@pytest.mark.parametrize("command", re.findall(r"^octane-analytics (\w+)", PAGE, re.MULTILINE))
def test_operations_page_has_every_runbook_command(command: str) -> None:
    assert f"`{command}" in (MANUAL / "operations.md").read_text()
