"""Tokens of two tenants over one ledger and one cache: neither reads anything of the other.

Every text of a tenant's events begins with its name, so that an answer with the other's is a leak.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.auth.rate_limits import RateLimiter
from octane_analytics.api.auth.token_file import TokenFile
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.api.filters import OPERATORS
from octane_analytics.api.middleware.authorization import AccessPolicy
from octane_analytics.api.reports.library import load
from octane_analytics.events.event import Row
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import call

START = int(time.time()) // 3600 * 3600 - 10 * 3600
RANGE = {"from": at(START), "to": at(START + 7200)}
TENANTS = ("acme", "rival")
PER_TENANT = {"acme": 7, "rival": 11}
FILTERED = [name for name, template in load().templates.items() if template.has_filters]
SHOWN = ("overview_stats", "top_content", "top_values", "search_analytics", "errors")
"""Reports whose rows show a tenant's texts or numbers; the others cost more and are asked for once."""
OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"totals": True, "compare": "previous_period"},
    {"filters": [{"property": "tenant", "op": "in", "value": list(TENANTS)}]},
)


def events(tenant: str) -> list[Row]:
    """Return a view of every kind, now and an hour before the range, for each of the tenant's users."""
    rows = []
    for number in range(PER_TENANT[tenant]):
        user = f"{tenant}-user-{number}"
        own = {
            name: f"{tenant}-{name}"
            for name in ("tenant", "content_id", "device", "query", "code", "player_version")
        }
        own |= {"tenant": tenant, "session_id": user, "view_id": user}
        for second in (START - 3600, START + 60):
            for name in (
                "session_start",
                "search",
                "video_start",
                "video_heartbeat",
                "video_error",
            ):
                rows.append(event(second, name, user, watch_time=5, position=1, duration=50, **own))
    return rows


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings, tmp_path: Path) -> Iterator[ASGIApp]:
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(
            f'[tokens.{name}]\nhash = "sha256:{digest_of(name).hex()}"\nscopes = ["report"]\n'
            f'filters = [{{ property = "tenant", value = "{name}" }}]\n'
            for name in TENANTS
        )
    )
    policy = AccessPolicy(tokens=TokenFile(file), rate_limiter=RateLimiter(keys=16, processes=1))
    for tenant in TENANTS:
        insert(clickhouse_settings, events(tenant))
    with app_over(clickhouse_settings, policy=policy, cache_bytes=16 << 20) as app:
        yield app


def ask(app: ASGIApp, tenant: str, path: str, body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {tenant}"}
    return call(app, "POST", path, json=body, headers=headers)


def request_for(name: str, tenant: str, options: dict[str, object]) -> dict[str, object]:
    template = load().templates[name]
    required: dict[str, object] = {
        "steps": ["video_start", "video_error"],
        "content": f"{tenant}-content_id",
        "id": f"{tenant}-user-0",
        "property": "device",
    }
    params = {each: required[each] for each in template.parameters if each in required}
    return {"template": name, "params": RANGE | params, **options}


def assert_own(answer: httpx.Response, tenant: str) -> None:
    (other,) = set(TENANTS) - {tenant}
    # A request may name the other tenant; the answer repeats parameters and filters before the rows.
    rows = answer.text.partition('"rows":')[2]
    assert f"{other}-" not in rows, answer.text[:2000]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "compared", "filtered"])
def test_no_report_answers_rows_of_another(app: ASGIApp, options: dict[str, object]) -> None:
    answered: list[str] = []
    for tenant in TENANTS:
        is_every_report = not options and tenant == "acme"
        for name in FILTERED if is_every_report else SHOWN:
            answer = ask(app, tenant, "/report", request_for(name, tenant, options))
            if answer.status_code == 422:
                continue  # the report cannot be compared, or has no totals
            assert answer.status_code == 200, answer.text
            assert_own(answer, tenant)
            if name == "overview_stats":
                (row,) = answer.json()["rows"]
                assert row["total_events"] == 5 * PER_TENANT[tenant]
            if f"{tenant}-" in answer.text.partition('"rows":')[2]:
                answered.append(name)
    assert len(answered) >= 4, "the ledger has texts for the reports to show"


def test_batch_answers_rows_of_its_token_only(app: ASGIApp) -> None:
    for tenant in [*TENANTS, *TENANTS]:  # the second time from the cache
        reports = [request_for(name, tenant, {}) for name in SHOWN]
        answer = ask(app, tenant, "/reports", {"reports": reports})
        assert answer.status_code == 200, answer.text
        assert {each["status"] for each in answer.json()["answers"]} == {200}
        for each in answer.json()["answers"]:
            (other,) = set(TENANTS) - {tenant}
            assert f"{other}-" not in str(each["answer"]["rows"])


def test_cursor_of_another_token_reads_own_rows(app: ASGIApp) -> None:
    body = request_for("top_values", "acme", {})
    body["params"] = RANGE | {"property": "session_id", "limit": 3}
    found = ask(app, "acme", "/report", body)
    cursor = found.json()["next_cursor"]
    assert cursor is not None
    body["params"] = {"property": "session_id", "limit": 3}
    answer = ask(app, "rival", "/report", body | {"cursor": cursor})
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"]
    assert_own(answer, "rival")


PROPERTIES = st.sampled_from(["tenant", "properties.tenant", "user_id", "content", "app_id", "x"])
VALUES = st.sampled_from(["acme", "rival", "rival-content_id", "' OR 1 --", "", 1, True, ["rival"]])


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"property": PROPERTIES, "op": st.sampled_from(OPERATORS), "value": VALUES}
        ),
        max_size=3,
    )
)
@example([{"property": "tenant", "op": "exists", "value": False}])
def test_no_filter_widens_what_a_token_reads(
    app: ASGIApp, filters: list[dict[str, object]]
) -> None:
    body = request_for("top_values", "acme", {"filters": filters})
    body["params"] = RANGE | {"property": "session_id"}
    answer = ask(app, "acme", "/report", body)
    assert answer.status_code in (200, 422), answer.text
    assert_own(answer, "acme")
