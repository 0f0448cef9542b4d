"""The installed command in a child process, with real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from click.testing import CliRunner

from octane_analytics.cli.main import main

COMMAND = str(Path(sys.executable).with_name("octane-analytics"))
DEADLINE_SECONDS = 60.0

_OURS = re.compile(
    "KAFKA_|CLICKHOUSE_|API_|METRICS_|PROMETHEUS_|WORKER_|BATCH_|FLUSH_|LOG_|DELIVERY|DRAIN|OTEL_"
)

_NONE: Mapping[str, str] = MappingProxyType({})


def environment(settings: Mapping[str, str] = _NONE) -> dict[str, str]:
    """Return this process's environment with the given settings of the service only."""
    kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    return kept | dict(settings)


def run(
    *arguments: str,
    given: str | bytes = b"",
    timeout_seconds: float = DEADLINE_SECONDS,
    settings: Mapping[str, str] = _NONE,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end and accept any exit code."""
    done = subprocess.run(
        [COMMAND, *arguments],
        input=given.encode() if isinstance(given, str) else given,
        env=environment(settings),
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def call(
    *arguments: str, given: str = "", settings: Mapping[str, str] = _NONE
) -> subprocess.CompletedProcess[str]:
    """Run the command within this process, otherwise as `run`: fast, for read-only commands.

    Not for commands that fork (`worker`, an accepted `replay`) or exit at once (`check`).
    """
    environ: dict[str, str | None] = {name: None for name in os.environ if _OURS.match(name)}
    done = CliRunner(env=environ | dict(settings)).invoke(main, list(arguments), input=given)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


class Running:
    """Running command, the leader of a new session."""

    def __init__(self, child: subprocess.Popen[bytes], output: Path) -> None:
        self.child = child
        self._output = output

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, timeout_seconds: float = DEADLINE_SECONDS) -> None:
        def has_come() -> bool:
            assert self.child.poll() is None or text in self.output, self.output
            return text in self.output

        wait_until(has_come, timeout_seconds)

    def interrupt(self) -> None:
        """Send SIGINT to the whole foreground group, as Ctrl-C does."""
        os.killpg(self.child.pid, signal.SIGINT)

    def wait(self, timeout_seconds: float = DEADLINE_SECONDS) -> int:
        return self.child.wait(timeout_seconds)


@contextmanager
def running(
    output: Path,
    *arguments: str,
    settings: Mapping[str, str] = _NONE,
    program: Sequence[str] = (COMMAND,),
) -> Iterator[Running]:
    """Start the command, or another program in its place; kill it at the end if it still runs."""
    with output.open("wb") as sink:
        child = subprocess.Popen(
            [*program, *arguments],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield Running(child, output)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def wait_until(condition: Callable[[], bool], timeout_seconds: float = DEADLINE_SECONDS) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def processes_with(mark: str) -> Mapping[int, str]:
    """Return the processes with the text in their environment, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            variables = (entry / "environ").read_bytes()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in variables and line:
            found[int(entry.name)] = line.replace(b"\0", b" ").decode()
    return found
