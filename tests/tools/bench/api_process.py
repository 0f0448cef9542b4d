"""The API process of a benchmark, over a table with events."""

import http.client
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.decode import decode_all
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import COMMAND, environment

_BATCH = 100_000
_START_SECONDS = 30.0


@contextmanager
def served(events: int, port: int) -> Iterator[ClickHouseSettings]:
    """Context of one API process over a table with that many events of the last twenty hours."""
    with filled(events) as (settings, _), answering(settings, port):
        yield settings


@contextmanager
def filled(events: int) -> Iterator[tuple[ClickHouseSettings, int]]:
    """Context of a table with that many events of the last twenty hours, and its ClickHouse's PID."""
    with (
        tempfile.TemporaryDirectory(prefix="octane-bench-") as directory,
        EmbeddedClickHouse(Path(directory)) as engine,
    ):
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(settings, client_name="bench") as clickhouse:
            _fill(clickhouse, events)
        assert engine.pid is not None
        yield settings, engine.pid


@contextmanager
def answering(
    target: ClickHouseSettings, port: int, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[int]:
    """Context of one API process over that table, with further settings by name; yields its PID."""
    chosen = {
        "CLICKHOUSE_HOST": target.host,
        "CLICKHOUSE_PORT": str(target.port),
        "CLICKHOUSE_TABLE": target.table,
        "API_PORT": str(port),
        "API_WORKERS": "1",
        # As long as a direct client of ClickHouse waits for the others: no request is rejected.
        "API_QUEUE_TIMEOUT": "120",
        "LOG_LEVEL": "error",
    }
    command = [COMMAND, "api"]
    with subprocess.Popen(command, env=environment(chosen | dict(settings))) as process:
        try:
            _wait_until_ready(process, port)
            yield process.pid
        finally:
            process.terminate()


def _fill(clickhouse: ClickHouseSink, events: int) -> None:
    clickhouse.execute(schema.create_table(clickhouse.table))
    lines = list(generate(events, seed=1, until=datetime.now(UTC), span=timedelta(hours=20)))
    for start in range(0, events, _BATCH):
        clickhouse.insert_block(decode_all(lines[start : start + _BATCH]).columns, None, None)
    clickhouse.execute(f"OPTIMIZE TABLE {clickhouse.table} FINAL")


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        client = http.client.HTTPConnection("127.0.0.1", port)
        try:
            client.request("GET", "/readyz")
            if client.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            client.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise click.ClickException(
                f"the API does not answer on port {port}: give another --port"
            )
        time.sleep(0.1)
