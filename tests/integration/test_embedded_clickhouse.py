"""Embedded ClickHouse: protocol, persistence, and its end."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.sandbox.engine import EngineError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true",
    reason="pip install 'octane-analytics[embedded]'",
)

TABLE = """
    CREATE TABLE numbers (n UInt64) ENGINE = MergeTree ORDER BY n
    SETTINGS non_replicated_deduplication_window = 100
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    users = [
        User("reader", "secret & <sign>", grants=["GRANT SELECT ON default.numbers"]),
        User("stranger", grants=[]),
        User("thrifty", settings={"max_threads": 1}, readonly_settings=["max_threads"]),
    ]
    directory = tmp_path_factory.mktemp("clickhouse") / "missing" / "parents"
    with EmbeddedClickHouse(directory, users=users) as started:
        execute(started, TABLE)
        yield started


def execute(
    server: EmbeddedClickHouse, query: str, rows: list[tuple[int]] | None = None, **options: Any
) -> Any:
    token = options.pop("token", None)
    settings = {"insert_deduplication_token": token} if token else {}
    with contextlib.closing(_Connection(server, **options)) as connection:
        return connection.client.execute(query, rows, settings=settings)


class _Connection:
    def __init__(self, server: EmbeddedClickHouse, **options: Any) -> None:
        self.client = Client(server.host, server.tcp_port, connect_timeout=5, **options)

    def close(self) -> None:
        self.client.disconnect()


def wait_until(condition: Callable[[], object], deadline_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def test_server_speaks_the_native_protocol_compressed(server: EmbeddedClickHouse) -> None:
    settings = {"network_compression_method": "LZ4"}
    query = "SELECT sum(number) FROM numbers(10)"
    assert execute(server, query, compression="lz4", settings=settings) == [(45,)]


def test_users_have_their_grants_and_settings(server: EmbeddedClickHouse) -> None:
    count = "SELECT count() FROM numbers"
    assert execute(server, count, user="reader", password="secret & <sign>") == [(0,)]
    with pytest.raises(ServerException, match="Not enough privileges"):
        execute(server, count, user="stranger")
    with pytest.raises(ServerException, match="Authentication failed"):
        execute(server, count, user="reader", password="wrong")
    with pytest.raises(ServerException, match="max_threads"):
        execute(server, "SELECT 1 SETTINGS max_threads = 8", user="thrifty")


def test_user_name_must_fit_an_element() -> None:
    with pytest.raises(ValueError, match=r"users\.xml"):
        User("</users>")


def test_server_is_local_and_private(server: EmbeddedClickHouse) -> None:
    directory = server.log_path.parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "users.xml").stat().st_mode & 0o777 == 0o600
    listening = Path("/proc/net/tcp").read_text()
    assert f" 0100007F:{server.tcp_port:04X} 00000000:0000 0A " in listening
    assert f" 00000000:{server.tcp_port:04X} 00000000:0000 0A " not in listening


def test_two_servers_run_in_parallel(server: EmbeddedClickHouse, tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path, system_logs=True) as other:
        assert len({server.tcp_port, server.http_port, other.tcp_port, other.http_port}) == 4
        execute(other, TABLE)
        execute(other, "INSERT INTO numbers VALUES", [(1,)])
        execute(other, "SYSTEM FLUSH LOGS")
        assert execute(other, "SELECT count() > 0 FROM system.query_log") == [(True,)]
        assert execute(other, "SELECT count() FROM numbers") == [(1,)]
    assert execute(server, "SELECT count() FROM numbers") == [(0,)]


def test_rows_and_tokens_survive_kill(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path) as server:
        ports = (server.tcp_port, server.http_port)
        execute(server, TABLE)
        execute(server, "INSERT INTO numbers VALUES", [(1,), (2,)], token="a")
        server.kill()
        assert server.pid is None
        assert not accepts(ports[0])
        server.start()
        assert (server.tcp_port, server.http_port) == ports
        execute(server, "INSERT INTO numbers VALUES", [(1,), (2,)], token="a")
        assert execute(server, "SELECT count() FROM numbers") == [(2,)]
        execute(server, "INSERT INTO numbers VALUES", [(1,), (2,)], token="b")
        server.restart()
        assert execute(server, "SELECT count() FROM numbers") == [(4,)]


def test_paused_server_keeps_connections_and_answers_later(server: EmbeddedClickHouse) -> None:
    server.pause()
    try:
        with pytest.raises((Error, OSError)):
            execute(server, "SELECT 1", send_receive_timeout=0.3, sync_request_timeout=0.3)
    finally:
        server.resume()
    assert execute(server, "SELECT 1") == [(1,)]


def test_stop_ends_a_paused_server(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    server.start()
    server.pause()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 5
    assert not accepts(server.tcp_port)
    server.stop()
    server.kill()
    with pytest.raises(EngineError, match="not running"):
        server.pause()


def test_start_names_port_in_use(server: EmbeddedClickHouse, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"port {server.tcp_port} .* in use"):
        EmbeddedClickHouse(tmp_path, http_port=server.tcp_port).start()


def test_start_reports_directory_in_use(server: EmbeddedClickHouse) -> None:
    with pytest.raises(EngineError, match="Another server instance in same directory"):
        EmbeddedClickHouse(server.log_path.parent).start()
    with pytest.raises(EngineError, match="already running"):
        server.start()


def test_start_reports_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"cannot run in .*file"):
        EmbeddedClickHouse(tmp_path / "file").start()


def test_start_ends_at_deadline(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    with pytest.raises(EngineError, match="in time"):
        server.start(timeout_seconds=0)
    assert server.pid is None


def test_start_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"octane-analytics\[embedded\]"):
        EmbeddedClickHouse(tmp_path).start()


def test_server_outlives_its_starting_thread(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join(30)
    with contextlib.closing(_Connection(server)) as connection:
        assert connection.client.execute("SELECT 1") == [(1,)]
    server.stop()


# The parent leaves a forked process that holds copies of all its descriptors.
PARENT = """
import os, sys, threading, time
from pathlib import Path
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse

server = EmbeddedClickHouse(Path(sys.argv[1]))
if sys.argv[2] == "thread":
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
else:
    server.start()
fork = os.fork()
if not fork:
    time.sleep(30)
    os._exit(0)
if sys.argv[2] == "paused":
    server.pause()
print(server.tcp_port, fork, flush=True)
time.sleep(30)
"""


def starts(directory: Path) -> bool:
    try:
        with EmbeddedClickHouse(directory):
            return True
    except EngineError:
        return False


@pytest.mark.parametrize("how", ["main", "thread", "paused"])
def test_server_dies_with_its_parent(tmp_path: Path, how: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), how], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        port, fork = map(int, parent.stdout.readline().split())
        try:
            assert how == "paused" or accepts(port)
            parent.kill()
            wait_until(lambda: not accepts(port))
        finally:
            os.kill(fork, signal.SIGKILL)
    # The lock on the data is released too, once the process is gone.
    wait_until(lambda: starts(tmp_path), 30.0)
