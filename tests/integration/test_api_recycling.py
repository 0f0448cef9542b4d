"""Replacement of API processes, after API_MAX_REQUESTS or by a reload.

Clients with kept and with new connections do not notice it.
"""

import http.client
import random
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest

from tests.integration.test_api_server import Server, children, server, wait_until
from tests.support.otlp import receiver

__all__ = ["server"]

_BODY = b'{"template": "overview_stats"}'
_HEADERS = {"Content-Type": "application/json"}
_REPLACEMENTS = 4
_REQUESTS = 400
_PAUSE_SECONDS = 0.02
_SHORT_HANG_TIME = """
from octane_analytics.api.server import run
run.HANG_SECONDS = 2
"""


@dataclass
class Client(threading.Thread):
    """Sends requests without retries, with pauses in which its connection is idle."""

    server: Server
    is_kept: bool
    """True to keep the connection until a response announces its close."""
    stop: threading.Event
    statuses: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        chance = random.Random(len(self.name))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not self.stop.is_set():
            try:
                connection.request("POST", "/report", _BODY, _HEADERS)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            if not self.is_kept:
                connection.close()
            time.sleep(chance.uniform(0.0, _PAUSE_SECONDS))
        connection.close()


@pytest.mark.parametrize(
    ("processes", "is_told"), [(1, False), (2, False), (2, True)], ids=["one", "two", "reload"]
)
def test_clients_do_not_notice_replaced_processes(
    server: Server, processes: int, is_told: bool
) -> None:
    server.environment |= {"API_WORKERS": str(processes)}
    if not is_told:
        server.environment |= {"API_MAX_REQUESTS": "20", "API_MAX_REQUESTS_JITTER": "20"}
    with server.start() as process:
        stop = threading.Event()
        clients = [Client(server, number % 2 == 0, stop) for number in range(6)]
        try:
            wait_until(server.is_up)
            seen = set(children(process.pid))
            for client in clients:
                client.start()

            def are_replaced() -> bool:
                now = set(children(process.pid))
                if is_told and len(now) == processes and now <= seen:
                    process.send_signal(signal.SIGHUP)
                    wait_until(lambda: len(set(children(process.pid)) - seen) == processes)
                seen.update(now)
                answered = sum(len(client.statuses) for client in clients)
                return len(seen) >= processes + _REPLACEMENTS and answered >= _REQUESTS

            wait_until(are_replaced, 60)
            stop.set()
            for client in clients:
                client.join(40)
            assert [failure for client in clients for failure in client.failures] == []
            assert {status for client in clients for status in client.statuses} == {200}
            process.terminate()
            assert process.wait(15) == 0
        finally:
            stop.set()
            process.kill()
            print(server.log.read_text())


def test_response_longer_than_hang_time_is_completed(server: Server) -> None:
    server.prelude = _SHORT_HANG_TIME
    server.environment |= {
        "API_WORKERS": "1",
        "API_MAX_REQUESTS": "3",
        "API_MAX_REQUESTS_JITTER": "0",
    }
    with server.start() as process:
        try:
            wait_until(server.is_up)
            first = children(process.pid)
            statuses: list[int] = []
            asking = threading.Thread(
                target=lambda: statuses.append(
                    server.query("SELECT sleep(3) AS a, sleep(2.9) AS b").status_code
                )
            )
            asking.start()
            wait_until(lambda: set(children(process.pid)) > set(first) or not server.is_up())
            asking.join(30)
            assert statuses == [200]
            wait_until(lambda: not set(first) & set(children(process.pid)))
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()
            print(server.log.read_text())


def test_replaced_process_sends_all_its_traces(server: Server) -> None:
    # gunicorn repeats its SIGTERM every second; sending the traces takes longer.
    requests, each_seconds = 8, 0.3
    with receiver(each_seconds) as collector:
        server.environment |= {
            "API_WORKERS": "1",
            "API_MAX_REQUESTS": str(requests),
            "API_MAX_REQUESTS_JITTER": "0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
        }
        with server.start() as process:
            try:
                wait_until(lambda: len(children(process.pid)) == 1 and server.is_up())
                first = children(process.pid)
                for _ in range(requests):
                    server.get("/reports")
                wait_until(lambda: not set(first) & set(children(process.pid)))
                process.terminate()
                assert process.wait(15) == 0
                assert len(collector.named("GET /reports")) == requests
            finally:
                process.kill()
                print(server.log.read_text())
