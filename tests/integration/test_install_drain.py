"""bin/install between releases with different delivery protocols, with Apache Kafka and real workers."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octane_analytics import __version__
from octane_analytics.pipeline.intents import Intent
from octane_analytics.types import LogIdentity, OffsetRange, PartitionRange
from tests.support import version_1
from tests.support.checkout import Checkout
from tests.support.command import call, wait_until
from tests.support.operations_fixtures import Site, events, site

__all__ = ["site"]

OLD, NEW = __version__, "99.0.0"
PROTOCOLS = "octane_analytics/kafka/client_ids.py"
WORKER = "octane-analytics-worker.service"
# Runs the worker as systemd does: from the release that is current when it starts, until it has drained.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
running() { [ -s "$PID" ] && kill -0 "$(cat "$PID")" 2>/dev/null; }
stop() {
    running || return 0
    kill -TERM "$(cat "$PID")"
    while running; do sleep 0.05; done
}
start() {
    ! running || return 0
    "$BASE/current/bin/octane-analytics" --env-file "$SETTINGS" worker --procs 1 \\
        >>"$LOG" 2>&1 </dev/null 9>&- &
    echo $! >"$PID"
}
case "$1 $2" in
    list-units*) ! running || echo "octane-analytics-worker.service loaded" ;;
    "stop octane-analytics-worker.service") stop ;;
    "start octane-analytics-worker.service") start ;;
    "restart octane-analytics-worker.service") stop; start ;;
    is-active*) running ;;
esac
"""


class Host:
    """Machine with an installed release and its worker."""

    def __init__(self, checkout: Checkout, site: Site, directory: Path) -> None:
        self.checkout = checkout
        self.calls = directory / "calls"
        self.log = directory / "worker.log"
        self.log.touch()
        self._pid = directory / "pid"
        with checkout.settings.open("a") as settings:
            settings.writelines(f"{name}={value}\n" for name, value in site.environ.items())
        program = checkout.put_program("fake-systemctl", SYSTEMCTL)
        self._given = {
            "SYSTEMCTL": str(program),
            "CALLS": str(self.calls),
            "BASE": str(checkout.base),
            "SETTINGS": str(checkout.settings),
            "LOG": str(self.log),
            "PID": str(self._pid),
        }

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.checkout.install(*arguments, given=self._given, timeout_seconds=120.0)

    def ctl(self, *arguments: str) -> None:
        # With a file as its output, because the worker that it starts keeps that open.
        with self.log.open("ab") as log:
            subprocess.run(
                [self._given["SYSTEMCTL"], *arguments],
                env=self.checkout.environment(self._given),
                stdout=log,
                stderr=log,
                check=True,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        try:
            os.kill(int(self._pid.read_text()), 0)
        except (OSError, ValueError):
            return False
        return True


@pytest.fixture(scope="module")
def upgradable(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Installation of a release with protocol 1, and a checkout with the present protocol."""
    checkout = Checkout(tmp_path_factory.mktemp("upgradable"))
    present = (checkout.path / PROTOCOLS).read_text()
    checkout.edit(PROTOCOLS, "PROTOCOL_VERSION = 2\n", "PROTOCOL_VERSION = 1\n")
    done = checkout.install()
    assert done.returncode == 0, done.stderr
    (checkout.path / PROTOCOLS).write_text(present)
    checkout.set_version(NEW)
    return checkout


@pytest.fixture
def host(upgradable: Checkout, site: Site, tmp_path: Path) -> Iterator[Host]:
    with_worker = Host(Checkout(tmp_path / "host", upgradable), site, tmp_path)
    yield with_worker
    with_worker.ctl("stop", WORKER)


def members(site: Site) -> int:
    done = call("offsets", "pending", "--json", settings=site.environ)
    assert done.returncode in (0, 1), done.stderr
    return len(json.loads(done.stdout)["members"])


def log_identity(site: Site) -> LogIdentity:
    exported = json.loads(site.run("offsets", "export"))
    return LogIdentity(exported["cluster_id"], exported["topic_id"], exported["epoch"])


@contextmanager
def load(site: Site, first: int) -> Iterator[list[int]]:
    """Send events until the end; the list has the users of those sent."""
    sent: list[int] = []
    is_over = threading.Event()

    def send() -> None:
        user = first
        while not is_over.wait(0.05):
            site.send(*events(range(user, user + 20)), partition=user // 20 % 2)
            sent.extend(range(user, user + 20))
            user += 20

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        is_over.set()
        sender.join()


def test_upgrade_under_load_recovers_older_batch(site: Site, host: Host) -> None:
    site.send(*events(range(5)))
    log = log_identity(site)
    older = version_1.Intent(OffsetRange(0, 5), log)
    site.commit(0, 0, older.metadata())
    with load(site, 5) as sent:
        wait_until(lambda: len(sent) > 100)
        done = host.install("--upgrade")
        assert done.returncode == 0, done.stderr
        assert host.checkout.current == NEW
        host.ctl("start", WORKER)
        wait_until(lambda: site.rows() > 100)
        done = host.install("--rollback")
        assert done.returncode == 0, done.stderr
        assert host.checkout.current == OLD
        assert f"stopping {WORKER}: release {OLD} has delivery protocol 1" in done.stderr
        assert f"group {site.group} is drained for workers of protocol 1" in done.stderr
        rows = site.rows()
        wait_until(lambda: site.rows() > rows)
        done = host.install("--upgrade")
        assert done.returncode == 0, done.stderr
        rows = site.rows()
        wait_until(lambda: site.rows() > rows)
    wait_until(lambda: site.rows() >= 5 + len(sent))
    host.ctl("stop", WORKER)
    assert sorted(map(int, site.users())) == [*range(5), *sent]
    assert "another version" not in host.log.read_text()
    order = [line for line in host.calls.read_text().splitlines() if WORKER in line]
    assert order == [
        f"start {WORKER}",
        *[f"{call} {WORKER}" for call in ("stop", "restart", "is-active --quiet")] * 2,
        f"stop {WORKER}",
    ]


def test_worker_of_another_host_stops_the_switch(site: Site, host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = Host(Checkout(other / "host", host.checkout), site, other)
    for each in (host, second):
        each.ctl("start", WORKER)
    try:
        wait_until(lambda: members(site) == 2)
        done = host.install("--upgrade", "--wait", "2")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-2:] == [
            f"install: error: the group is not drained after 2 s, see above; not switched to release "
            f"{NEW}",
            f"install: starting {WORKER} again with release {OLD}",
        ]
        assert f"group {site.group} has a worker of another protocol than 2: " in done.stderr
        assert "octane-analytics-v1-0-t" in done.stderr
        assert host.checkout.current == OLD
        wait_until(host.is_running)
    finally:
        second.ctl("stop", WORKER)
    done = host.install("--upgrade")
    assert done.returncode == 0, done.stderr
    assert host.is_running()


def test_batch_of_newer_protocol_stops_rollback(site: Site, host: Host) -> None:
    done = host.install("--upgrade", "--no-check")
    assert done.returncode == 0, done.stderr
    site.send(*events(range(3)))
    batch = Intent(site.topic, log_identity(site), (PartitionRange(0, 0, 3),))
    site.commit(0, 0, batch.metadata())
    done = host.install("--rollback", "--wait", "0")
    assert done.returncode == 1
    assert "has a pending batch that protocol 1 does not read, of partitions 0: " in done.stderr
    assert host.checkout.current == NEW
    host.ctl("start", WORKER)
    wait_until(lambda: site.rows() == 3)
    done = host.install("--rollback")
    assert done.returncode == 0, done.stderr
    assert host.checkout.current == OLD
    assert site.users() == ["0", "1", "2"]


def test_failed_check_restarts_the_older_workers(site: Site, host: Host) -> None:
    host.ctl("start", WORKER)
    wait_until(lambda: members(site) == 1)
    with host.checkout.settings.open("a") as settings:
        settings.write("CLICKHOUSE_TABLE=nowhere\n")
    done = host.install("--upgrade")
    assert done.returncode == 1
    assert "failed the checks above; not switched" in done.stderr
    assert done.stderr.splitlines()[-1] == (f"install: starting {WORKER} again with release {OLD}")
    assert host.checkout.current == OLD
    calls = [line for line in host.calls.read_text().splitlines() if WORKER in line]
    assert calls[-2:] == [f"stop {WORKER}", f"start {WORKER}"]


def test_workers_stay_stopped_beside_newer_protocol(site: Site, host: Host, tmp_path: Path) -> None:
    host.ctl("start", WORKER)
    wait_until(lambda: members(site) == 1)
    other = tmp_path / "other"
    other.mkdir()
    second = Host(Checkout(other / "host", host.checkout), site, other)
    with host.checkout.settings.open("a") as settings:
        settings.write("CLICKHOUSE_TABLE=nowhere\n")
    host.ctl("stop", WORKER)
    assert second.install("--upgrade").returncode == 0
    second.ctl("start", WORKER)
    try:
        wait_until(lambda: members(site) == 1)
        # An interrupted upgrade had stopped it.
        (host.checkout.base / ".stopped").write_text(f"{WORKER}\n")
        done = host.install("--upgrade")
        assert done.returncode == 1
        assert f"not starting {WORKER}: the group is not drained for release {OLD}" in done.stderr
        assert not host.is_running()
    finally:
        second.ctl("stop", WORKER)


def test_pending_command_reports_members_batches_and_readiness(site: Site) -> None:
    site.send(*events(range(3)))
    assert site.json("offsets", "pending")["ready"] is True
    batch = Intent(site.topic, log_identity(site), (PartitionRange(0, 0, 3),))
    site.commit(0, 0, batch.metadata())
    found = site.json("offsets", "pending", code=1)
    assert found["pending"] == [{"partition": 0, "range": [0, 3], "protocol": 2, "batch": [0]}]
    said = site.run("offsets", "pending", "--for-protocol", "2")
    assert said.splitlines()[-1] == f"group {site.group} is drained for workers of protocol 2"
    with site.worker() as worker:
        wait_until(lambda: site.rows() == 3)
        found = site.json("offsets", "pending", code=1)
        (member,) = found["members"]
        assert member["client_id"].startswith("octane-analytics-v2-0-t")
        assert member["protocol"] == 2
        assert f"has a worker: {member['client_id']}@127.0.0.1" in found["obstacles"][0]
        threading.Timer(1.0, worker.child.terminate).start()
        said = site.run("offsets", "pending", "--wait", "30")
        assert said == f"group {site.group} is drained\n"
    unreachable = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    assert "127.0.0.1:1" in site.run("offsets", "pending", code=69, **unreachable)
