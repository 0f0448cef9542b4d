"""Comparison of behaviour reports, and of days in other time zones, with a recount."""

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_reports import approximately, rows_of
from tests.support import recount_behaviour
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.asgi_calls import report
from tests.support.recount import select

# Two days after the end of summer time in Berlin.
END = int(datetime(2026, 10, 27, 12, tzinfo=UTC).timestamp())
DAY = 86_400


@pytest.fixture
def app(clickhouse_settings: ClickHouseSettings) -> Iterator[ASGIApp]:
    with ClickHouse(clickhouse_settings, client_name="tests") as connection:
        connection.execute(f"ALTER TABLE {connection.table} REMOVE TTL")
    with app_over(clickhouse_settings) as opened:
        yield opened


def visits(count: int, days: int, users: int = 60) -> list[Row]:
    draw = random.Random(5)
    return [
        event(
            END - 1 - int(draw.random() ** 2 * days * DAY),
            draw.choice(["open", "open", "watch", "buy"]),
            f"u{int(users * draw.random() ** 2)}",
            app=draw.choice(["a", "b"]),
        )
        for _ in range(count)
    ]


def generated_events() -> list[Row]:
    until = datetime.fromtimestamp(END, UTC)
    return [decode(line) for line in generate(20_000, seed=3, until=until, span=timedelta(hours=6))]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles"])
def test_days_begin_at_midnight_of_the_zone(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, zone: str
) -> None:
    rows = visits(3000, 40)
    insert(clickhouse_settings, rows)
    start = END - 4 * DAY + 5000
    params = {"from": at(start), "to": at(END), "timezone": zone}
    events = select(rows, start, END)
    assert rows_of(app, "events_over_time", **params, bucket_seconds=DAY) == (
        recount_behaviour.events_by_day(events, start, END, zone)
    )
    assert rows_of(app, "active_users", **params) == (
        recount_behaviour.active_users(rows, start, END, zone)
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    ("first", "back"), [(None, None), ("open", "buy"), ("buy", None), (None, "watch")]
)
def test_retention_matches_a_recount(
    app: ASGIApp,
    clickhouse_settings: ClickHouseSettings,
    first: str | None,
    back: str | None,
    zone: str,
) -> None:
    rows = visits(600, 9)
    insert(clickhouse_settings, rows)
    start = END - 9 * DAY
    result = rows_of(
        app,
        "retention",
        **{"from": at(start), "to": at(END), "timezone": zone, "days": 5},
        first_event=first,
        return_event=back,
        app_id="a",
    )
    expected = recount_behaviour.retention(select(rows, start, END, "a"), END, first, back, 5, zone)
    assert len(expected) > 20
    assert result == approximately(expected)


@pytest.mark.parametrize(
    ("steps", "window"),
    [
        (["open", "watch"], DAY),
        (["open", "watch", "buy"], 600),
        (["open", "watch", "buy"], 1),
        (["open", "open"], 60),
        (["open", "watch", "open", "buy", "open"], 900),
        (["open", "never", "buy"], DAY),
        (["never", "open"], DAY),
        (["open", "it's \\ \u2603", "buy"], DAY),
    ],
)
def test_funnel_matches_a_recount(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, steps: list[str], window: int
) -> None:
    draw = random.Random(1)
    # Close together, so that many events share a second.
    rows = [
        event(END - 1 - draw.randrange(900), draw.choice(["open", "watch", "buy"]), f"u{user}")
        for user in range(80)
        for _ in range(draw.randrange(40))
    ]
    rows += [event(END - 100, "open", "s"), event(END - 50, "it's \\ \u2603", "s")]
    insert(clickhouse_settings, rows)
    params = {"from": at(END - 800), "to": at(END), "steps": steps, "window_seconds": window}
    expected = recount_behaviour.funnel(select(rows, END - 800, END), steps, window)
    assert rows_of(app, "funnel", **params) == approximately(expected)


def test_funnel_step_needs_a_later_second(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [event(END - 10, "a"), event(END - 5, "a"), event(END - 5, "b"), event(END - 5, "c")]
    insert(clickhouse_settings, rows)
    params = {"from": at(END - 100), "to": at(END)}
    result = rows_of(app, "funnel", **params, steps=["a", "b", "c"])
    assert [row["users"] for row in result] == [1, 1, 0]


def test_top_values_match_a_recount(app: ASGIApp, clickhouse_settings: ClickHouseSettings) -> None:
    rows = generated_events()
    values: list[Any] = ["x", "x", "", 5, "5", 1.5, True, False, None, [1, "a"], {"a": 1}, "é"]
    rows += [event(END - 60, "v", f"u{number % 3}", mixed=v) for number, v in enumerate(values)]
    insert(clickhouse_settings, rows)
    start = END - 6 * 3600
    events = select(rows, start, END)
    params = {"from": at(start), "to": at(END)}
    for name, event_name in (
        ("mixed", None), ("network_type", None), ("code", "video_error"), ("bitrate_kbps", None),
        ("query", "search"), ("no such property", None),
    ):  # fmt: skip
        result = rows_of(
            app, "top_values", **params, property=name, event_name=event_name, limit=5000
        )
        expected = recount_behaviour.top_values(events, name, event_name)
        assert result == approximately(expected)


@pytest.mark.parametrize(("width", "zone"), [(900, "UTC"), (3600, "UTC"), (DAY, "Europe/Berlin")])
def test_percentiles_match_a_recount(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings, width: int, zone: str
) -> None:
    rows = generated_events()
    for value in (1, -2.5, "7", None, True, [3], 0):
        rows.append(event(END - 60, "v", startup_ms=value))
    rows.append(event(END - 60, "v", raw='{"startup_ms":NaN}'))
    insert(clickhouse_settings, rows)
    start = END - 20 * 3600
    if width == DAY:
        days = recount_behaviour.days(start, END, zone)
        buckets = [recount_behaviour.midnight(day, zone) for day in days]
    else:
        buckets = list(range(start // width * width, END, width))
    params = {"from": at(start), "to": at(END), "bucket_seconds": width, "timezone": zone}
    for event_name in (None, "video_start"):
        result = rows_of(
            app, "property_percentiles", **params, property="startup_ms", event_name=event_name
        )
        assert result == approximately(
            recount_behaviour.percentiles(
                select(rows, start, END), "startup_ms", event_name, buckets
            )
        )
        assert any(row["events"] for row in result)
        assert not all(row["events"] for row in result)


def test_pages_concatenate_to_the_whole_result(
    app: ASGIApp, clickhouse_settings: ClickHouseSettings
) -> None:
    rows = [event(END - 60, "v", key=f"k{number:02d}") for number in range(23)]
    insert(clickhouse_settings, rows)
    params: dict[str, object] = {"from": at(END - 100), "to": at(END), "property": "key"}
    pages: list[list[str]] = []
    offset: int | None = 0
    while offset is not None:
        answer = report(app, "top_values", **params, limit=5, offset=offset).json()
        pages.append([row["value"] for row in answer["rows"]])
        offset = answer["next_offset"]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3]
    assert list(itertools.chain(*pages)) == [f"k{number:02d}" for number in range(23)]
