"""`octane-analytics offsets` on Apache Kafka."""

import json

import pytest

from octane_analytics.cli.commands import offsets as commands
from tests.support.command import call
from tests.support.operations_fixtures import Site, events, site
from tests.support.terminal import on_terminal

__all__ = ["site"]


def test_export_is_imported_unchanged(site: Site) -> None:
    site.store(*events(range(10)))
    exported = site.run("offsets", "export")
    before = site.committed()
    site.commit(0, 2)
    file = site.directory / "offsets.json"
    file.write_text(exported)
    assert f"{site.topic}[0]: 2 -> 10" in site.run("offsets", "import", "--dry-run", str(file))
    assert site.committed()[0] == (2, "")
    site.run("offsets", "import", str(file), code=2, given="y\n")
    assert site.committed()[0] == (2, "")
    declined = on_terminal(
        *("offsets", "import", str(file)), answers=[("set 1 ", "n\n")], settings=site.environ
    )
    assert declined.code == 1
    agreed = on_terminal(
        *("offsets", "import", str(file)), answers=[("set 1 ", "y\n")], settings=site.environ
    )
    assert (agreed.code, agreed.lines[-1][:13]) == (0, "set 1 offsets")
    assert site.committed() == before
    assert "nothing to do" in site.run("offsets", "import", "--yes", "-", given=exported)


def test_export_of_group_without_commits_is_reported(site: Site) -> None:
    done = call("offsets", "export", settings=site.environ | {"KAFKA_GROUP_ID": "mistyped"})
    assert (done.returncode, json.loads(done.stdout)["group"]) == (0, "mistyped")
    assert "mistyped has not committed offsets" in done.stderr
    assert done.stderr.count("\n") == 1


def test_pending_intent_is_exported_with_offset(site: Site) -> None:
    site.send(*events(range(10)))
    cluster, topic_id = (
        json.loads(site.run("offsets", "export"))[name] for name in ("cluster_id", "topic_id")
    )
    pending = f"octane1;0-6;{cluster};{topic_id};"
    site.commit(0, 0, pending)
    exported = site.run("offsets", "export")
    assert json.loads(exported)["partitions"][0]["pending"] == "0-6"
    site.commit(0, 10)
    site.run("offsets", "import", "--yes", "-", given=exported)
    assert site.committed()[0] == (0, pending)
    site.ingest()
    assert site.users() == sorted(str(user) for user in range(10))


def test_import_refuses_active_members(site: Site) -> None:
    site.send(*events(range(3)))
    exported = site.run("offsets", "export")
    with site.worker() as worker:
        site.wait_until_stored()
        said = site.run("offsets", "import", "--yes", "-", given=exported, code=78)
        assert "has 1 active members (127.0.0.1)" in said
        worker.child.terminate()
        assert worker.wait() == 0


def test_import_reports_errors_in_one_line(site: Site) -> None:
    exported = site.run("offsets", "export")
    site.kafka.create_topic(f"{site.topic}.other", 2)
    for given, settings, code, expected in (
        ("{", {}, 78, "is not JSON"),
        ("{}", {}, 78, "not an export of offsets"),
        (exported, {"KAFKA_TOPIC": f"{site.topic}.other"}, 78, "offsets of one topic mean nothing"),
        (exported.replace(site.topic, f"{site.topic}.other"), {"KAFKA_TOPIC": f"{site.topic}.other"},
         78, "--other-log"),
        (exported.replace("null", "99", 1), {}, 78, "holds the offsets from 0 to 0"),
        (exported, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 69, "cannot reach"),
    ):  # fmt: skip
        said = site.run("offsets", "import", "--yes", "-", given=given, code=code, **settings)
        assert expected in said
        assert said.count("\n") == 1
    assert site.committed()[0][0] < 0


@pytest.mark.parametrize(
    "arguments", [("offsets", "set", "--to", "beginning"), ("offsets", "import", "exported")]
)
def test_offsets_that_change_during_question_stay(
    site: Site, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker runs while the operator thinks, and is killed with a batch pending."""
    site.send(*events(range(10)))
    site.commit(0, 4)
    file = site.directory / "exported"
    file.write_text(site.run("offsets", "export"))
    site.commit(0, 8)

    def answer(*_: object, **__: object) -> None:
        site.commit(0, 9, "a batch")

    monkeypatch.setattr(commands, "confirm", answer)
    said = site.run(*(str(file) if a == "exported" else a for a in arguments), code=78)
    assert ("8 are read again" if arguments[1] == "set" else "4 offsets are read again") in said
    assert site.committed()[0] == (9, "a batch")
