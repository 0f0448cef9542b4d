"""Cancellation of abandoned queries, observed in the processes of a real server."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_server import Server, wait_until
from tests.support.raw_sql import PASSWORD, users_file

ENDLESS = "SELECT count() AS endless FROM numbers(10000000000) WHERE sipHash64(number) = 1"
SORTING = (
    "SELECT number AS endless FROM numbers(2000000000) "
    "ORDER BY sipHash64(number) LIMIT 1 BY number % 9"
)


@pytest.fixture
def engine(tmp_path: Path) -> EmbeddedClickHouse:
    return EmbeddedClickHouse(
        tmp_path / "clickhouse",
        users=[User("observer")],
        users_files={"octane-query.xml": users_file()},
    )


def running(settings: ClickHouseSettings) -> list[str]:
    with ClickHouse(settings, client_name="tests") as connection:
        rows = connection.select(
            "SELECT query FROM system.processes WHERE query LIKE '%endless%' AND user = 'octane_query'"
        ).rows
    return [row[0] for row in rows]


def seconds_until(condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    wait_until(condition, 5.0)
    return time.monotonic() - started


def test_query_of_disconnected_client_is_cancelled(
    engine: EmbeddedClickHouse, tmp_path: Path
) -> None:
    with engine:
        admin = ClickHouseSettings(host=engine.host, port=engine.tcp_port, user="observer")
        server = Server(admin, tmp_path)
        server.environment |= {
            "CLICKHOUSE_QUERY_USER": "octane_query",
            "CLICKHOUSE_QUERY_PASSWORD": PASSWORD,
            "API_QUERY_TIMEOUT": "2",
            "API_WORKERS": "1",
        }
        with server.start() as process:
            try:
                wait_until(lambda: is_answering(server), 30.0)
                for sql in (ENDLESS, SORTING):
                    with pytest.raises(httpx.ReadTimeout):
                        httpx.post(f"{server.url}/query", json={"sql": sql}, timeout=0.7)
                    took = seconds_until(lambda: not running(admin))
                    # Before the timeout, two seconds after its start.
                    assert took < 1.2, took
                # A query that exceeds its timeout.
                answer = server.query(ENDLESS)
                assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
                assert not running(admin)
                assert server.query("SELECT 1").json()["rows"] == [{"1": 1}]
                shown = server.get("/metrics").text.splitlines()
                assert "analytics_api_queries_cancelled_total 2.0" in shown
                assert 'analytics_api_rows_read_total{route="/query"} 1.0' in shown
                # A stop of the service during a query.
                with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
                    client.post(f"{server.url}/query", json={"sql": ENDLESS}, timeout=0.3)
                process.kill()
                seconds_until(lambda: not running(admin))
            finally:
                process.kill()
                print(server.log.read_text())


def is_answering(server: Server) -> bool:
    try:
        return server.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
