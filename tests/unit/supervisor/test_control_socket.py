"""The control socket, against real clients on a real socket and a clock of the test's own."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.supervisor import control_socket as module
from octane_analytics.supervisor.control_socket import QUESTION, ControlSocket

ANSWER = '{"is_healthy": true}'


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


def answer() -> str:
    return ANSWER


def test_question_is_answered_and_the_connection_closed(control: ControlSocket) -> None:
    with connect(control) as client:
        client.sendall(QUESTION)
        control.turn(0.0, answer)
        assert client.recv(1000) == ANSWER.encode() + b"\n"
        assert client.recv(1000) == b""
    assert len(control.descriptors()) == 1


def test_question_may_come_in_pieces(control: ControlSocket) -> None:
    with connect(control) as client:
        for byte in QUESTION:
            client.sendall(bytes([byte]))
            control.turn(0.0, answer)
        assert client.recv(1000) == ANSWER.encode() + b"\n"


def test_client_that_says_nothing_costs_a_turn_nothing_and_is_given_up(
    control: ControlSocket,
) -> None:
    with connect(control) as silent, connect(control) as client:
        control.turn(0.0, answer)
        client.sendall(QUESTION)
        control.turn(1.0, answer)
        assert client.recv(1000) == ANSWER.encode() + b"\n"
        with pytest.raises(BlockingIOError):
            silent.recv(1)
        control.turn(10.0, answer)
        assert silent.recv(1) == b""
    assert len(control.descriptors()) == 1


def test_answer_that_is_not_fetched_is_given_up(control: ControlSocket) -> None:
    with connect(control) as client:
        client.sendall(QUESTION)
        control.turn(0.0, lambda: "x" * 10_000_000)
        assert len(control.descriptors()) == 2
        control.turn(10.0, answer)
        assert len(control.descriptors()) == 1


def test_long_answer_goes_out_over_several_turns(control: ControlSocket) -> None:
    read = b""
    with connect(control) as client:
        client.sendall(QUESTION)
        for _ in range(1000):
            control.turn(0.0, lambda: "x" * 2_000_000)
            read += client.recv(1 << 20)
            if len(read) > 2_000_000:
                break
    assert read == b"x" * 2_000_000 + b"\n"


@pytest.mark.parametrize("said", [b"stop\n", b"statusses\n", b"\n"])
def test_other_questions_end_the_connection(control: ControlSocket, said: bytes) -> None:
    with connect(control) as client:
        client.sendall(said)
        control.turn(0.0, answer)
        with contextlib.suppress(ConnectionResetError):  # it had not read all of it
            assert client.recv(1) == b""


def test_client_that_hangs_up_is_forgotten(control: ControlSocket) -> None:
    connect(control).close()
    control.turn(0.0, answer)
    assert len(control.descriptors()) == 1


def test_no_more_clients_than_it_has_room_for(control: ControlSocket) -> None:
    clients = [connect(control) for _ in range(16)]
    control.turn(0.0, answer)
    assert len(control.descriptors()) == 16, "it waits for no further ones"
    for client in clients:
        client.close()
    control.turn(0.0, answer)
    assert len(control.descriptors()) == 1


def test_another_user_is_not_heard(control: ControlSocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_peer", lambda _: os.geteuid() + 1)
    with connect(control) as client:
        client.sendall(QUESTION)
        control.turn(0.0, answer)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_peer_is_told_by_the_kernel(control: ControlSocket) -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert module._peer(left) == os.geteuid()


def test_file_is_for_its_owner_alone_and_goes_with_it(control: ControlSocket) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.close()
    assert not control.path.exists()


def test_file_of_a_killed_supervisor_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(path))
    control = ControlSocket(path)
    control.open()
    control.close()


def test_two_supervisors_do_not_share_a_socket(control: ControlSocket) -> None:
    with pytest.raises(ConfigError, match="another supervisor listens on"):
        ControlSocket(control.path).open()
    assert control.path.exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="no socket"):
        ControlSocket(path).open()
    assert path.read_text() == "mine"


def test_path_that_cannot_be_is_told_by_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^CONTROL_SOCKET: cannot listen on .*No such file"):
        ControlSocket(tmp_path / "missing" / "worker.sock").open()
    with pytest.raises(ConfigError, match=r"CONTROL_SOCKET: .*too long"):
        ControlSocket(tmp_path / ("x" * 200)).open()
