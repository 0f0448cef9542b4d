import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.support.command import run, running, wait_until
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as server:
        yield {"CLICKHOUSE_HOST": server.host, "CLICKHOUSE_PORT": str(server.tcp_port)}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_api_serves_until_signal_and_removes_directory(
    settings: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    assert run("schema", "apply", settings=settings).returncode == 0
    port, own = str(free_port()), tmp_path / "own"
    own.mkdir()
    arguments = ("api", "--port", port, "--workers", "1", "--log-format", "json")
    with running(
        tmp_path / "output", *arguments, settings=settings | {"TMPDIR": str(own)}
    ) as command:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"))
        wait_until(lambda: any(own.glob("octane-analytics-*/*.db")))
        if number == signal.SIGINT:
            command.interrupt()
        else:
            command.child.terminate()
        assert command.wait(20.0) == 0
    assert not list(own.iterdir())


def test_api_keeps_a_given_metrics_directory(settings: dict[str, str], tmp_path: Path) -> None:
    port, shared = str(free_port()), tmp_path / "shared"
    arguments = ("api", "--port", port, "--prometheus-multiproc-dir", str(shared))
    with running(tmp_path / "output", *arguments, settings=settings) as command:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"))
        wait_until(lambda: any(shared.glob("*.db")))
        command.child.terminate()
        assert command.wait(20.0) == 0
    assert any(shared.glob("*.db"))


def test_unsupported_trace_exporter_is_one_line(settings: dict[str, str]) -> None:
    done = run("api", settings=settings | {"OTEL_TRACES_EXPORTER": "zipkin"})
    assert done.returncode == 78
    expected = "octane-analytics: error: OTEL_TRACES_EXPORTER=zipkin is not supported: "
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_port_in_use_is_one_line(settings: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("api", "--port", port, settings=settings)
    assert done.returncode == 78
    assert done.stderr.startswith("octane-analytics: error: API_PORT: cannot listen on 127.0.0.1:")
    assert done.stderr.count("\n") == 1
