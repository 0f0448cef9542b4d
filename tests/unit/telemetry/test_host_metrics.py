"""Client of another host's metrics port, over real sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics import __version__
from octane_analytics.errors import Unavailable
from octane_analytics.telemetry import host_metrics
from octane_analytics.telemetry.exposition import Exposition
from octane_analytics.telemetry.host_metrics import HostMetrics, parse, read
from octane_analytics.telemetry.lag_metrics import LagCollector
from octane_analytics.telemetry.metrics_server import MetricsServer, bind
from octane_analytics.types import Committed, UncommittedLag

BUILD = f'analytics_build_info{{python="3.12",version="{__version__}"}} 1.0\n'
SECONDS = 30.0


@contextlib.contextmanager
def answering(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """Yield the port of a server that treats each connection as `behave` does."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def reason(port: int, seconds: float = SECONDS) -> str:
    with pytest.raises(Unavailable) as caught:
        read("127.0.0.1", port, seconds)
    return str(caught.value)


def test_read_returns_the_lag_of_a_real_server(tmp_path: Path) -> None:
    lags = {
        0: UncommittedLag(Committed(3, ""), first=0, end=10, stable_end=8),
        3: UncommittedLag(Committed(5, ""), first=0, end=10, stable_end=10),
    }
    lag = LagCollector(lambda: lags)
    lag.update()
    listening = bind("127.0.0.1", 0, "METRICS_PORT")
    server = MetricsServer(listening, Exposition(tmp_path, lag), lambda: ["worker-0 is away"])
    server.start()
    try:
        found = read("127.0.0.1", listening.getsockname()[1], SECONDS)
    finally:
        server.stop()
    assert found.lag is not None
    assert found.lag.messages == {0: 7, 3: 5}
    assert found.lag.held_back == 2
    assert abs(found.lag.measured_at - time.time()) < 60
    assert not found.is_ready
    assert found.version == __version__


def test_parse_sums_what_processes_report() -> None:
    found = parse(
        BUILD
        + 'analytics_process_resident_bytes{process="worker-0"} 1.0\n'
        + 'analytics_process_resident_bytes{process="worker-11"} 1.0\n'
        + 'analytics_process_resident_bytes{process="metrics"} 1.0\n'
        + "analytics_assigned_partitions 12.0\n"
        + "analytics_events_inserted_total 1.5e+06\n"
        + "analytics_dead_letters_total 3.0\n"
        + 'analytics_process_restarts_total{cause="signal"} 2.0\n'
        + 'analytics_process_restarts_total{cause="hang"} 1.0\n'
        + 'analytics_outage{dependency="clickhouse"} 2.0\n'
        + 'analytics_outage{dependency="kafka"} 0.0\n',
        is_ready=True,
    )
    assert found == HostMetrics(
        version=__version__,
        is_ready=True,
        workers=2,
        partitions=12,
        inserted=1_500_000,
        dead_letters=3,
        restarts=3,
        batches_waiting=0,
        waiting={"clickhouse": 2},
        lag=None,
    )


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e400", "9e99", "1_0", "", "--5", "٣"])
def test_parse_skips_implausible_values(value: str) -> None:
    found = parse(f"{BUILD}analytics_events_inserted_total {value}\n", is_ready=True)
    assert found.inserted == 0


def test_version_with_control_characters_is_unknown() -> None:
    found = parse('analytics_build_info{version="2\x1b[31m"} 1.0', is_ready=True)
    assert found.version == "unknown"


_NAMES = st.sampled_from(
    [
        *("analytics_lag_messages", "analytics_lag_seconds", "analytics_outage"),
        *("analytics_lag_updated_timestamp_seconds", "analytics_build_info"),
        *("analytics_process_resident_bytes", "analytics_events_inserted_total"),
    ]
)
_LABELS = st.sampled_from(["partition", "process", "version", "dependency", "x"])
_LINES = (
    st.builds(
        '{}{{{}="{}"}} {}'.format,
        _NAMES,
        _LABELS,
        st.text(),
        st.floats() | st.text() | st.integers(),
    )
    | st.text()
)


@given(st.lists(_LINES))
def test_parse_of_any_text_stays_bounded(lines: list[str]) -> None:
    found = parse("\n".join([BUILD, *lines]), is_ready=True)
    assert 0 <= found.inserted <= 1e15 * (len(lines) + 1)
    assert set(found.waiting) <= set(host_metrics.DEPENDENCIES)
    assert found.version.isascii()
    assert found.version.isprintable()


def test_closed_port_is_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert reason(port) == "connection refused"


def test_silent_server_is_cut_off() -> None:
    def keep_silent(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass

    with answering(keep_silent) as port:
        assert reason(port, 0.2) == "no answer within 0.2 s"


def test_dripping_server_is_cut_off() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with answering(drip) as port:
        assert reason(port, 0.3) == "no answer within 0.3 s"


def test_too_long_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_metrics, "MAX_BYTES", 1 << 20)

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"analytics_build_info 1\n" * 1000)

    with answering(flood) as port:
        assert reason(port) == "answers with more than 1 MiB"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"\x1b[31mSSH-2.0\r\n\r\n", "no valid HTTP answer"),
        (b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 500 \x1b[31m\r\nContent-Length: 0\r\n\r\n", "answers 500"),
        (b"HTTP/1.0 200 OK\r\n\r\nup 1\n", "answers without the metrics of this service"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "metrics of this service"),
        (b"", "no valid http answer"),
    ],
)
def test_answer_of_another_program_is_refused(answer: bytes, expected: str) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(answer)

    with answering(behave) as port:
        found = reason(port)
    assert expected.lower() in found.lower()
    assert found.isprintable()
