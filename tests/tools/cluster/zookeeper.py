"""Apache ZooKeeper on this machine, which coordinates the replicas of ClickHouse's tables.

Its jars come from Maven Central into the cache that Apache Kafka's are in.
"""

import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

from octane_analytics.sandbox.engine import HOST, Engine, EngineError, is_free
from tests.support.ports import free_port
from tests.tools.cluster import zookeeper_child
from tests.tools.kafka.jars import (
    CACHE,
    JVM_OPTIONS,
    KafkaError,
    cache_lock,
    digest,
    find_java,
    missing_tool,
    run,
)

_POM = Path(__file__).resolve().parent / "pom.xml"
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_CONFIG = """\
tickTime=500
dataDir={data}
clientPort={port}
clientPortAddress={host}
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=ruok
minSessionTimeout=1000
maxSessionTimeout=60000
"""
_POLL_SECONDS = 0.02


def available() -> str | None:
    """Return the reason why ZooKeeper cannot run here, or None."""
    return missing_tool("Apache ZooKeeper", _installed())


def fetch(deadline_seconds: float = 90) -> Path:
    """Return the directory of the jars, which are fetched once, within seconds. Raises KafkaError.

    Safe in several processes at once.
    """
    if reason := available():
        raise KafkaError(reason)
    target = _installed()
    if target.exists():
        return target
    with cache_lock():
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=CACHE) as scratch:
                output = Path(scratch, "jars")
                run(
                    [
                        *("mvn", "-B", "-q", "-f", str(_POM), "dependency:copy-dependencies"),
                        *("-DincludeScope=runtime", f"-DoutputDirectory={output}"),
                    ],
                    failure="Maven could not fetch Apache ZooKeeper: repeat with the network up",
                    deadline_seconds=deadline_seconds,
                )
                output.rename(target)
    return target


def _installed() -> Path:
    text = _POM.read_text()
    match = re.search(r"<zookeeper\.version>(.+?)</", text)
    if match is None:
        raise KafkaError(f"{_POM} has lost its zookeeper.version")
    return CACHE / f"zookeeper-{match[1]}-{digest(text)}"


class ZooKeeper(Engine):
    """One server over one directory. Its data survives `kill`, and so does its port."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory.absolute()
        self._port = 0

    @property
    def port(self) -> int:
        """Port for clients; 0 until the first start."""
        return self._port

    def start(self, timeout_seconds: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        if self.pid is not None:
            raise EngineError(f"already running over {self._directory}")
        self.kill()  # reaps a server that ended by itself
        jars = fetch()
        java = find_java()
        self._port = self._port or free_port()
        if java is None or not is_free(self._port):
            raise EngineError(f"java is gone, or port {self._port} on {HOST} is in use")
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "zoo.cfg"
        config.write_text(_CONFIG.format(data=self._directory, port=self._port, host=HOST))
        class_path = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))
        log_path = self._directory / "zookeeper.log"
        with log_path.open("ab") as log:
            self._spawn(
                zookeeper_child.__name__,
                *(str(java), *JVM_OPTIONS, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
                *("-cp", class_path, _MAIN, str(config)),
                stdout=log,
                stderr=log,
            )
        if not self._is_up_before(deadline):
            self.kill()
            text = log_path.read_text(errors="replace")[-2000:]
            raise EngineError(f"ZooKeeper over {self._directory} did not come up\n{text}")

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Kill it: it acknowledges nothing that is not on disk, and needs no goodbye."""
        self.kill()

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_up_before(self, deadline: float) -> bool:
        while not self._is_serving():
            if self.pid is None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _is_serving(self) -> bool:
        try:
            with socket.create_connection((HOST, self._port), 1.0) as connection:
                connection.sendall(b"ruok")
                return connection.recv(16) == b"imok"
        except OSError:
            return False
