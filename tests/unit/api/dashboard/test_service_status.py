"""State of the service over a real control socket and a real metrics server."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from octane_analytics.api.dashboard.service_status import ServiceStatusSource
from tests.support.control_server import supervisor

OWN = b'analytics_events_inserted_total 7.0\nanalytics_api_requests_total{route="/"} 2.0\n'
OUTAGE = (
    b'analytics_build_info{version="1",python="3"} 1.0\n'
    b'analytics_outage{dependency="clickhouse"} 2.0\n'
    b'analytics_outage{dependency="kafka"} 0.0\n'
)
OTHERS = (
    b'analytics_build_info{version="1",python="3"} 1.0\n'
    b'analytics_lag_messages{partition="0"} 5.0\n'
    b'analytics_lag_messages{partition="a\\"b\\\\n"} 1.0\n'
    b"analytics_events_inserted_total 7.0\n"
    b'analytics_batch_rows_bucket{le="1.0"} 3.0\n'
    b"other_metric 1.0\n"
)


@contextlib.contextmanager
def metrics_process(text: bytes, status: int = 200) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def source(
    port: int | None = None, path: Path | None = None, own: Callable[[], bytes] = lambda: OWN
) -> ServiceStatusSource:
    return ServiceStatusSource(path, None if port is None else ("0.0.0.0", port), own)  # noqa: S104


def values(state: dict[str, object], name: str) -> list[tuple[dict[str, str], float]]:
    samples = state["metrics"]
    assert isinstance(samples, list)
    return [(each["labels"], each["value"]) for each in samples if each["name"] == name]


def test_state_joins_supervisor_and_both_processes(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    with supervisor(path, '{"state": "running"}'), metrics_process(OTHERS) as port:
        state = source(port, path).read()
    assert state["supervisor"] == {"state": "running"}
    assert state["has_lag"]
    assert values(state, "analytics_events_inserted_total") == [({}, 7.0)]
    assert ({"partition": 'a"b\\n'}, 1.0) in values(state, "analytics_lag_messages")
    assert values(state, "analytics_batch_rows_bucket") == values(state, "other_metric") == []


def test_state_names_conditions_of_the_metrics() -> None:
    with metrics_process(OUTAGE) as port:
        state = source(port).read()
    assert state["conditions"] == [
        {
            "text": "workers that wait for clickhouse: 2 (limit 0)",
            "page": "alerts",
            "section": "AnalyticsClickHouseOutage",
        }
    ]


def test_state_without_other_processes_has_own_metrics(tmp_path: Path) -> None:
    for text, status in ((b"a page of another program", 200), (OTHERS, 404), (b"\xff", 200)):
        with metrics_process(text, status) as port:
            state = source(port, tmp_path / "absent").read()
        assert state["supervisor"] is None
        assert not state["has_lag"]
        assert values(state, "analytics_events_inserted_total") == [({}, 7.0)]
    assert source(port).read()["supervisor"] is None


def test_malformed_answers_count_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "worker.sock"
    broken = OTHERS + b"analytics_x{ 1\n"
    with supervisor(path, "not JSON"), metrics_process(broken) as port:
        state = source(port, path).read()
    assert state["supervisor"] is None
    assert values(state, "analytics_events_inserted_total") == [({}, 7.0)]
