"""Control socket, with real clients on a real socket and a simulated clock."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.supervisor import control_socket as module
from octane_analytics.supervisor.control_socket import REQUEST, ControlSocket

STATUS = '{"is_healthy": true}'


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSocket]:
    opened = ControlSocket(tmp_path / "worker.sock")
    opened.open()
    yield opened
    opened.close()


def connect(control: ControlSocket) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(control.path))
    client.settimeout(0)
    return client


def status() -> str:
    return STATUS


def test_request_is_answered_and_connection_closed(control: ControlSocket) -> None:
    with connect(control) as client:
        client.sendall(REQUEST)
        control.serve_clients(0.0, status)
        assert client.recv(1000) == STATUS.encode() + b"\n"
        assert client.recv(1000) == b""
    assert len(control.descriptors()) == 1


def test_request_in_pieces_is_answered(control: ControlSocket) -> None:
    with connect(control) as client:
        for byte in REQUEST:
            client.sendall(bytes([byte]))
            control.serve_clients(0.0, status)
        assert client.recv(1000) == STATUS.encode() + b"\n"


def test_silent_client_blocks_nothing_and_is_dropped(
    control: ControlSocket,
) -> None:
    with connect(control) as silent, connect(control) as client:
        control.serve_clients(0.0, status)
        client.sendall(REQUEST)
        control.serve_clients(1.0, status)
        assert client.recv(1000) == STATUS.encode() + b"\n"
        with pytest.raises(BlockingIOError):
            silent.recv(1)
        control.serve_clients(10.0, status)
        assert silent.recv(1) == b""
    assert len(control.descriptors()) == 1


def test_client_that_does_not_read_is_dropped(control: ControlSocket) -> None:
    with connect(control) as client:
        client.sendall(REQUEST)
        control.serve_clients(0.0, lambda: "x" * 10_000_000)
        assert len(control.descriptors()) == 2
        control.serve_clients(10.0, status)
        assert len(control.descriptors()) == 1


def test_long_response_is_sent_in_several_parts(control: ControlSocket) -> None:
    read = b""
    with connect(control) as client:
        client.sendall(REQUEST)
        for _ in range(1000):
            control.serve_clients(0.0, lambda: "x" * 2_000_000)
            read += client.recv(1 << 20)
            if len(read) > 2_000_000:
                break
    assert read == b"x" * 2_000_000 + b"\n"


@pytest.mark.parametrize("request_line", [b"stop\n", b"statusses\n", b"\n"])
def test_unknown_request_closes_the_connection(control: ControlSocket, request_line: bytes) -> None:
    with connect(control) as client:
        client.sendall(request_line)
        control.serve_clients(0.0, status)
        with contextlib.suppress(ConnectionResetError):  # the request was not read completely
            assert client.recv(1) == b""


def test_disconnected_client_is_dropped(control: ControlSocket) -> None:
    connect(control).close()
    control.serve_clients(0.0, status)
    assert len(control.descriptors()) == 1


def test_clients_are_limited_to_sixteen(control: ControlSocket) -> None:
    clients = [connect(control) for _ in range(16)]
    control.serve_clients(0.0, status)
    assert len(control.descriptors()) == 16, "no further clients are accepted"
    for client in clients:
        client.close()
    control.serve_clients(0.0, status)
    assert len(control.descriptors()) == 1


def test_client_of_another_user_is_disconnected(
    control: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_peer_uid", lambda _: os.geteuid() + 1)
    with connect(control) as client:
        client.sendall(REQUEST)
        control.serve_clients(0.0, status)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_peer_uid_comes_from_the_kernel(control: ControlSocket) -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert module._peer_uid(left) == os.geteuid()


def test_socket_file_is_private_and_removed_on_close(control: ControlSocket) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.close()
    assert not control.path.exists()


def test_socket_file_of_killed_supervisor_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(path))
    control = ControlSocket(path)
    control.open()
    control.close()


def test_second_supervisor_on_the_socket_is_refused(control: ControlSocket) -> None:
    with pytest.raises(ConfigError, match="another supervisor listens on"):
        ControlSocket(control.path).open()
    assert control.path.exists()


def test_path_of_a_regular_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is not a socket"):
        ControlSocket(path).open()
    assert path.read_text() == "mine"


def test_invalid_path_is_reported_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^CONTROL_SOCKET: cannot listen on .*No such file"):
        ControlSocket(tmp_path / "missing" / "worker.sock").open()
    with pytest.raises(ConfigError, match=r"CONTROL_SOCKET: .*too long"):
        ControlSocket(tmp_path / ("x" * 200)).open()
