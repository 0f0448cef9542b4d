"""Jars of Apache Kafka, fetched with Maven into a cache, and the Java that runs them.

Owns the cache with the storage template, and the command lines of the JVM. Does not depend on running
brokers.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octane-analytics"
OLDEST_JAVA = 17

# A test broker lives for seconds: compile little, collect simply. Halves the CPU time of a start.
JVM_OPTIONS = (
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    # The JVM's own warnings belong on standard error; standard output is the output of a tool.
    "-Xlog:disable",
    "-Xlog:all=warning:stderr",
)
LOGGING = f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"


class KafkaError(Exception):
    """The broker, its installation or a tool failed; the message says what to do."""


@dataclass(frozen=True)
class Installation:
    """The jars in the cache, and the Java that runs them."""

    directory: Path
    java: Path

    @cached_property
    def jars(self) -> str:
        """Return the class path. An archive of classes is valid only for this list in this order."""
        return ":".join(str(jar) for jar in sorted((self.directory / "jars").glob("*.jar")))

    @property
    def archive(self) -> Path:
        """Return the archive of the broker's parsed classes; one file per Java runtime."""
        runtime = f"{self.java} {_release(self.java)} {' '.join(JVM_OPTIONS)}"
        return self.directory / f"classes-{digest(runtime)}.jsa"

    @property
    def template(self) -> Path:
        """Return the path of a formatted, empty log directory."""
        return self.directory / "template"

    def command(
        self, main: str, *arguments: str, options: Sequence[str] | None = None
    ) -> list[str]:
        """Return the command line that runs a class; options replace the use of the archive."""
        if options is None:
            options = [f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []
        return [
            *(str(self.java), *JVM_OPTIONS, LOGGING, *options, "-cp", self.jars),
            *(main, *arguments),
        ]


def available() -> str | None:
    """Return the reason why Apache Kafka cannot run here, or None. Takes milliseconds."""
    return missing_tool("Apache Kafka", _directory())


def missing_tool(program: str, installed: Path) -> str | None:
    """Return the reason why a Java program of the cache cannot be run, or fetched; None if it can."""
    if sys.platform != "linux":
        return f"{program} for tests runs on Linux only"
    java = find_java()
    if java is None:
        return f"java is not on the PATH: install Java {OLDEST_JAVA} or newer"
    version = _java_version(java)
    if version < OLDEST_JAVA:
        return f"{java} is Java {version}: install Java {OLDEST_JAVA} or newer"
    if not installed.exists() and shutil.which("mvn") is None:
        return f"mvn, which fetches {program}, is not on the PATH: install Maven"
    return None


def fetch(deadline_seconds: float = 90) -> Installation:
    """Return Apache Kafka from the cache, into which it is fetched once, for up to a minute.

    Safe in several processes at once, and an interrupted one leaves nothing that is used.
    The deadline is for Maven, and by default shorter than a test's: pytest-timeout would otherwise
    end the whole run.
    """
    reason = available()
    if reason is not None:
        raise KafkaError(reason)
    java = find_java()
    assert java is not None
    installation = Installation(_directory(), java)
    if not installation.directory.exists():
        with cache_lock():
            if not installation.directory.exists():
                _fetch(installation, deadline_seconds)
    return installation


@contextlib.contextmanager
def cache_lock() -> Iterator[None]:
    """Block until no other process changes the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(message: str) -> None:
    print(f"kafka: {message}", file=sys.stderr, flush=True)


def run(command: Sequence[str], *, failure: str, deadline_seconds: float = 60) -> str:
    """Return the standard output of the command; raise KafkaError with the end of its output."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise KafkaError(f"{failure} (no end after {error.timeout:.0f} s)") from error
    if done.returncode != 0:
        raise KafkaError(f"{failure}\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def new_id() -> str:
    """Return a Kafka Uuid: 16 random bytes in URL-safe base 64, without a leading dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def digest(text: str) -> str:
    """Return a short hash, as part of a file name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def find_java() -> Path | None:
    """Return the Java of JAVA_HOME or, without it, of the PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    return Path(found).resolve() if found else None


def _release(java: Path) -> str:
    """Return an identity of the Java runtime: the file `release` in its home, or its version output."""
    with contextlib.suppress(OSError):
        return (java.parent.parent / "release").read_text()
    return subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr


def _java_version(java: Path) -> int:
    match = re.search(r'version[="\s]+(?:1\.)?(\d+)', _release(java), re.IGNORECASE)
    return int(match[1]) if match else 0


def _directory() -> Path:
    text = POM.read_text()
    match = re.search(r"<kafka\.version>(.+?)</", text)
    assert match is not None, f"{POM} has lost its kafka.version"
    return CACHE / f"kafka-{match[1]}-{digest(text)}"


def _fetch(installation: Installation, deadline_seconds: float) -> None:
    target = installation.directory
    say(f"fetching {target.name} with Maven (45 MB, once; may take a minute)")
    # The holder of the lock owns the leftovers of killed processes.
    for leftover in CACHE.glob(f"{target.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=CACHE) as scratch:
        unfinished = Installation(Path(scratch, "kafka"), installation.java)
        output = unfinished.directory / "jars"
        run(
            [
                *("mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", f"-DoutputDirectory={output}"),
            ],
            failure="Maven could not fetch Apache Kafka: run bin/kafka fetch with the network up",
            deadline_seconds=deadline_seconds,
        )
        # Formatting starts a JVM, so it is done once here and every broker gets a copy.
        properties = Path(scratch, "server.properties")
        properties.write_text(
            "process.roles=broker,controller\n"
            "node.id=1\n"
            "controller.quorum.voters=1@127.0.0.1:9093\n"
            "controller.listener.names=CONTROLLER\n"
            "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n"
            f"log.dirs={unfinished.template}\n"
        )
        arguments = ["format", "--cluster-id", new_id(), "--config", str(properties)]
        run(
            unfinished.command("kafka.tools.StorageTool", *arguments, options=[]),
            failure="Kafka's StorageTool could not format storage",
        )
        unfinished.directory.rename(target)
