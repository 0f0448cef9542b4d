"""Metrics server, over a real socket."""

import http.client
import socket

import pytest

from octane_analytics.telemetry.metrics_server import MetricsServer, bind


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    result = response.status, response.read()
    connection.close()
    return result


def test_server_releases_the_port_when_stopped() -> None:
    listening = bind("127.0.0.1", 0, "METRICS_PORT")
    port = listening.getsockname()[1]
    server = MetricsServer(listening, lambda: b"analytics 1\n", lambda: ["worker-0 is not running"])
    server.start()
    held = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    held.request("GET", "/metrics")  # a kept connection does not block the server
    assert held.getresponse().read() == b"analytics 1\n"
    assert _get(port, "/") == _get(port, "/?name=x") == _get(port, "/metrics")
    assert _get(port, "/")[0] == 200
    assert _get(port, "/healthz") == (200, b"ok\n")
    assert _get(port, "/readyz") == (503, b"worker-0 is not running\n")
    assert _get(port, "/elsewhere")[0] == 404
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)
    held.close()


def test_head_is_answered_as_get_without_body() -> None:
    listening = bind("127.0.0.1", 0, "METRICS_PORT")
    server = MetricsServer(listening, lambda: b"analytics 1\n", lambda: ["worker-0 is not running"])
    server.start()
    kept = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=20)
    for path, status in (("/metrics", 200), ("/healthz", 200), ("/readyz", 503), ("/x", 404)):
        heads = []
        for method in (
            "HEAD",
            "GET",
        ):  # on one connection: a body after HEAD would break the second
            kept.request(method, path)
            response = kept.getresponse()
            body = response.read()
            assert (response.status, bool(body)) == (status, method == "GET")
            fields = dict(response.getheaders())
            heads.append({name: fields[name] for name in ("Content-Type", "Content-Length")})
        assert heads[0] == heads[1]
    kept.close()
    server.stop()
