"""The units under a real systemd: `python -m tests.tools.systemd`, as root.

bin/install with pip, then start, reload, faults, wrong settings, upgrade, rollback and removal, with
Apache Kafka and ClickHouse outside. Takes some five minutes, most of them pip's and the watchdog's.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import wait_until
from tests.support.machine import CHECKOUT, Machine
from tests.support.ports import free_port
from tests.tools.kafka.apache import ApacheKafka

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
WORKER, API = "octane-analytics-worker", "octane-analytics-api"
SETTINGS = "/etc/octane-analytics/octane-analytics.env"
_PACKAGES = "/opt/octane-analytics/current/venv/lib/python3*/site-packages/octane_analytics"
_PASSED_ON = ("PIP_", "SSL_", "REQUESTS_", "http_", "https_", "HTTP_", "HTTPS_")
"""Prefixes of the variables that configure pip."""


def install(machine: Machine, checkout: Path, *arguments: str, python: str = PYTHON) -> str:
    """Return its output, also if it fails."""
    kept = [f"{k}={v}" for k, v in os.environ.items() if k.startswith(_PASSED_ON)]
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    done = machine.run(
        "env", "-i", path, "HOME=/root", *kept, f"PYTHON={python}",
        str(checkout / "bin/install"), *arguments,
        timeout_seconds=600.0,
    )  # fmt: skip
    assert done.returncode == 0 or "install: error: " in done.stderr, done.stderr
    return done.stderr


def ctl(machine: Machine, *arguments: str) -> int:
    return machine.run("systemctl", *arguments).returncode


def wait_active(machine: Machine, unit: str, restarts: int) -> None:
    def is_so() -> bool:
        states = [machine.show(unit, name) for name in ("ActiveState", "NRestarts")]
        return states == ["active", str(restarts)]

    wait_until(is_so, 90.0)


def add_setting(machine: Machine, *lines: str) -> None:
    machine.run("tee", "-a", SETTINGS, given="".join(f"{line}\n" for line in lines))


def go_through(machine: Machine, clickhouse: ClickHouse, settings: list[str]) -> None:
    def rows() -> int:
        return int(clickhouse.select(f"SELECT count() FROM {clickhouse.table}").rows[0][0])

    def send(events: int) -> None:
        wanted = rows() + events
        sent = machine.run("octane-analytics", "produce", "--generate", str(events))
        assert sent.returncode == 0, sent.stderr
        wait_until(lambda: rows() >= wanted)
        time.sleep(1.0)
        assert rows() == wanted

    machine.run("cp", os.path.realpath(PYTHON), "/root/python3")
    assert "in a home directory" in install(machine, CHECKOUT, python="/root/python3")
    say("a Python that the service could not see is refused")
    assert "error" not in install(machine, CHECKOUT)
    say("installed")

    add_setting(machine, *settings)
    assert ctl(machine, "start", WORKER, API) == 0, machine.run("journalctl", "-n", "30").stdout
    wait_active(machine, WORKER, 0)
    wait_until(lambda: machine.show(WORKER, "StatusText").startswith("running: 3 of 3 workers up"))
    assert machine.show(API, "StatusText") == "2 of 2 processes answer"
    send(5000)
    say("started: both are ready, 5,000 events are there once")

    supervisor = machine.show(WORKER, "MainPID")
    limits = machine.run("cat", f"/proc/{supervisor}/limits").stdout.splitlines()
    # 20 less the nice value; a machine whose root may not raise it gives a service what it has.
    allowed = 20 - next(int(line.split()[-1]) for line in limits if line.startswith("Max nice"))
    shown = machine.run("ps", "-o", "ni=,args=", "--ppid", supervisor).stdout.splitlines()
    nice = {args: int(value) for value, args in (line.split(maxsplit=1) for line in shown)}
    assert nice.pop("octane-analytics: metrics") == (-10 if allowed <= -10 else 0), shown
    assert set(nice.values()) == {0}, shown
    say(
        f"who answers scrapes comes first, as far as nice values down to {min(0, allowed)} allow it"
    )

    assert ctl(machine, "reload", WORKER, API) == 0
    wait_until(lambda: told(machine)["reloads"] == 1)
    assert (machine.show(WORKER, "MainPID"), machine.show(WORKER, "NRestarts")) == (supervisor, "0")
    send(1000)
    say("reloaded in the same supervisor")

    machine.run("kill", "-KILL", supervisor)
    wait_active(machine, WORKER, 1)
    send(1000)
    say("a killed supervisor is started again")

    machine.run("kill", "-STOP", machine.show(WORKER, "MainPID"))
    wait_until(lambda: machine.show(WORKER, "Result") == "watchdog", 60.0)
    wait_active(machine, WORKER, 2)
    say("a supervisor that hangs is found by the watchdog")

    assert ctl(machine, "stop", WORKER) == 0
    assert machine.show(WORKER, "Result") == "success"
    machine.run("cp", "-p", SETTINGS, "/tmp/kept")  # noqa: S108
    add_setting(machine, "CLICKHOUSE_TABLE=nowhere")
    assert ctl(machine, "start", WORKER) != 0
    time.sleep(7.0)  # longer than RestartSec
    assert end_of(machine) == ("failed", Exit.CONFIG)
    machine.run("cp", "-p", "/tmp/kept", SETTINGS)  # noqa: S108
    say("a wrong setting ends it with 78, once")

    broken = "s/^    stop = StopSignal().install()$/    raise MemoryError/"
    machine.run(
        "sh",
        "-c",
        f"cp {_PACKAGES}/worker/process.py /tmp/ && sed -i '{broken}' {_PACKAGES}/worker/process.py",
    )
    assert ctl(machine, "start", WORKER) != 0
    time.sleep(7.0)
    assert end_of(machine) == ("failed", Exit.NOT_RUNNING)
    assert "gave up: no worker can start" in machine.show(WORKER, "StatusText")
    machine.run("sh", "-c", f"cp /tmp/process.py {_PACKAGES}/worker/process.py")
    assert ctl(machine, "start", WORKER) == 0
    say("workers that do not start end it with 7, once, and systemd shows why")

    following = Path("/srv/next")
    machine.run("cp", "-r", str(CHECKOUT), str(following))
    version = f"{following}/octane_analytics/__init__.py"
    machine.run("sed", "-i", 's/^__version__ = .*/__version__ = "99.0.0"/', version)
    assert "error" not in install(machine, following, "--upgrade")
    assert "99.0.0" in machine.run("octane-analytics", "--version").stdout
    wait_active(machine, API, 0)
    send(1000)
    current = Path("/opt/octane-analytics/current")
    assert "error" not in install(machine, current, "--rollback")
    assert "99.0.0" not in machine.run("octane-analytics", "--version").stdout
    send(1000)
    say("upgraded, and rolled back")

    clients = f"{following}/octane_analytics/kafka/client_ids.py"
    machine.run("sed", "-i", "s/^PROTOCOL_VERSION = 2$/PROTOCOL_VERSION = 3/", clients)
    upgraded = install(machine, following, "--upgrade")
    assert "error" not in upgraded, upgraded
    assert f"stopping {WORKER}.service: release 99.0.0+2 has delivery protocol 3" in upgraded
    assert "is drained for workers of protocol 3" in upgraded
    wait_active(machine, WORKER, 0)
    send(1000)
    rolled_back = install(machine, current, "--rollback")
    assert "is drained for workers of protocol 2" in rolled_back, rolled_back
    wait_active(machine, WORKER, 0)
    send(1000)
    say("upgraded to another delivery protocol and back, each after the group had drained")

    assert "error" not in install(machine, CHECKOUT, "--uninstall", "--purge")
    assert "octane" not in machine.run("systemctl", "list-units", "--all", "octane*").stdout
    say("removed")


def told(machine: Machine) -> dict[str, object]:
    """By the supervisor."""
    whole: dict[str, object] = json.loads(
        machine.run("octane-analytics", "status", "--json").stdout
    )
    return whole


def end_of(machine: Machine) -> tuple[str, int]:
    return machine.show(WORKER, "ActiveState"), int(machine.show(WORKER, "ExecMainStatus"))


def say(what: str) -> None:
    print(f"OK  {what}", flush=True)


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="octane-systemd-") as made,
        EmbeddedClickHouse(Path(made) / "clickhouse") as engine,
        ApacheKafka() as kafka,
        Machine(ROOT) as machine,
    ):
        kafka.create_topic("octane.events", 8)
        kafka.create_topic("octane.events.dlq", 1)
        target = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(target, client_name="tests") as clickhouse:
            clickhouse.execute(schema.create_table(clickhouse.table))
            settings = [
                f"KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap_servers}",
                f"CLICKHOUSE_HOST={engine.host}",
                f"CLICKHOUSE_PORT={engine.tcp_port}",
                "WORKER_PROCS=3",
                "FLUSH_INTERVAL=0.5",
                f"METRICS_PORT={free_port()}",
                f"API_PORT={free_port()}",
            ]
            go_through(machine, clickhouse, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
