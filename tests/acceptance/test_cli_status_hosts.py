"""`status --hosts` against three supervisors of one group: one is older, one dies and comes back."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from octane_analytics import __version__
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.support.command import COMMAND, Running, call, running, wait_until
from tests.support.ports import free_port
from tests.support.replay_runs import Scene, pool
from tests.support.terminal import on_terminal
from tests.tools.kafka.apache import ApacheKafka

EVENTS = 300
OLDER = "0.9.0"
_OLDER = (
    f"import octane_analytics; octane_analytics.__version__ = {OLDER!r}; "
    "from octane_analytics.cli.main import main; main()"
)


@pytest.fixture
def scene(kafka: ApacheKafka, tmp_path: Path) -> Iterator[Scene]:
    pytest.importorskip("chdb", reason="pip install 'octane-analytics[embedded]'")
    with (
        EmbeddedClickHouse(tmp_path / "clickhouse") as engine,
        Scene(kafka, engine, tmp_path) as scene,
    ):
        yield scene


class Hosts:
    """Supervisors with a worker each; `vm1` is of an older release."""

    def __init__(self, scene: Scene, stack: ExitStack) -> None:
        self._scene = scene
        self._stack = stack
        self.ports = {name: free_port() for name in ("vm1", "vm2", "vm3")}

    def start(self, name: str) -> Running:
        scene = self._scene
        settings = scene.settings | {
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": str(self.ports[name]),
            "KAFKA_INSTANCE_PREFIX": name,
        }
        program = (sys.executable, "-c", _OLDER) if name == "vm1" else (COMMAND,)
        log = scene.directory / f"{name}.log"
        return self._stack.enter_context(
            running(log, "worker", "--procs", "1", settings=settings, program=program)
        )

    @property
    def listed(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    def read(self) -> tuple[int, dict[str, Any]]:
        """Return exit code and JSON of the command."""
        done = call("status", "--hosts", self.listed, "--json")
        return done.returncode, json.loads(done.stdout)

    def until(self, code: int, **total: int | None) -> dict[str, Any]:
        """Block until the command ends with this code and these sums; return its JSON."""
        found: dict[str, Any] = {}

        def has_come() -> bool:
            nonlocal found
            ended, found = self.read()
            sums = {name: found["total"][name] for name in total}
            return (ended, sums) == (code, total)

        wait_until(has_come)
        return found

    def lines(self) -> list[str]:
        """Return the table as a terminal of 80 columns shows it."""
        shown = on_terminal("status", "--hosts", self.listed, columns=80, settings={})
        assert max(map(len, shown.lines)) <= 80, shown.lines
        return shown.lines


def test_three_hosts_are_one_group(scene: Scene) -> None:
    with ExitStack() as stack:
        hosts = Hosts(scene, stack)
        started = {name: hosts.start(name) for name in hosts.ports}
        scene.produce(pool(EVENTS, seed=1))
        found = hosts.until(Exit.OK, workers=3, partitions=scene.partitions, inserted=EVENTS, lag=0)
        assert [host["version"] for host in found["hosts"]] == [OLDER, __version__, __version__]
        lines = hosts.lines()
        text = " ".join(lines)
        assert "3 of 3 hosts answer, 3 workers, 300 events inserted" in text
        assert f"{OLDER} on 127.0.0.1:{hosts.ports['vm1']}" in text
        assert [line.split()[-1] for line in lines[-3:]] == ["ready"] * 3

        started["vm2"].child.send_signal(signal.SIGKILL)
        started["vm2"].wait()
        found = hosts.until(Exit.FAILED, workers=2)
        lines = hosts.lines()
        assert "2 of 3 hosts answer" in lines[0]
        assert lines[-2].endswith("no answer: connection refused")

        hosts.start("vm2")
        found = hosts.until(Exit.OK, workers=3, partitions=scene.partitions)
        assert [host["is_ready"] for host in found["hosts"]] == [True] * 3
    assert scene.rows() == EVENTS
