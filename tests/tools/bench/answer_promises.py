"""Faults and edges of ClickHouse's HTTP interface and formats, asked of a running server."""

import json
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from octane_analytics.api.results.formats import row_object
from octane_analytics.api.results.json_values import encode
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import Abandoned
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench.http_answers import FORMATS, SETTINGS

_VALUES = (
    "SELECT toInt64(9007199254740993) AS above_2_53, toInt128(5) AS int128, "
    "toDecimal64(1.50, 2) AS decimal, nan AS nan, toDateTime(0, 'UTC') AS date_time, "
    "toDateTime64('2299-12-31 23:59:59.123456', 6, 'UTC') AS far, "
    "toDateTime64('2026-01-01 00:00:00.500000', 6, 'UTC') AS fraction, "
    "toDateTime64('2026-01-01 00:00:00', 6, 'UTC') AS whole, "
    "unhex('61FF62') AS invalid_utf8, "
    "map('k', 1) AS map, tuple(1, 'x') AS tuple, tuple(1 AS a, 2 AS b) AS named_tuple, "
    "toFixedString('ab', 4) AS fixed, true AS bool, 1.0 AS float, "
    "[toInt64(9007199254740993)] AS nested_above"
)
_FAILS_LATE = (
    "SELECT number, throwIf(number = 1500000) AS x, toString(number) AS s FROM numbers(3000000)"
)
_TOTALS = "SELECT number % 3 AS k, count() AS n FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k"
_SLOW = "SELECT count() FROM numbers(8000) WHERE NOT ignore(sleepEachRow(0.001))"
_SLOW_BLOCKS = {"max_block_size": 10}
_GONE_AFTER_SECONDS = 0.5
_CANCEL_SECONDS = 4.0


@dataclass(frozen=True)
class Reply:
    """`failure` is the client's error while it read the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: str


class _Server:
    def __init__(self, engine: EmbeddedClickHouse) -> None:
        self.engine = engine
        self._url = f"http://127.0.0.1:{engine.http_port}/"

    def ask(self, sql: str, **parameters: object) -> Reply:
        texts = {name: str(value) for name, value in parameters.items()}
        body, failure = bytearray(), ""
        with httpx.stream(
            "POST", self._url, params=texts, content=sql, headers={"Accept-Encoding": "identity"}
        ) as response:
            try:
                for chunk in response.iter_raw():
                    body += chunk
            except httpx.HTTPError as error:
                failure = type(error).__name__
            return Reply(response.status_code, response.headers, bytes(body), failure)

    def seconds_until_cancelled(self, **parameters: object) -> float | None:
        """Return the time for which the query runs after its client has gone; None: to its end."""
        query_id = secrets.token_hex(8)
        texts = {name: str(value) for name, value in parameters.items()}
        with suppress(httpx.TimeoutException):
            httpx.post(
                self._url,
                params={**texts, **_SLOW_BLOCKS, "query_id": query_id},
                content=_SLOW,
                timeout=_GONE_AFTER_SECONDS,
            )
        return self._seconds_until_ended(query_id)

    def seconds_until_cancelled_natively(self) -> float | None:
        query_id = secrets.token_hex(8)
        settings = ClickHouseSettings(host="127.0.0.1", port=self.engine.tcp_port)
        connection = ClickHouse(settings, client_name="bench")
        timer = threading.Timer(_GONE_AFTER_SECONDS, connection.abort)
        timer.start()
        with suppress(Abandoned):
            connection.select(_SLOW, settings=_SLOW_BLOCKS, query_id=query_id)
        return self._seconds_until_ended(query_id)

    def _seconds_until_ended(self, query_id: str) -> float | None:
        started = time.monotonic()
        while time.monotonic() - started < _CANCEL_SECONDS:
            found = self.ask(
                "SELECT count() FROM system.processes WHERE query_id = {id:String}",
                param_id=query_id,
            )
            if found.body.strip() == b"0":
                return time.monotonic() - started
            time.sleep(0.05)
        return None


def show() -> None:
    """Print one line for each promise of the API and what the HTTP interface does."""
    shown = Table("promise", "through HTTP")
    with (
        tempfile.TemporaryDirectory(prefix="octane-bench-") as directory,
        EmbeddedClickHouse(
            Path(directory), users=[User("confined", settings={"readonly": 1})]
        ) as engine,
    ):
        server = _Server(engine)
        for name, found in [
            *_faults(server),
            *_marks(server),
            *_settings(server),
            *_values(server),
        ]:
            shown.add_row(name, found)
    Console(width=120).print(shown)


def _faults(server: _Server) -> Iterator[tuple[str, str]]:
    early = server.ask("SELEC 1", default_format="JSONEachRow")
    yield (
        "error before the first byte",
        f"{early.status}, code {early.headers['x-clickhouse-exception-code']}",
    )
    for name, output_format in FORMATS.items():
        late = server.ask(_FAILS_LATE, default_format=output_format, max_threads=1)
        is_marked = b"__exception__" in late.body[-2000:]
        yield (
            f"error in the middle, {name}",
            f"{late.status}, {late.failure or 'complete'} after {len(late.body):,} bytes, "
            f"error text {'in' if is_marked else 'not in'} the body",
        )
    waited = server.ask(_FAILS_LATE, default_format="JSONEachRow", wait_end_of_query=1)
    yield "the same, wait_end_of_query=1", f"{waited.status}; the server buffers the whole answer"
    for flag, readonly in ((0, 1), (1, 1), (1, 0)):
        seconds = server.seconds_until_cancelled(
            cancel_http_readonly_queries_on_client_close=flag, readonly=readonly
        )
        yield f"client gone, cancel…={flag}, readonly={readonly}", _cancelled(seconds)
    yield "client gone, native protocol", _cancelled(server.seconds_until_cancelled_natively())


def _cancelled(seconds: float | None) -> str:
    return "runs on" if seconds is None else f"cancelled after {seconds:.1f} s"


def _marks(server: _Server) -> Iterator[tuple[str, str]]:
    for name, output_format in FORMATS.items():
        found = server.ask(_TOTALS, default_format=output_format)
        text = repr(found.body) if name in ("json", "csv") else f"{len(found.body)} bytes"
        yield f"totals, {name}", text
    whole = server.ask(_TOTALS, default_format="JSON")
    yield "totals, ClickHouse's own JSON", f"apart: {json.loads(whole.body)['totals']}"
    streamed = server.ask("SELECT number FROM numbers(100000)", default_format="CSV")
    summary = json.loads(streamed.headers["x-clickhouse-summary"])
    yield (
        "rows read and returned, while streaming",
        f"{summary['read_rows']}, {summary['result_rows']} of 100000",
    )
    ended = server.ask(
        "SELECT number FROM numbers(100000)", default_format="CSV", wait_end_of_query=1
    )
    summary = json.loads(ended.headers["x-clickhouse-summary"])
    yield (
        "the same, wait_end_of_query=1",
        f"{summary['read_rows']}, {summary['result_rows']} of 100000",
    )


def _settings(server: _Server) -> Iterator[tuple[str, str]]:
    for setting, value in SETTINGS.items():
        found = server.ask("SELECT 1", user="confined", **{setting: value})
        if found.status != 200:
            yield f"profile with readonly=1: {setting}", found.body.decode().split(" (")[0]
            break
    tab = server.ask("SELECT {x:String}", param_x="a\tb")
    yield "a parameter with a tab", f"{tab.status} unless the client escapes it as in TSV"


def _values(server: _Server) -> Iterator[tuple[str, str]]:
    settings = ClickHouseSettings(host="127.0.0.1", port=server.engine.tcp_port)
    with ClickHouse(settings, client_name="bench") as connection:
        native = connection.select(_VALUES)
    ours = json.loads(encode(row_object(native.columns, native.rows[0])))
    theirs = json.loads(server.ask(_VALUES, default_format="JSONEachRow", **SETTINGS).body)
    for name, value in ours.items():
        if theirs[name] != value:
            yield f"value of {name}", f"{theirs[name]!r} instead of {value!r}"
