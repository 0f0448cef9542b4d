"""The command line of bin/kafka: a real Apache Kafka for a developer, in the background or not.

background.py, beside it, records what was started in the background.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.tools.kafka import background
from tests.tools.kafka.admin import CONSUMER_GROUPS, TOPICS
from tests.tools.kafka.apache import ApacheKafka, KafkaError, prepare
from tests.tools.kafka.background import Started
from tests.tools.kafka.cluster import KafkaCluster
from tests.tools.kafka.jars import fetch, say

TOOLS = {"consumer-groups": CONSUMER_GROUPS, "topics": TOPICS}
DOWNLOAD_SECONDS = 900
NOT_RUNNING = 3  # as in the exit codes of `systemctl status`


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
        description="A real Apache Kafka on this machine's loopback: one node, or a cluster. "
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
                "--brokers",
                type=int,
                default=1,
                help="more than one: a cluster with a controller of its own, in which each topic has a "
                "replica on every broker (default: 1)",
            )
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


def _kafka(options: argparse.Namespace, *, is_leashed: bool) -> ApacheKafka | KafkaCluster:
    settings = {"auto.create.topics.enable": "true"} if options.auto_create else None
    if options.brokers > 1:
        if options.port:
            raise KafkaError("--port is for one broker: the brokers of a cluster choose free ports")
        return KafkaCluster(
            options.brokers,
            options.dir,
            partitions=options.partitions,
            settings=settings,
            is_leashed=is_leashed,
        )
    return ApacheKafka(
        options.dir,
        port=options.port,
        partitions=options.partitions,
        settings=settings,
        is_leashed=is_leashed,
    )


def _start(options: argparse.Namespace) -> int:
    if options.port or options.dir:
        for started in _chosen(options):
            say(f"already runs: {started}")
            print(started.address)
            return 0
    prepare(DOWNLOAD_SECONDS)
    say("starting (about two seconds for each broker)")
    begun = time.monotonic()
    kafka = _kafka(options, is_leashed=False)
    try:
        kafka.start()
        started = background.record(kafka, is_temporary=options.dir is None)
    except BaseException:
        kafka.close()
        raise
    kafka.release()
    say(f"up after {time.monotonic() - begun:.1f} s: {started}")
    print(started.address)
    return 0


def _run(options: argparse.Namespace) -> int:
    prepare(DOWNLOAD_SECONDS)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    kafka = _kafka(options, is_leashed=True)
    try:
        kafka.start()
        say(f"up on {kafka.bootstrap_servers} ({kafka.directory}); Ctrl-C ends it")
        print(kafka.bootstrap_servers, flush=True)
        while kafka.is_running:
            time.sleep(0.2)
        say(f"a broker ended by itself; see broker.log in {kafka.directory}")
        return 1
    except KeyboardInterrupt:
        say("stopping")
        kafka.stop()
        kafka.close()
        return 0


def _stop(chosen: Sequence[Started]) -> int:
    if not chosen:
        say("no such broker is running")
        return 0
    if len(chosen) > 1:
        for started in chosen:
            say(str(started))
        raise KafkaError("several brokers are running: say which with --port or --dir")
    (started,) = chosen
    say(f"stopping {started}")
    started.stop()
    return 0


def _status(chosen: Sequence[Started]) -> int:
    for started in chosen:
        print(started)
    if not chosen:
        say("no broker is running in the background")
    return 0 if chosen else NOT_RUNNING


def _tool(main: str, arguments: list[str]) -> int:
    if arguments and not {"--bootstrap-server", "--help", "--version"} & set(arguments):
        running = background.running()
        if len(running) != 1:
            raise KafkaError(
                f"{len(running)} brokers are running in the background: "
                "give --bootstrap-server HOST:PORT"
            )
        arguments = ["--bootstrap-server", running[0].address, *arguments]
    installation = fetch(DOWNLOAD_SECONDS)
    return subprocess.run(installation.command(main, *arguments), check=False).returncode


def _chosen(options: argparse.Namespace) -> list[Started]:
    directory = str(options.dir.absolute()) if options.dir else None
    return [
        started
        for started in background.running()
        if (options.port is None or options.port in started.ports)
        and directory in (None, started.directory)
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
