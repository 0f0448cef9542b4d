"""The command line of bin/kafka: a real Apache Kafka for a developer, in the background or not.

Owns the list of brokers that were started in the background. It stands in the cache, one file per
port, each naming a process by its id and start time, so that a stranger with a recycled id is never
taken for a broker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from tests.tools.kafka.apache import CONSUMER_GROUPS, HOST, TOPICS, ApacheKafka, KafkaError, prepare
from tests.tools.kafka.jars import CACHE, fetch, say

BROKERS = CACHE / "brokers"
TOOLS = {"consumer-groups": CONSUMER_GROUPS, "topics": TOPICS}
DOWNLOAD_SECONDS = 900
NOT_RUNNING = 3  # as in the exit codes of `systemctl status`


@dataclass(frozen=True)
class Broker:
    """Record of a broker that was started in the background."""

    pid: int
    ticks: int
    port: int
    directory: str
    is_temporary: bool

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def is_alive(self) -> bool:
        return _start_ticks(self.pid) == self.ticks

    @property
    def record(self) -> Path:
        return BROKERS / f"{self.port}.json"

    def __str__(self) -> str:
        return f"{self.address} (pid {self.pid}, {self.directory})"


def main(arguments: Sequence[str]) -> int:
    try:
        # The tools parse their own options.
        if arguments and arguments[0] in TOOLS:
            return _tool(TOOLS[arguments[0]], list(arguments[1:]))
        options = _parser().parse_args(arguments)
        match options.command:
            case "start":
                return _start(options)
            case "stop":
                return _stop(_chosen(options))
            case "status":
                return _status(_chosen(options))
            case "run":
                return _run(options)
            case _:
                prepare(DOWNLOAD_SECONDS)
                return 0
    except KafkaError as error:
        say(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/kafka",
        description="A real Apache Kafka, one node on this machine's loopback. "
        "Needs Java 17 and Maven; the first use fetches 45 MB.",
        epilog="bin/kafka topics ... and bin/kafka consumer-groups ... take the options of Kafka's "
        "own tools; --bootstrap-server is filled in while one broker runs in the background.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in (
        ("start", "start a broker in the background and print its address"),
        ("run", "run a broker until Ctrl-C"),
        ("stop", "stop a broker that was started in the background"),
        ("status", "list the brokers in the background; exit code 3 when there is none"),
        ("fetch", "only download and prepare"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == "fetch":
            continue
        command.add_argument("--port", type=int, help="TCP port (default: a free one, or any)")
        command.add_argument(
            "--dir", type=Path, help="where its data is kept (default: a temporary one, or any)"
        )
        if name in ("start", "run"):
            command.add_argument(
                "--partitions",
                type=int,
                default=1,
                help="partitions of a topic that does not say (default: 1)",
            )
            command.add_argument(
                "--auto-create",
                action="store_true",
                help="create unknown topics on first use (default: an error, as in production)",
            )
    return parser


def _broker_of(options: argparse.Namespace, *, is_leashed: bool) -> ApacheKafka:
    return ApacheKafka(
        options.dir,
        port=options.port,
        partitions=options.partitions,
        settings={"auto.create.topics.enable": "true"} if options.auto_create else None,
        is_leashed=is_leashed,
    )


def _start(options: argparse.Namespace) -> int:
    if options.port or options.dir:
        for broker in _chosen(options):
            say(f"already runs: {broker}")
            print(broker.address)
            return 0
    prepare(DOWNLOAD_SECONDS)
    say("starting (about two seconds)")
    started = time.monotonic()
    kafka = _broker_of(options, is_leashed=False)
    kafka.start()
    ticks = _start_ticks(kafka.pid)
    assert ticks is not None
    broker = Broker(kafka.pid, ticks, kafka.port, str(kafka.directory), options.dir is None)
    BROKERS.mkdir(parents=True, exist_ok=True)
    unfinished = broker.record.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(broker)))
    unfinished.replace(broker.record)
    kafka.release()
    say(f"up after {time.monotonic() - started:.1f} s: {broker}")
    print(broker.address)
    return 0


def _run(options: argparse.Namespace) -> int:
    prepare(DOWNLOAD_SECONDS)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    kafka = _broker_of(options, is_leashed=True)
    try:
        kafka.start()
        say(f"up on {kafka.bootstrap_servers} ({kafka.directory}); Ctrl-C ends it")
        print(kafka.bootstrap_servers, flush=True)
        while kafka.is_running:
            time.sleep(0.2)
        say(f"the broker ended by itself; see {kafka.directory / 'broker.log'}")
        return 1
    except KeyboardInterrupt:
        say("stopping")
        kafka.stop()
        kafka.close()
        return 0


def _stop(brokers: Sequence[Broker]) -> int:
    if not brokers:
        say("no such broker is running")
        return 0
    if len(brokers) > 1:
        for broker in brokers:
            say(str(broker))
        raise KafkaError("several brokers are running: say which with --port or --dir")
    (broker,) = brokers
    say(f"stopping {broker}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(broker.pid, signal.SIGTERM)
        os.kill(broker.pid, signal.SIGCONT)
        deadline = time.monotonic() + 30
        while broker.is_alive:
            if time.monotonic() > deadline:
                os.kill(broker.pid, signal.SIGKILL)
            time.sleep(0.05)
    broker.record.unlink(missing_ok=True)
    if broker.is_temporary:
        shutil.rmtree(broker.directory, ignore_errors=True)
    return 0


def _status(brokers: Sequence[Broker]) -> int:
    for broker in brokers:
        print(broker)
    if not brokers:
        say("no broker is running in the background")
    return 0 if brokers else NOT_RUNNING


def _tool(main: str, arguments: list[str]) -> int:
    if arguments and not {"--bootstrap-server", "--help", "--version"} & set(arguments):
        brokers = _alive()
        if len(brokers) != 1:
            raise KafkaError(
                f"{len(brokers)} brokers are running in the background: "
                "give --bootstrap-server HOST:PORT"
            )
        arguments = ["--bootstrap-server", brokers[0].address, *arguments]
    installation = fetch(DOWNLOAD_SECONDS)
    return subprocess.run(installation.command(main, *arguments), check=False).returncode


def _chosen(options: argparse.Namespace) -> list[Broker]:
    directory = str(options.dir.absolute()) if options.dir else None
    return [
        broker
        for broker in _alive()
        if options.port in (None, broker.port) and directory in (None, broker.directory)
    ]


def _alive() -> list[Broker]:
    """Return the running brokers, and remove the records of dead ones."""
    alive = []
    for record in sorted(BROKERS.glob("*.json")):
        broker = Broker(**json.loads(record.read_text()))
        if broker.is_alive:
            alive.append(broker)
        else:
            record.unlink(missing_ok=True)
            if broker.is_temporary:
                shutil.rmtree(broker.directory, ignore_errors=True)
    return alive


def _start_ticks(pid: int) -> int | None:
    """Return the start of the process in clock ticks since boot; None if it has ended. See proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may contain parentheses; the fields continue after the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
