"""Access control and limits per client, with real processes and real sockets."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import httpx
import pytest

from octane_analytics.api.auth import token_file_editor
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_server import Server, children
from tests.integration.test_api_server import wait_until as wait_until_true

NOWHERE = ClickHouseSettings(host="127.0.0.1", port=1)
"""Most of these tests do not use ClickHouse."""
RECEIVE_SECONDS = 1.0
HEAD = b"POST /report HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

Start = Callable[..., "Api"]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    wait_until_true(condition, seconds)


class Api(Server):
    """An API process and its token file."""

    def __init__(self, settings: ClickHouseSettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self.tokens = directory / "tokens.toml"
        self.process: subprocess.Popen[str] | None = None
        self.environment |= {
            "API_RECEIVE_TIMEOUT": str(RECEIVE_SECONDS),
            "API_SEND_TIMEOUT": "1",
            "CLICKHOUSE_TIMEOUT": "5",
        }

    def add(self, name: str, *scopes: str, **rest: object) -> None:
        """Add a token whose text is its name."""
        entry = {"hash": f"sha256:{digest_of(name).hex()}", "scopes": list(scopes)}
        token_file_editor.add(self.tokens, name, entry | rest)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Run the API until the block ends, then print its log."""
        with self.start() as self.process:
            try:
                wait_until(self.is_alive)
                yield self
            finally:
                self.process.kill()
                print(self.log.read_text()[-20_000:])

    def is_alive(self) -> bool:
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, token: str | None, path: str = "/reports") -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.get(self.url + path, headers=headers, timeout=10).status_code

    def requests(self) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["message"] == "request"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, *parts: bytes) -> bytes:
        """Return everything received until the server closes, which the request must cause."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return read_until_closed(client)


def read_until_closed(client: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            received += part
    return received


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer[:200]
    return int(found[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def start(
            settings: ClickHouseSettings = NOWHERE,
            prepare: Callable[[Api], None] | None = None,
            **environment: str,
        ) -> Api:
            api = Api(settings, tmp_path)
            api.environment |= environment
            if prepare is not None:
                prepare(api)
                api.environment["API_TOKENS_FILE"] = str(api.tokens)
            stack.enter_context(api.running())
            workers = int(api.environment["API_WORKERS"])
            wait_until(
                lambda: api.process is not None and len(children(api.process.pid)) == workers
            )
            return api

        yield start


def api_without_clickhouse(directory: Path, *, with_token: bool) -> Api:
    api = Api(NOWHERE, directory)
    api.environment["API_WORKERS"] = "1"
    if with_token:
        api.add("dash", "report")
        api.environment["API_TOKENS_FILE"] = str(api.tokens)
    return api


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without tokens, shared by the tests of malicious requests."""
    with api_without_clickhouse(
        tmp_path_factory.mktemp("local"), with_token=False
    ).running() as api:
        yield api


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API with a token `dash`."""
    with api_without_clickhouse(
        tmp_path_factory.mktemp("closed"), with_token=True
    ).running() as api:
        yield api


def startup_error(api: Api) -> str:
    with api.start() as process:
        assert process.wait(20) == 78
    (line,) = api.log.read_text().splitlines()
    return line


# Access


def test_public_address_without_tokens_is_refused_at_start(tmp_path: Path) -> None:
    api = Api(NOWHERE, tmp_path)
    api.environment["API_HOST"] = "0.0.0.0"  # noqa: S104
    line = startup_error(api)
    assert line.startswith("API_HOST is 0.0.0.0, which other machines can reach")
    for advice in ("octane-analytics token new", "API_TOKENS_FILE", "API_ALLOW_ANONYMOUS=1"):
        assert advice in line


def test_public_address_with_tokens_or_anonymous_access_serves(start: Start) -> None:
    host = {"API_HOST": "0.0.0.0"}  # noqa: S104
    api = start(prepare=lambda api: api.add("dash", "report"), **host)
    assert [api.ask(None), api.ask("dash")] == [401, 200]


def test_anonymous_caller_through_proxy_has_no_raw_sql(start: Start) -> None:
    api = start(API_HOST="0.0.0.0", API_ALLOW_ANONYMOUS="1")  # noqa: S104
    assert api.ask(None) == 200
    proxied = {"X-Forwarded-For": "127.0.0.1"}
    answer = httpx.post(f"{api.url}/query", json={"sql": "SELECT 1"}, headers=proxied)
    assert answer.status_code == 403
    assert httpx.get(f"{api.url}/reports", headers=proxied).status_code == 200


def test_any_cors_origin_without_tokens_is_refused(tmp_path: Path) -> None:
    api = Api(NOWHERE, tmp_path)
    api.environment["API_CORS_ORIGINS"] = "*"
    assert startup_error(api).startswith("API_CORS_ORIGINS is * and no tokens are configured")


def test_invalid_token_file_at_start_names_the_line(tmp_path: Path) -> None:
    api = Api(NOWHERE, tmp_path)
    api.tokens.write_text("# tokens\n\n[tokens.dash]\nhash = 5\n")
    api.environment["API_TOKENS_FILE"] = str(api.tokens)
    assert startup_error(api).startswith(f"{api.tokens}:4: token dash: ")


def test_foreign_host_name_is_refused(start: Start) -> None:
    api = start()
    assert httpx.get(f"{api.url}/reports", headers={"Host": "evil.example"}).status_code == 403
    assert httpx.get(f"{api.url}/reports", headers={"Host": "localhost"}).status_code == 200


def test_invalid_token_file_while_running_changes_nothing(start: Start) -> None:
    api = start(prepare=lambda api: api.add("dash", "report"))
    assert api.process is not None
    api.add("late", "report")
    wait_until(lambda: api.ask("late") == 200)
    token_file_editor.remove(api.tokens, "dash")
    # Either worker, whichever responds.
    wait_until(lambda: {api.ask("dash") for _ in range(10)} == {401})
    # And the arbiter, from which later workers inherit the last valid tokens.
    wait_until(lambda: ("api", 1) in _reloads(api))

    api.tokens.write_text("[tokens.broken")
    wait_until(lambda: f"{api.tokens}:1: " in api.log.read_text())
    before = children(api.process.pid)
    api.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not set(before) & set(children(api.process.pid)))  # type: ignore[union-attr]
    wait_until(api.is_alive)
    killed = children(api.process.pid)[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in children(api.process.pid))  # type: ignore[union-attr]
    wait_until(lambda: len(children(api.process.pid)) == 2)  # type: ignore[union-attr]
    wait_until(api.is_alive)
    # A new process has the added token, and not the revoked one.
    assert {api.ask("dash") for _ in range(10)} == {401}
    assert {api.ask("late") for _ in range(10)} == {200}
    assert f"{api.tokens}:1: " in api.log.read_text()


def _reloads(api: Api) -> set[tuple[str, int]]:
    """Return each process that reloaded the file, with its number of tokens."""
    lines = [json.loads(line) for line in api.log.read_text().splitlines()]
    return {(x["process"], x["tokens"]) for x in lines if x["message"] == "tokens reloaded"}


def test_log_has_one_line_per_request_without_secrets(start: Start) -> None:
    api = start(prepare=lambda api: api.add("dashboard-1", "report"))
    headers = {"Authorization": "Bearer dashboard-1", "X-Request-Id": "r-77"}
    answer = httpx.get(f"{api.url}/reports?key=hush", headers=headers)
    assert answer.headers["x-request-id"] == "r-77"
    api.ask("octane_nonsense")
    api.send(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer octane_non\x00sense\r\n\r\n")
    wait_until(lambda: len(api.requests()) == 2)
    first, second = api.requests()
    assert first["caller"] == "dashboard-1"
    assert (first["route"], first["status"], first["request_id"]) == ("/reports", 200, "r-77")
    assert first["bytes"] == int(answer.headers["content-length"])
    assert (second["caller"], second["status"]) == ("", 401)
    text = api.log.read_text()
    assert '"status": 400' in text
    for secret in ("hush", "octane_non", "Bearer"):
        assert secret not in text


# Limits across processes


def test_rate_is_shared_by_both_workers(start: Start) -> None:
    api = start(
        prepare=lambda api: api.add("slow", "report", rate="30/min", burst=10), API_WORKERS="2"
    )
    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        # One connection per request, so that both workers are used.
        statuses = Counter(threads.map(lambda _: api.ask("slow"), range(60)))
    allowed = 10 + (time.monotonic() - started) * 0.5
    assert set(statuses) == {200, 429}
    assert 10 <= statuses[200] <= allowed + 1
    slots = {each["process"] for each in api.requests()}
    assert slots == {"api-0", "api-1"}, "only one of the workers was asked"


def test_rate_survives_replaced_workers(start: Start) -> None:
    api = start(prepare=lambda api: api.add("slow", "report", rate="1/h"))
    assert api.process is not None
    assert api.ask("slow") == 200
    before = children(api.process.pid)
    api.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not set(before) & set(children(api.process.pid)))  # type: ignore[union-attr]
    wait_until(api.is_alive)
    answer = httpx.get(f"{api.url}/reports", headers={"Authorization": "Bearer slow"})
    assert answer.status_code == 429
    assert 3500 < int(answer.headers["retry-after"]) <= 3600


def test_concurrency_of_killed_worker_is_released(
    start: Start,
) -> None:
    api = start(
        prepare=lambda api: api.add("few", "report", concurrency=4), API_RECEIVE_TIMEOUT="60"
    )
    assert api.process is not None
    # A request is in progress until its body arrives.
    opening = HEAD + b"Authorization: Bearer few\r\nContent-Length: 9\r\n\r\n"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(api.connect()) for _ in range(12)]
        for client in clients:
            client.sendall(opening)
            client.settimeout(0.05)
        statuses = [_status_or_zero(client) for client in clients]
        assert Counter(statuses) == {0: 4, 429: 8}
        # Both workers have some of the four; each client that ends admits another one.
        assert api.ask("few") == 429
        clients[statuses.index(0)].close()
        wait_until(lambda: api.ask("few") == 200)
        for pid in children(api.process.pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(api.is_alive)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(api.connect()).sendall(opening)
        wait_until(lambda: api.ask("few") == 200)


def _status_or_zero(client: socket.socket) -> int:
    """Return the status of the response; 0 if there is none for a while."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return status(client.recv(65536))
    return 0


# Limits per client


def dropped_after(
    client: socket.socket, trickle: bytes = b"", started: float | None = None
) -> tuple[float, bytes]:
    """Send bytes slowly; return the seconds from `started` (None: now) until the server closes the
    connection, and the response."""
    started = time.monotonic() if started is None else started
    client.settimeout(0.2)
    received = b""
    while time.monotonic() - started < 30:
        try:
            part = client.recv(65536)
            if not part:
                break
            received += part
        except TimeoutError:
            if trickle:
                with contextlib.suppress(OSError):
                    client.sendall(trickle)
        except ConnectionError:
            break
    else:
        raise AssertionError("the client was not dropped")
    return time.monotonic() - started, received


@pytest.mark.parametrize(
    ("opening", "trickle", "answer"),
    [
        (b"", b"", 408),
        (b"GET /healthz HTTP/1.1\r\nX-a: ", b"b", 408),
        (HEAD, b"X-a: b\r\n", 408),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b" ", 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 408),
        # Answered before the end of the body, which is never sent.
        (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n", b" ", 404),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he", b"a", 200),
    ],
)
def test_client_with_unfinished_request_is_dropped(
    local: Api, opening: bytes, trickle: bytes, answer: int
) -> None:
    started = time.monotonic()
    with local.connect() as client:
        client.sendall(opening)
        seconds, received = dropped_after(client, trickle, started)
    assert seconds > RECEIVE_SECONDS * 0.8
    assert status(received) == answer
    assert local.is_alive()


def test_two_hundred_silent_clients_do_not_block_others(local: Api) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(local.connect()) for _ in range(200)]
        for client in clients[::2]:
            client.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert local.is_alive()
        for client in clients:
            assert status(read_until_closed(client)) == 408
    assert local.is_alive()


def test_client_above_max_connections_is_rejected(start: Start) -> None:
    api = start(API_WORKERS="1", API_MAX_CONNECTIONS="3", API_RECEIVE_TIMEOUT="5")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(api.connect())
        wait_until(lambda: status(read_until_closed(stack.enter_context(api.connect()))) == 503)
    wait_until(api.is_alive)


def test_client_that_does_not_read_is_dropped(
    start: Start, clickhouse_settings: ClickHouseSettings
) -> None:
    api = start(clickhouse_settings, API_WORKERS="1")
    body = json.dumps({"sql": "SELECT repeat('x', 1000) AS x FROM numbers(10000)"}).encode()
    head = b"POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", api.port))
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: "the client does not read its response" in api.log.read_text())
        assert len(read_until_closed(client)) < 10_000_000
    # A slow reader receives everything.
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", api.port))
        client.sendall(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        received_bytes = 0
        while part := client.recv(1 << 20):
            received_bytes += len(part)
    assert received_bytes > 10_000_000


@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_over_its_limit_is_413(local: Api, is_chunked: bool) -> None:
    part = b" " * 10_000
    if is_chunked:
        parts = [HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"]
        parts += [b"%x\r\n%s\r\n" % (len(part), part)] * 20 + [b"0\r\n\r\n"]
    else:
        parts = [HEAD + b"Content-Length: 200000\r\nConnection: close\r\n\r\n"] + [part] * 20
    with local.connect() as client:
        threading.Thread(target=_send_all, args=(client, parts), daemon=True).start()
        assert status(read_until_closed(client)) == 413
    assert local.is_alive()


def test_announced_large_body_is_413_at_once(local: Api) -> None:
    with local.connect() as client:
        client.sendall(HEAD + b"Content-Length: 200000\r\nConnection: close\r\n\r\n{")
        assert status(client.recv(100)) == 413


@pytest.mark.parametrize(
    ("head_bytes", "expected"), [(16 << 10, 200), ((16 << 10) + 2, 431), (24 << 10, 431)]
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_head_over_16_kib_is_rejected(
    local: Api, head_bytes: int, expected: int, pieces: int
) -> None:
    start, end = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"\r\nConnection: close\r\n\r\n"
    head = start + b"a" * (head_bytes - len(start) - len(end)) + end
    step = -(-len(head) // pieces)
    with local.connect() as client:
        _send_all(client, [head[first : first + step] for first in range(0, len(head), step)])
        assert status(read_until_closed(client)) == expected


def _send_all(client: socket.socket, parts: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        for part in parts:
            client.sendall(part)


# Malicious requests


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (
            b"GET /reports HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n"
            b"Authorization: Bearer dash\r\nConnection: close\r\n\r\n",
            400,
        ),
        (b"GET http://localhost/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (b"CONNECT localhost:22 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (b"GET /healthz/../query HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (b"GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (b"GET /%00%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (
            b"GET /reports HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\n"
            b"Upgrade: websocket\r\n\r\n",
            401,
        ),
    ],
)
def test_malicious_request_is_answered_and_server_survives(
    closed: Api, request_: bytes, expected: int
) -> None:
    assert status(closed.send(request_)) == expected
    assert closed.is_alive()
    text = closed.log.read_text()
    assert "Traceback" not in text
    assert '"level": "error"' not in text


def test_garbage_after_a_response_is_harmless(local: Api) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with local.connect() as client:
        client.sendall(head)
        received = client.recv(65536)
        assert status(received) == 404
        client.sendall(b"zz\r\n")
        assert b"HTTP/1.1" not in read_until_closed(client)
    assert local.is_alive()
    text = local.log.read_text()
    assert "Traceback" not in text
    assert '"level": "error"' not in text


# Trace context of the client


def test_trace_of_the_client_reaches_clickhouse(start: Start, tmp_path: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with EmbeddedClickHouse(tmp_path / "clickhouse", system_logs=True) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        api = start(settings, API_WORKERS="1")
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        answer = httpx.post(
            f"{api.url}/query", json={"sql": "SELECT 4711"}, headers=headers, timeout=20
        )
        assert answer.status_code == 200

        with ClickHouse(settings, client_name="tests") as connection:

            def spans() -> int:
                connection.execute("SYSTEM FLUSH LOGS")
                found = connection.select(
                    "SELECT count() FROM system.opentelemetry_span_log "
                    "WHERE trace_id = {trace:UUID}",
                    {"trace": str(uuid.UUID(trace))},
                )
                return int(found.rows[0][0])

            wait_until(lambda: spans() > 0)
