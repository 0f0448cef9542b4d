"""Apache Kafka on this machine: one KRaft node on loopback, broker and controller in one by default.

Owns the broker's process and its directory. Knows nothing of what the package under test does with
it, nor of how the jars got here. `bin/kafka` gives the same to the command line.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from octane_analytics.sandbox.engine import is_free
from tests.support.leash import leashed
from tests.support.ports import free_port
from tests.tools.kafka.admin import Administered, is_settled
from tests.tools.kafka.jars import (
    Installation,
    KafkaError,
    available,
    cache_lock,
    fetch,
    say,
    tail,
)
from tests.tools.kafka.node import HOST, Node

__all__ = ["ApacheKafka", "KafkaError", "available", "prepare"]

SETTINGS = Path(__file__).resolve().parent / "broker.properties"

SCRAM_USER, SCRAM_PASSWORD = "octane", "not-a-secret"
"""Credentials that the authenticated listener accepts after `admit`."""

_OFFSETS = "__consumer_offsets"


class ApacheKafka(Administered):
    """One broker. As a context manager: started on entry, killed on exit.

    directory receives all that the broker writes (`data/`, `server.properties`, `broker.log`) and
    is kept; without one, a temporary directory is made and removed. port is a free one unless
    given, and stays the same through kill and restart. partitions is the default for new topics;
    settings are properties that win over broker.properties. A leashed broker is killed with the
    thread that started it, whatever ends that one. node is its place in a cluster, controller_port
    that of its own controller. The constructor touches nothing; the rest raises KafkaError.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        partitions: int = 1,
        settings: Mapping[str, str] | None = None,
        is_leashed: bool = True,
        node: Node | None = None,
        controller_port: int | None = None,
    ) -> None:
        self._node = node or Node()
        self._directory = directory.absolute() if directory else None
        self._is_temporary = directory is None
        self._port = port
        self._sasl_port: int | None = None
        self._controller_port = controller_port
        self._settings = {"num.partitions": str(partitions), **(settings or {})}
        self._is_leashed = is_leashed
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def sasl_bootstrap_servers(self) -> str:
        """Address of the SASL/SCRAM-SHA-256 listener, which requires periodic reauthentication."""
        if self._sasl_port is None:
            raise KafkaError("the broker has no port before it is started")
        return f"{HOST}:{self._sasl_port}"

    @property
    def port(self) -> int:
        """Port of the listener; known from the first start on."""
        if self._port is None:
            raise KafkaError("the broker has no port before it is started")
        return self._port

    @property
    def directory(self) -> Path:
        """Data directory; known from the first start on."""
        if self._directory is None:
            raise KafkaError("the broker has no directory before it is started")
        return self._directory

    @property
    def nodes(self) -> list[ApacheKafka]:
        """Return the broker itself: a cluster of one."""
        return [self]

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Return whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def start(self, deadline_seconds: float = 60) -> None:
        """Start the broker; block until it responds and every partition has a leader.

        Takes about two seconds, after the first time on a machine (see prepare). What an earlier
        start left in the directory is served again.
        """
        self.launch()
        self.await_ready(deadline_seconds)

    def launch(self) -> None:
        """Start the process, without a look at whether it serves: await_ready does that."""
        self._launch(prepare(), None)

    def await_ready(self, deadline_seconds: float = 60) -> None:
        """Block until the broker responds and every partition of its cluster has a leader.

        Kill it if it does not by the deadline.
        """
        try:
            self._await_answer(time.monotonic() + deadline_seconds)
        except BaseException:
            self.kill()
            raise

    def stop(self, deadline_seconds: float = 30) -> None:
        """Stop the broker cleanly, with SIGKILL at the deadline. Does nothing if it is down."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Send SIGKILL and block until the process is gone. Does nothing if it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, deadline_seconds: float = 60) -> None:
        """Stop the broker if it is running, and start it on the same port and data."""
        self.stop()
        self.start(deadline_seconds)

    def pause(self) -> None:
        """Send SIGSTOP and block until it holds: connections stay open without a response."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.005)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the broker, and remove the directory if it is temporary."""
        self.kill()
        if self._is_temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def release(self) -> None:
        """Detach the process and its directory from this object; both remain."""
        # Popen warns about a child that it outlives, unless it has the child's exit status.
        self._running().returncode = 0
        self._process = None
        self._is_temporary = False

    def admit(self) -> None:
        """Create SCRAM_USER's credential for the authenticated listener."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        self._alter_user(
            UserScramCredentialUpsertion(SCRAM_USER, info, SCRAM_PASSWORD.encode()),
        )

    def expel(self) -> None:
        """Delete SCRAM_USER's credential: new connections fail at once, others when they expire."""
        self._alter_user(UserScramCredentialDeletion(SCRAM_USER, ScramMechanism.SCRAM_SHA_256))

    def _alter_user(
        self, alteration: UserScramCredentialUpsertion | UserScramCredentialDeletion
    ) -> None:
        admin = self.admin()  # keep a reference: a collected client cancels its requests
        try:
            admin.alter_user_scram_credentials([alteration])[SCRAM_USER].result(20)
        except KafkaException as error:
            raise KafkaError(f"altering {SCRAM_USER}: {error.args[0].str()}") from error

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise KafkaError("the broker is not running")
        return self._process

    def _launch(self, installation: Installation, options: Sequence[str] | None) -> None:
        if self.is_running:
            raise KafkaError(f"the broker already runs on {self.bootstrap_servers}")
        if self._port is None:
            self._port = free_port()
        elif not is_free(self._port):
            raise KafkaError(f"port {self._port} on {HOST} is taken: choose another")
        while self._sasl_port is None or self._sasl_port == self._port:
            self._sasl_port = free_port()
        while self._controller_port is None or self._controller_port in (
            self._port,
            self._sasl_port,
        ):
            self._controller_port = free_port()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="octane-kafka-"))
        data = self._directory / "data"
        self._node.format(installation.template, data)
        properties = self._directory / "server.properties"
        place = self._node.properties(self._port, self._sasl_port, self._controller_port)
        final = self._settings | place | {"log.dirs": str(data)}
        # The last line of a property wins.
        own = "".join(f"{name}={value}\n" for name, value in final.items())
        properties.write_text(f"{SETTINGS.read_text()}\n# This broker's own\n{own}")
        command = installation.command("kafka.Kafka", str(properties), options=options)
        if self._is_leashed:
            command = leashed(command)
        with (self._directory / "broker.log").open("ab") as log:
            # A new session, so that Ctrl-C in the terminal only reaches the parent.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_answer(self, deadline: float) -> None:
        # librdkafka backs off after a refused connection, so probe with a plain socket first.
        while not self._listens():
            self._check(deadline)
            time.sleep(0.02)
        if not self._node.is_broker:
            return
        admin = self.admin()
        while not (
            is_settled(cluster := self.metadata(admin))
            and (cluster is None or _OFFSETS not in cluster.topics or self._coordinates())
        ):
            self._check(deadline)
            time.sleep(0.02)

    def _coordinates(self) -> bool:
        """Return whether the coordinator is ready: it loads offsets once partitions have leaders."""
        asking = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "octane-knock",
                "log_level": 0,
            }
        )
        try:
            (found,) = asking.committed([TopicPartition("octane-knock", 0)], timeout=2)
        except KafkaException:
            return False
        finally:
            asking.close()
        return found.error is None

    def _listens(self) -> bool:
        port = self.port if self._node.is_broker else self._controller_port
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            return False
        return True

    def _check(self, deadline: float) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            reason = f"ended with code {self._process.returncode} instead of starting"
        elif time.monotonic() > deadline:
            reason = "did not start in time"
        else:
            return
        log = self.directory / "broker.log"
        raise KafkaError(f"the broker {reason}; from {log}:\n{tail(log.read_text())}")


def prepare(deadline_seconds: float = 90) -> Installation:
    """Fetch Kafka and prepare a fast start, as the first start() on a machine does.

    Takes up to a minute the first time, nothing later. Safe in several processes at once. The deadline
    is for the download.
    """
    installation = fetch(deadline_seconds)
    if not installation.archive.exists():
        with cache_lock():
            if not installation.archive.exists():
                _archive_classes(installation)
    return installation


def _archive_classes(installation: Installation) -> None:
    """Have a broker dump the classes it loaded; later ones start in half the time with them.

    A failure only costs speed, so it is reported and ignored.
    """
    say("preparing a fast start (once per Java runtime; about ten seconds)")
    unfinished = installation.archive.with_suffix(".unfinished")
    kafka = ApacheKafka()
    try:
        kafka._launch(installation, [f"-XX:ArchiveClassesAtExit={unfinished}"])
        kafka.await_ready()
        kafka.create_topic("warm-up")
        kafka.stop(60)
        unfinished.rename(installation.archive)
    except (OSError, KafkaError) as error:
        say(f"no fast start here: {error}")
    finally:
        kafka.close()
