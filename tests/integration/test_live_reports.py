"""Live reports with real processes and sockets: tokens, changes, the limit of listeners, the drain."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_access import Api, start, wait_until
from tests.support.api_fixtures import event, insert

__all__ = ["start"]

Start = Callable[..., Api]
RECEIVE_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
PATH = "/live/overview_stats?interval=1&from=-1h"


@contextlib.contextmanager
def listening(api: Api, token: str, path: str = PATH, **headers: str) -> Iterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {token}"} | headers
    with httpx.stream("GET", api.url + path, headers=headers, timeout=30) as answer:
        yield answer


def events_of(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and the answer of each event."""
    event_id = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "data":
            yield event_id, json.loads(value)


@pytest.fixture
def api(start: Start, clickhouse_settings: ClickHouseSettings) -> Api:
    def prepare(api: Api) -> None:
        api.add("all", "report")
        api.add("acme", "report", filters=[{"property": "tenant", "value": "acme"}])
        api.add("rival", "report", filters=[{"property": "tenant", "value": "rival"}])
        api.add("single", "report", concurrency=1)
        api.add("query", "query")

    now = int(time.time())
    insert(clickhouse_settings, [event(now, "e", tenant="acme") for _ in range(3)])
    return start(clickhouse_settings, prepare, API_WORKERS="1")


def test_each_token_listens_to_its_own_rows(
    api: Api, clickhouse_settings: ClickHouseSettings
) -> None:
    with (
        listening(api, "acme") as acme,
        listening(api, "rival") as rival,
        listening(api, "all", f"{PATH}&filter=tenant:eq:rival") as everything,
    ):
        assert acme.headers["content-type"].startswith("text/event-stream")
        assert acme.headers["cache-control"] == "no-store"
        streams = [events_of(each) for each in (acme, rival, everything)]
        counts = [next(stream)[1]["rows"][0]["total_events"] for stream in streams]
        assert counts == [3, 0, 0]
        now = int(time.time())
        insert(clickhouse_settings, [event(now, "e", tenant="rival")])
        insert(clickhouse_settings, [event(now, "e", tenant="acme")])
        latest = [0, 0, 0]
        for number, (stream, expected) in enumerate(zip(streams, (4, 1, 1), strict=True)):
            while latest[number] != expected:
                latest[number] = next(stream)[1]["rows"][0]["total_events"]
    assert [api.ask(None, PATH), api.ask("query", PATH)] == [401, 403]


def test_known_answer_is_not_sent_again(api: Api, clickhouse_settings: ClickHouseSettings) -> None:
    with listening(api, "all") as answer:
        known, _ = next(events_of(answer))
    with listening(api, "all", **{"Last-Event-ID": known}) as answer:
        insert(clickhouse_settings, [event(int(time.time()), "e")])
        _, body = next(events_of(answer))
    assert body["rows"][0]["total_events"] == 4


def test_listener_occupies_a_slot_of_its_token(api: Api) -> None:
    with listening(api, "single") as answer:
        events = events_of(answer)
        next(events)
        with listening(api, "single") as refused:
            assert refused.status_code == 429
    wait_until(lambda: api.ask("single", "/reports") == 200)


def test_stream_ends_when_its_token_is_revoked(
    api: Api, clickhouse_settings: ClickHouseSettings
) -> None:
    with listening(api, "acme") as answer, listening(api, "all") as other:
        events, others = events_of(answer), events_of(other)
        next(events)
        next(others)
        text = api.tokens.read_text()
        begin = text.index("[tokens.acme]")
        end = text.find("[tokens.", begin + 1)
        api.tokens.write_text(text[:begin] + (text[end:] if end >= 0 else ""))
        assert list(events) == []
        assert api.ask("acme", PATH) == 401
        insert(clickhouse_settings, [event(int(time.time()), "e")])
        assert next(others)[1]["rows"][0]["total_events"] == 4


def test_head_of_a_live_report_ends_at_once(api: Api) -> None:
    for _ in range(2):  # the slot is free again
        headers = {"Authorization": "Bearer single"}
        answer = httpx.head(api.url + PATH, headers=headers, timeout=30)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_listeners_leave_connections_to_others(
    start: Start, clickhouse_settings: ClickHouseSettings
) -> None:
    options = {"API_WORKERS": "1", "API_MAX_CONNECTIONS": "20"}
    api = start(clickhouse_settings, lambda api: api.add("all", "report"), **options)
    with contextlib.ExitStack() as stack:
        for _ in range(18):
            assert stack.enter_context(listening(api, "all")).status_code == 200
        with listening(api, "all") as refused:
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        assert [api.ask("all"), api.ask(None, "/healthz")] == [200, 200]


def test_stream_ends_when_the_process_drains(api: Api) -> None:
    with listening(api, "all") as answer:
        events = events_of(answer)
        next(events)
        assert api.process is not None
        api.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert list(events) == []
        assert time.monotonic() - started < 10


def test_client_that_does_not_read_is_dropped(
    api: Api, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [event(int(time.time()), "search", query=f"{n}" + "x" * 900) for n in range(200)]
    insert(clickhouse_settings, rows)
    with api.connect() as client:
        client.setsockopt(*RECEIVE_BUFFER)
        client.sendall(
            b"GET /live/search_analytics?interval=1&limit=200&from=-1h HTTP/1.1\r\n"
            b"Host: localhost\r\nAuthorization: Bearer all\r\n\r\n"
        )
        # Each refresh has other rows, of some 200 KiB; the kernel does not take 20 of them.
        for number in range(24):
            insert(clickhouse_settings, [event(int(time.time()), "search", query=f"0{number}")])
            time.sleep(0.5)
            if "does not read" in api.log.read_text():
                return
    raise AssertionError("the client was not dropped")
