"""Commands and workers around a pending batch of several partitions, and around unreadable metadata."""

import json
from pathlib import Path

from octane_analytics.events.decode import decode_all
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.types import LogIdentity, PartitionRange
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]

NEWER = "octane3;what;ever"


def log_of(site: Site) -> LogIdentity:
    exported = json.loads(site.run("offsets", "export"))
    return LogIdentity(exported["cluster_id"], exported["topic_id"], exported["epoch"])


def test_batch_blocks_every_partition_it_names(site: Site, tmp_path: Path) -> None:
    site.store(*events(range(3)))
    site.send(*events(range(3, 5)), partition=0)
    site.send(*events(range(5, 9)), partition=1)
    before = tmp_path / "before.json"
    before.write_text(site.run("offsets", "export"))
    log = log_of(site)
    batch = Intent(site.topic, log, (PartitionRange(0, 3, 5), PartitionRange(1, 0, 2)))
    # Partition 0 was completed by its owner; the batch is pending for partition 1 alone.
    site.clickhouse.insert_block(_columns(range(3, 7)), batch.token(), None)
    site.commit(0, 5, completed(site.topic, log))
    site.commit(1, 0, batch.metadata())

    first, second = site.json("lag")["partitions"]
    assert (first["pending"], first["pending_partitions"]) == (None, [])
    assert (second["pending"], second["pending_partitions"]) == ([0, 2], [0, 1])
    checked = site.json("check")
    (message,) = [c["message"] for c in checked["checks"] if c["subject"] == "offsets"]
    assert "pending for partitions 0, 1" in message
    for arguments in (("set", "--to", "0:4"), ("import", str(before))):
        said = site.run("offsets", *arguments, "--yes", code=Exit.CONFIG)
        assert "pending for partitions 0" in said
        assert said.count("\n") == 1
    assert site.committed()[0][0] == 5

    site.ingest()
    assert site.users() == [str(user) for user in range(9)]
    assert "nothing is pending" in json.dumps(site.json("check"))
    site.run("offsets", "set", "--to", "0:4", "--yes")
    assert site.committed()[0][0] == 4


def test_unreadable_metadata_stops_all_in_one_line(site: Site, tmp_path: Path) -> None:
    site.store(*events(range(3)))
    site.send(*events(range(3, 6)), partition=1)
    site.commit(1, 0, NEWER)
    reason = (
        f"the committed metadata of {site.topic}[1] is not an intent that this version can read"
    )

    assert reason in site.run("lag")
    assert reason in json.dumps(site.json("check", code=Exit.CONFIG))
    exported = site.run("offsets", "export")
    assert json.loads(exported)["partitions"][1]["pending"] == "unreadable"
    export = tmp_path / "offsets.json"
    export.write_text(exported)
    for arguments in (("set", "--to", "0:1"), ("import", str(export))):
        said = site.run("offsets", *arguments, "--yes", code=Exit.CONFIG)
        assert reason in said
        assert said.count("\n") == 1
    with site.worker() as worker:
        assert worker.wait() == Exit.CONFIG
        assert reason in worker.output
        assert "Traceback" not in worker.output
    assert site.users() == ["0", "1", "2"]
    assert site.committed()[1] == (0, NEWER)

    site.run("offsets", "set", "--to", "1:0", "--drop-intents", "--yes")
    site.ingest()
    assert site.users() == [str(user) for user in range(6)]


def _columns(users: range) -> list[list[object]]:
    return [list(column) for column in decode_all(events(users)).columns]
