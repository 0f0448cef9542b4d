"""Answers of a confined token equal those over a ledger that has only its tenant's events.

A token is confined by a filter or by its application. Both tenants have the same users, sessions, views
and contents, and share one cache: whatever a request asks for (filters, comparison, totals, pages, a
batch, a live report), a number that depends on the other tenant's events differs from the one over the
tenant's own ledger. With TOKEN_EXAMPLES=300 as many random requests are tried, which takes minutes.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from octane_analytics.api.auth.rate_limits import RateLimiter
from octane_analytics.api.auth.token_file import TokenFile
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.api.middleware.authorization import AccessPolicy
from octane_analytics.api.reports.library import load
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.event import Row
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import call

START = int(time.time()) // 3600 * 3600 - 10 * 3600
RANGE = {"from": at(START), "to": at(START + 7200)}
TENANTS = ("acme", "rival")
TOKENS = (*TENANTS, *(f"{name}-app" for name in TENANTS))
"""Tokens with a fixed filter, and with a fixed application."""
REPORTS = {name: each for name, each in load().templates.items() if each.has_filters}
REQUIRED: dict[str, object] = {
    "steps": ["video_start", "video_error"],
    "content": "c1",
    "id": "s1",
    "property": "device",
}
EXAMPLES = int(os.environ.get("TOKEN_EXAMPLES", "0"))
Request = dict[str, Any]


def events(tenant: str, app: str) -> list[Row]:
    rows = []
    for number in range(12 if tenant == "acme" else 31):
        user, session, content = f"u{number % 4}", f"s{number % 4}", f"c{number % 3}"
        own = {
            "tenant": tenant,
            "session_id": session,
            "view_id": f"v{number}" if number % 2 else "",
            "content_id": content,
            "device": ("tv", "web", 5)[(number + len(tenant)) % 3],
            "duration": 100 + len(tenant),
        }
        for begin in (START - 3600 + number, START + 60 * number):
            for after, name, more in (
                (0, "session_start", {}),
                (1, "search", {"query": f"q{number % 3}", "results_count": number % 2}),
                (2, "search_click", {"query": f"q{number % 3}", "position": 1}),
                (3, "video_request", {}),
                (4, "video_start", {"startup_ms": 100 * len(tenant) + number}),
                (9, "video_heartbeat", {"watch_time": 5, "position": 5, "bitrate_kbps": 900}),
                (9 + len(tenant), "video_buffering", {"buffer_duration_ms": 7 * len(tenant)}),
                (20, "video_heartbeat", {"watch_time": len(tenant), "position": 9}),
                (21, "video_error", {"code": f"E{number % 2}", "fatal": number % 3 == 0}),
            ):
                rows.append(event(begin + after, name, user, app=app, **own | more))
    return rows


def confined_by(token: str) -> str:
    if token in TENANTS:
        return f'filters = [{{ property = "tenant", value = "{token}" }}]'
    return f'parameters = {{ app_id = "{token}" }}'


@pytest.fixture(scope="module")
def apps(
    clickhouse_engine: EmbeddedClickHouse, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, ASGIApp]]:
    """Yield the app over the events of all, and those over the events of each tenant."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(
        "".join(
            f'[tokens.{name}]\nhash = "sha256:{digest_of(name).hex()}"\nscopes = ["report"]\n'
            f"{confined_by(name)}\n"
            for name in TOKENS
        )
    )
    policy = AccessPolicy(tokens=TokenFile(file), rate_limiter=RateLimiter(keys=16, processes=1))
    address = ClickHouseSettings(host=clickhouse_engine.host, port=clickhouse_engine.tcp_port)
    with ExitStack() as stack:
        opened = {}
        connection = stack.enter_context(ClickHouse(address, client_name="tests"))
        for name in ("all", *TENANTS):
            database = f"test_{uuid.uuid4().hex[:12]}"
            chosen = ClickHouseSettings(host=address.host, port=address.port, database=database)
            connection.execute(f"CREATE DATABASE {database}")
            stack.callback(connection.execute, f"DROP DATABASE {database}")
            connection.execute(schema.create_table(schema.TableName(database, chosen.table)))
            for tenant in TENANTS:
                if name in ("all", tenant):
                    insert(chosen, events(tenant, "shared") + events(tenant, f"{tenant}-app"))
            opened[name] = stack.enter_context(
                app_over(chosen, policy=policy, cache_bytes=16 << 20)
            )
        yield opened


VALUES = st.sampled_from(["tv", "acme", "rival", "u1", "c1", "E1", 5, 2.5, True])
FILTERS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "property": st.sampled_from(
                    ["tenant", "device", "user_id", "content", "properties.content_id", "x"]
                ),
                "op": st.sampled_from(["eq", "ne"]),
                "value": VALUES,
            }
        ),
        st.fixed_dictionaries(
            {
                "property": st.sampled_from(["tenant", "device", "content", "watch_time"]),
                "op": st.sampled_from(["in", "not_in"]),
                "value": st.lists(VALUES, min_size=1, max_size=3),
            }
        ),
        st.fixed_dictionaries(
            {
                "property": st.sampled_from(["watch_time", "tenant", "properties.user_id"]),
                "op": st.sampled_from(["gt", "lt"]),
                "value": st.sampled_from([4, 4.5, -1]),
            }
        ),
        st.fixed_dictionaries(
            {
                "property": st.sampled_from(["tenant", "device", "x"]),
                "op": st.just("exists"),
                "value": st.booleans(),
            }
        ),
    ),
    max_size=2,
)
COMPARISONS = st.sampled_from(
    [None, "previous_period", "previous_year", {"from": at(START - 3600), "to": at(START)}]
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    name = draw(st.sampled_from(sorted(REPORTS)))
    template = REPORTS[name]
    params = RANGE | {each: REQUIRED[each] for each in template.parameters if each in REQUIRED}
    if "limit" in template.parameters and draw(st.booleans()):
        params |= {"limit": draw(st.integers(1, 3)), "offset": draw(st.integers(0, 2))}
    if "by" in template.parameters and template.parameters["by"].allowed is None:
        params["by"] = draw(st.sampled_from(["device", "tenant", "content", "app_id"]))
    request: Request = {"template": name, "params": params, "filters": draw(FILTERS)}
    if template.key is not None and (compare := draw(COMPARISONS)):
        request["compare"] = compare
    if template.has_totals and draw(st.booleans()):
        request["totals"] = True
    return request


def post(app: ASGIApp, token: str, path: str, body: object) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    answer = call(app, "POST", path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def single(app: ASGIApp, token: str, request: Request) -> list[Any]:
    """Return the answer, and that of the next page."""
    found = [post(app, token, "/report", request)]
    if found[0].get("next_cursor"):
        kept = {name: v for name, v in request["params"].items() if name not in PAGE}
        following = {**request, "params": kept, "cursor": found[0]["next_cursor"]}
        found.append(post(app, token, "/report", following))
    return found


def batch(app: ASGIApp, token: str, request: Request) -> list[Any]:
    answers = post(app, token, "/reports", {"reports": [request, request]})["answers"]
    return [each["answer"] for each in answers]


def live(app: ASGIApp, token: str, request: Request) -> list[Any]:
    """Return the first answer of the stream."""
    pairs = [(name, value) for name, value in request["params"].items() if name != "steps"]
    pairs += [("steps", each) for each in request["params"].get("steps", ())]
    if "totals" in request:
        pairs.append(("totals", "1"))
    compare = request.get("compare")
    if compare is not None:
        text = compare if isinstance(compare, str) else f"{compare['from']}/{compare['to']}"
        pairs.append(("compare", text))
    body = asyncio.run(first_event(app, f"/live/{request['template']}", urlencode(pairs), token))
    (line,) = (each for each in body.split(b"\n") if each.startswith(b"data: "))
    return [json.loads(line.removeprefix(b"data: "))]


async def first_event(app: ASGIApp, path: str, query: str, token: str) -> bytes:
    received: list[bytes] = []
    is_sent = asyncio.Event()
    is_asked = False

    async def receive() -> Message:
        nonlocal is_asked
        if not is_asked:
            is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await is_sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            received.append(message["body"])
            is_sent.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
    }
    await asyncio.wait_for(app(scope, receive, send), 60)
    return received[0]


PAGE = ("from", "to", "offset")
WAYS = {"single": single, "batch": batch, "live": live}


def comparable(answers: list[Any]) -> list[Any]:
    return [{name: v for name, v in each.items() if name != "elapsed_ms"} for each in answers]


def close_to(value: Any) -> Any:
    """Approximate floats, whose sums depend on the order of rows."""
    if isinstance(value, dict):
        return {name: close_to(each) for name, each in value.items()}
    if isinstance(value, list):
        return [close_to(each) for each in value]
    return pytest.approx(value, rel=1e-9, abs=2e-6) if isinstance(value, float) else value


def test_answers_do_not_depend_on_events_of_others(apps: Mapping[str, ASGIApp]) -> None:
    shown: set[str] = set()

    @settings(
        max_examples=EXAMPLES or 12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not EXAMPLES,
        phases=[Phase.generate],
    )
    @given(requests(), st.sampled_from(sorted(WAYS)), st.sampled_from(["", "-app"]))
    def check(request: Request, way: str, kind: str) -> None:
        if way == "live":
            request = {**request, "filters": []}
        for tenant in TENANTS:
            token = tenant + kind
            found = comparable(WAYS[way](apps["all"], token, request))
            assert found == close_to(comparable(WAYS[way](apps[tenant], token, request)))
            if any(each["rows"] for each in found):
                shown.add(f"{way} {request['template']}")

    check()
    assert len(shown) > 3, shown
