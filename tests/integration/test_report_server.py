"""Reports from a real server: large responses, reloads, identical requests at once."""

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_server import Server, children, wait_until

ROWS = 1_000_000
COLUMNS = ("timestamp", "app_id", "event_name", "user_id", "properties")
ALL_EVENTS = """/*
title = "All events"
description = "Every event of the range."
row_limit = 2000000

[columns]
timestamp = "When."
app_id = "Whose."
event_name = "What."
user_id = "Who."
properties = "The rest."
*/
SELECT timestamp, app_id, event_name, user_id, properties
FROM {database:Identifier}.{table:Identifier}
WHERE timestamp >= {from:DateTime('UTC')}
    AND timestamp < {to:DateTime('UTC')}
    AND ({app_id:String} = '' OR app_id = {app_id:String})
"""


@contextmanager
def serving(
    settings: ClickHouseSettings, directory: Path, **environment: str
) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    server = Server(settings, directory)
    server.environment |= {"API_WORKERS": "1"} | environment
    with server.start() as process:
        try:
            wait_until(server.is_up, 20)
            yield server, process
        finally:
            process.kill()
            print(server.log.read_text()[-5000:])


def peak_kib(pid: int) -> int:
    """Return the peak memory of the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def whole_lines(answer: httpx.Response) -> Iterator[bytes]:
    """Yield the body in chunks of whole lines."""
    rest = b""
    for chunk in answer.iter_bytes():
        piece, end, rest = (rest + chunk).rpartition(b"\n")
        yield piece + end
    assert not rest


def found_in(lines: bytes, name: str) -> list[int]:
    """Return `n` of each row. Only the first row is parsed as JSON, to save time."""
    if name == "ndjson":
        numbers = [int(n) for n in re.findall(rb'\{\\"n\\":(\d+),', lines)]
        first = json.loads(lines.partition(b"\n")[0]) if lines else None
    else:
        numbers = [int(n) for n in re.findall(rb'\{""n"":(\d+),', lines)]
        (first,) = (
            csv.DictReader([lines.partition(b"\n")[0].decode()], COLUMNS) if lines else (None,)
        )
    if first is not None and first["app_id"] != "app_id":
        assert json.loads(first["properties"])["n"] == numbers[0]
    return numbers


@pytest.mark.timeout(300)
def test_a_million_rows_stream_in_little_memory(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(
            f"INSERT INTO {connection.table} SELECT now() - number % 3600, 'app', 'event', "
            "concat('user_', toString(number % 9999)), "
            f"""concat('{{"n":', toString(number), ',"text":"some text, quoted"}}') """
            f"FROM numbers({ROWS})"
        )
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "all_events.sql").write_text(ALL_EVENTS)
    limits = {
        "REPORTS_DIR": str(reports),
        "API_QUERY_TIMEOUT": "120",
        "API_MAX_RESULT_BYTES": str(1 << 30),
    }
    with serving(clickhouse_settings, tmp_path, **limits) as (server, arbiter):
        (worker,) = children(arbiter.pid)
        server.get("/report/overview_stats")
        for name in ("ndjson", "csv"):
            before = peak_kib(worker)
            url = f"{server.url}/report/all_events?format={name}"
            with httpx.stream("GET", url, timeout=120) as answer:
                assert answer.status_code == 200
                numbers = [n for lines in whole_lines(answer) for n in found_in(lines, name)]
                assert (len(numbers), sum(numbers)) == (ROWS, ROWS * (ROWS - 1) // 2)
            assert peak_kib(worker) - before < 64 << 10


def test_stream_failing_halfway_is_aborted_and_logged(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(
            f"INSERT INTO {connection.table} SELECT now() - 60, 'app', 'event', "
            "toString(number), repeat('x', 1000) FROM numbers(20000)"
        )
    reports = tmp_path / "reports"
    reports.mkdir()
    # Counts rows over all threads: by a row's value, a second thread may fail before anything is sent.
    failing = "if(throwIf(rowNumberInAllBlocks() >= 19000) = 0, properties, '') AS properties"
    text = ALL_EVENTS.replace("user_id, properties", f"user_id, {failing}", 1)
    (reports / "all_events.sql").write_text(text)
    with serving(clickhouse_settings, tmp_path, REPORTS_DIR=str(reports)) as (server, _):
        url = f"{server.url}/report/all_events?format=ndjson"
        with httpx.stream("GET", url, timeout=30) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                list(answer.iter_bytes())
        wait_until(lambda: "broke off in the middle" in server.log.read_text())
        # The failed connection is not reused.
        assert server.get("/report/overview_stats").json()["rows"][0]["total_events"] == 20_000


def test_disconnected_reader_frees_the_connection(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(
            f"INSERT INTO {connection.table} SELECT now() - 60, 'app', 'event', "
            "toString(number), repeat('x', 1000) FROM numbers(100000)"
        )
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "all_events.sql").write_text(ALL_EVENTS)
    limits = {"REPORTS_DIR": str(reports), "API_THREADS": "1", "API_MAX_RESULT_BYTES": "1000000000"}
    with serving(clickhouse_settings, tmp_path, **limits) as (server, _):
        for _ in range(3):
            url = f"{server.url}/report/all_events?format=ndjson"
            with httpx.stream("GET", url, timeout=30) as answer:
                assert len(next(answer.iter_bytes())) > 0
        answer = server.get("/report/overview_stats")
        assert answer.json()["rows"][0]["total_events"] == 100_000


def test_sighup_reloads_operator_templates(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "mine.sql").write_text(ALL_EVENTS)
    (reports / "broken.sql").write_text("SELECT 1")

    def titles(server: Server) -> dict[str, str]:
        with httpx.Client() as client:
            listed = client.get(f"{server.url}/reports", timeout=10).json()["templates"]
        return {each["name"]: each["title"] for each in listed}

    with serving(clickhouse_settings, tmp_path, REPORTS_DIR=str(reports)) as (server, process):
        first = titles(server)
        assert (first["mine"], "broken" in first) == ("All events", False)
        assert f"{reports / 'broken.sql'}:1: " in server.log.read_text()

        (reports / "mine.sql").write_text(ALL_EVENTS.replace("row_limit = 2", "row_limit = -2"))
        (reports / "broken.sql").write_text(ALL_EVENTS.replace("All events", "Fixed"))
        before = set(children(process.pid))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(children(process.pid)), 20)
        wait_until(server.is_up, 20)
        second = titles(server)
        assert (second["mine"], second["broken"]) == ("All events", "Fixed")
        assert f"{reports / 'mine.sql'}:4: " in server.log.read_text()
        assert "its previous version is served" in server.log.read_text()


def test_identical_concurrent_requests_share_one_query(
    clickhouse_settings: ClickHouseSettings, tmp_path: Path
) -> None:
    def queries(connection: ClickHouse) -> int:
        """Return the number of queries of the whole server so far, including this one."""
        found = connection.select("SELECT value FROM system.events WHERE event = 'SelectQuery'")
        return int(found.rows[0][0])

    with (
        ClickHouse(clickhouse_settings, client_name="tests") as connection,
        serving(clickhouse_settings, tmp_path) as (server, _),
    ):
        before = queries(connection)
        client = subprocess.run(
            [
                sys.executable,
                "-c",
                _CONCURRENT_REQUESTS,
                f"{server.url}/report/overview_stats",
                "200",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        outcomes = json.loads(client.stdout)
        assert sum(outcomes.values()) == 200
        assert outcomes["miss"] == 1
        assert queries(connection) - before - 1 == 1


_CONCURRENT_REQUESTS = """
import asyncio, collections, json, sys, httpx
async def main():
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:
        answers = await asyncio.gather(*(client.get(sys.argv[1]) for _ in range(int(sys.argv[2]))))
    assert {answer.status_code for answer in answers} == {200}
    print(json.dumps(collections.Counter(answer.headers["x-cache"] for answer in answers)))
asyncio.run(main())
"""
