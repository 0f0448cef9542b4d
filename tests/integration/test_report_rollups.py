"""Reports over a table with rollups: the plan, and equality with raw events and with a recount."""

import dataclasses
import random
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.errors import from_report
from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.parameters import bind
from octane_analytics.clickhouse import rollups, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import StatementRejected
from octane_analytics.events.event import Row
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_reports import NASTY_WATCH_TIMES, approximately, rows_of
from tests.support import recount, recount_behaviour
from tests.support.api_fixtures import app_over, at, event, insert
from tests.support.command import run

BEGIN = int(datetime(2026, 3, 20, tzinfo=UTC).timestamp())
"""Summer time begins in Berlin, and ends on Lord Howe, within the days after it."""
HOUR, DAY = 3600, 86_400
ZONES = (
    "UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe",
)  # fmt: skip
TOTALS = {"users", "totals"}
"""Both can answer: ClickHouse takes the one with fewer marks."""
LABELS: dict[str, tuple[set[str], dict[str, object]]] = {
    "overview_stats": ({"users"}, {}),
    "events_over_time": (TOTALS, {"bucket_seconds": DAY}),
    "search_analytics": ({"search"}, {}),
    "top_content": ({"content", "content_weeks"}, {}),
    "quality_of_experience": ({"quality"}, {"by": "device"}),
    "active_users": (TOTALS, {}),
    "playback_over_time": ({"quality"}, {"bucket_seconds": DAY}),
    "searches_over_time": ({"search"}, {"bucket_seconds": 0}),
    "quality_over_time": ({"quality"}, {"by": "device", "bucket_seconds": DAY}),
    "quality_breakdown": ({"quality"}, {}),
}
SINGLE_USERS: dict[str, dict[str, object]] = {
    "funnel": {"steps": ["search", "video_start"]},
    "retention": {"days": 3},
    "top_values": {"property": "device"},
    "property_percentiles": {"property": "watch_time", "bucket_seconds": DAY},
}


@pytest.fixture
def raw(clickhouse_settings: ClickHouseSettings) -> ClickHouseSettings:
    """Return the settings of a table without rollups or TTL."""
    with ClickHouseSink(clickhouse_settings, client_name="tests") as sink:
        sink.execute(f"ALTER TABLE {sink.table} REMOVE TTL")
        for name in _projections(clickhouse_settings):
            sink.execute(rollups.drop(sink.table, name))
    return clickhouse_settings


@pytest.fixture
def rolled(raw: ClickHouseSettings) -> Iterator[ClickHouseSettings]:
    """Yield the settings of an equal table with all rollups."""
    both = dataclasses.replace(raw, table=f"{raw.table}_rolled")
    with ClickHouseSink(both, client_name="tests") as sink:
        source = TableName(raw.database, raw.table)
        sink.execute(f"CREATE TABLE {sink.table} AS {source}")
        for rollup in rollups.ROLLUPS:
            sink.execute(rollups.add(sink.table, rollup))
        yield both
        sink.execute(f"DROP TABLE {sink.table} SYNC")


@pytest.fixture
def apps(raw: ClickHouseSettings, rolled: ClickHouseSettings) -> Iterator[tuple[ASGIApp, ASGIApp]]:
    with app_over(raw) as raw_app, app_over(rolled) as rolled_app:
        yield raw_app, rolled_app


def _projections(connection: ClickHouseSettings) -> list[str]:
    with ClickHouse(connection, client_name="tests") as clickhouse:
        found = clickhouse.select(
            "SELECT name FROM system.projections "
            "WHERE database = {database:String} AND table = {table:String}",
            {"database": connection.database, "table": connection.table},
        )
    return [str(name) for (name,) in found.rows]


def drop_rollup(connection: ClickHouseSettings, label: str) -> None:
    with ClickHouseSink(connection, client_name="tests") as sink:
        sink.execute(rollups.drop(sink.table, rollups.name_of(label)))


def many_events(count: int) -> list[Row]:
    draw = random.Random(3)
    rows = []
    for _ in range(count):
        name = draw.choice(
            ["search", "video_start", "video_heartbeat", "video_heartbeat", "video_error"]
        )
        rows.append(
            event(
                BEGIN + draw.randrange(40 * DAY),
                name,
                f"u{draw.randrange(300)}",
                app=draw.choice("ab"),
                device=draw.choice(["tv", "phone"]),
                watch_time=draw.randrange(30),
                query=draw.choice("xyz"),
                content_id=draw.choice("cde"),
                session_id=f"s{draw.randrange(2000)}",
            )
        )
    return rows


def reads(
    connection: ClickHouseSettings, template: str, params: dict[str, object]
) -> tuple[set[str], bool]:
    """Return the labels of the rollups that the report reads, and whether it reads events too."""
    chosen = load().templates[template]
    bound = bind(chosen, params, datetime.now(UTC))
    values = {**bound.values, "database": connection.database, "table": connection.table}
    with ClickHouse(connection, client_name="tests") as clickhouse:
        plan = clickhouse.select(
            f"EXPLAIN {chosen.statement(bound.effective, bound.range)}",
            values,
            settings={**chosen.settings(bound.range), "readonly": 1},
        )
    sources = [
        line.rpartition("(")[2].rstrip(")")
        for (line,) in plan.rows
        if "ReadFromMergeTree" in str(line)
    ]
    labels = {rollups.label_of(source) for source in sources}
    return {label for label in labels if label}, None in labels


@pytest.mark.parametrize("template", LABELS)
def test_whole_hours_are_read_from_the_rollup(rolled: ClickHouseSettings, template: str) -> None:
    insert(rolled, many_events(40_000))
    labels, more = LABELS[template]
    ends = {"from": at(BEGIN + 5 * DAY + 600), "to": at(BEGIN + 35 * DAY + 600)}
    for zone in ("UTC", "Asia/Kathmandu") if template == "active_users" else (None,):
        zoned = {} if zone is None else {"timezone": zone}
        for app_id in (None, "a"):
            found, has_events = reads(rolled, template, {**ends, **more, **zoned, "app_id": app_id})
            assert found, (template, zone, app_id)
            assert found <= labels, (template, zone, app_id)
            assert has_events
    assert reads(rolled, template, {**ends, **more, "exact": True})[0] == set()


@pytest.mark.parametrize(
    ("template", "more", "expected"),
    [
        ("events_over_time", {"bucket_seconds": HOUR}, TOTALS),
        ("events_over_time", {"bucket_seconds": 21_600}, TOTALS),
        ("events_over_time", {"bucket_seconds": DAY, "event_name": "search"}, {"totals"}),
        ("events_over_time", {"bucket_seconds": 900}, set()),
        ("quality_of_experience", {"by": "network_type"}, {"quality"}),
        ("quality_of_experience", {"by": "client_version"}, {"quality"}),
        ("quality_of_experience", {"by": "country"}, {"quality"}),
        ("quality_of_experience", {"by": "app_id"}, {"quality"}),
        ("quality_of_experience", {"by": "content_id"}, set()),
        ("playback_over_time", {"bucket_seconds": 0}, {"quality"}),
        ("playback_over_time", {"bucket_seconds": HOUR}, {"quality"}),
        ("playback_over_time", {"bucket_seconds": 900}, set()),
        ("quality_over_time", {"by": "country", "bucket_seconds": HOUR}, {"quality"}),
        ("quality_over_time", {"by": "content_id", "bucket_seconds": HOUR}, set()),
        ("searches_over_time", {"bucket_seconds": DAY}, {"search"}),
    ],
)
def test_parameters_choose_what_is_read(
    rolled: ClickHouseSettings, template: str, more: dict[str, object], expected: set[str]
) -> None:
    insert(rolled, many_events(40_000))
    ends = {"from": at(BEGIN + 600), "to": at(BEGIN + 35 * DAY)}
    found, _ = reads(rolled, template, {**ends, **more})
    assert found <= expected
    assert bool(found) == bool(expected)


_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "session_id": st.sampled_from(["s1", "s2", "", 5, None]),
        "watch_time": st.sampled_from([10, 0.0005, 86_400, 86_401, -1, "12", True, None, 1.5]),
        "buffer_duration_ms": st.sampled_from([1, 250, 2.5, 0, "7", None, 86_400_001]),
        "startup_ms": st.sampled_from([300, 900.4, 0, "3", None, 1200]),
        "fatal": st.sampled_from([True, False, "true", None]),
        "query": st.sampled_from(["cats", "Cats", "", "é", None, 3]),
        "results_count": st.sampled_from([0, 3, "0", 0.0, None]),
        "content_id": st.sampled_from(["c1", "c2", "", None, 7, False]),
        "stream_id": st.sampled_from(["l1", "", None]),
        "video_id": st.sampled_from(["v1", "v2"]),
        "device": st.sampled_from(["tv", "phone", "", None, 5, True]),
        "network_type": st.sampled_from(["wifi", "5g"]),
        "country": st.sampled_from(["DE", "é"]),
    },
)
_SECONDS = st.integers(0, 3 * DAY) | st.sampled_from(
    [n * HOUR + d for n in (0, 5, 24, 48, 71) for d in (0, 1, 3599, 1800)]
)
_EVENTS = st.lists(
    st.builds(
        lambda second, name, user, app, properties: event(
            BEGIN + 8 * DAY + second, name, user, app=app, **properties
        ),
        _SECONDS,
        st.sampled_from(
            [
                "video_heartbeat",
                "video_start",
                "video_buffering",
                "video_error",
                "search",
                "search_click",
                "page_view",
            ]
        ),
        st.sampled_from(["u1", "u2", "u3", "", "ü"]),
        st.sampled_from(["a", "b"]),
        _PROPERTIES,
    ),
    max_size=60,
)
_RANGES = st.tuples(_SECONDS, _SECONDS).map(sorted).filter(lambda ends: ends[0] < ends[1])


@settings(
    max_examples=12,
    deadline=None,
    # An example takes fourteen reports: shrinking a failure would exceed the test's time.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=_EVENTS,
    ends=_RANGES,
    app_id=st.sampled_from([None, "a"]),
    zone=st.sampled_from(ZONES),
    by=st.sampled_from(["device", "network_type", "country", "app_id", "content_id"]),
    is_exact=st.booleans(),
    event_name=st.sampled_from([None, "search"]),
    broken=st.lists(st.sampled_from(NASTY_WATCH_TIMES), max_size=4),
)
def test_rollups_change_no_number(
    raw: ClickHouseSettings,
    rolled: ClickHouseSettings,
    apps: tuple[ASGIApp, ASGIApp],
    rows: list[Row],
    ends: list[int],
    app_id: str | None,
    zone: str,
    by: str,
    is_exact: bool,
    event_name: str | None,
    broken: list[str],
) -> None:
    start, end = (BEGIN + 8 * DAY + second for second in ends)
    all_rows = rows + [event(start, "video_heartbeat", "u9", app="a", raw=text) for text in broken]
    for connection in (raw, rolled):
        with ClickHouseSink(connection, client_name="tests") as sink:
            sink.execute(f"TRUNCATE TABLE {sink.table}")
        if all_rows:
            insert(connection, all_rows)
    params: dict[str, object] = {
        "from": at(start), "to": at(end), "app_id": app_id, "exact": is_exact,
    }  # fmt: skip
    events = recount.select(all_rows, start, end, app_id)
    of_app = [row for row in all_rows if app_id in (None, row.app_id)]
    named = [each for each in events if event_name in (None, each.name)]
    days = {"timezone": zone, "bucket_seconds": DAY, "event_name": event_name}
    cases: list[tuple[str, dict[str, object], list[dict[str, Any]] | None]] = [
        ("overview_stats", {}, recount.overview_stats(events)),
        ("search_analytics", {}, recount.search_analytics(events)),
        ("top_content", {}, recount.top_content(events)),
        ("quality_of_experience", {"by": by}, recount.quality_of_experience(events, by)),
        (
            "active_users",
            {"timezone": zone},
            recount_behaviour.active_users(of_app, start, end, zone),
        ),
        ("events_over_time", days, recount_behaviour.events_by_day(named, start, end, zone)),
        (
            "events_over_time",
            {"bucket_seconds": HOUR},
            recount.events_over_time(events, start, end, HOUR),
        ),
        *(
            (name, dict[str, object](bucket_seconds=width), recounted(events, start, end, width))
            for name, recounted in (
                ("playback_over_time", recount.playback_over_time),
                ("searches_over_time", recount.searches_over_time),
            )
            for width in (0, HOUR)
        ),
        (
            "quality_over_time",
            {"by": by, "bucket_seconds": HOUR},
            recount.quality_over_time(events, start, end, HOUR, by),
        ),
        ("quality_breakdown", {}, recount.quality_breakdown(events, start, end)),
    ]
    for template, more, expected in cases:
        first, second = (rows_of(each, template, **params, **more) for each in apps)
        assert first == second, (template, more)
        # The recount reads no document that ClickHouse's parser rejects; the reports do.
        if not broken and expected is not None:
            assert second == approximately(expected), (template, more)


def test_weeks_of_content_equal_its_events(
    rolled: ClickHouseSettings, apps: tuple[ASGIApp, ASGIApp]
) -> None:
    """Range from and to the first moment of a week, and a second beside; one week is in two months."""
    weeks = [BEGIN + 3 * DAY + 7 * DAY * number for number in range(4)]
    rows = [
        event(
            monday + second,
            "video_heartbeat",
            f"u{number}",
            watch_time=1 + number,
            content_id=f"c{number}",
        )
        for number, monday in enumerate(weeks)
        for second in (-1, 0, 1)
    ] + many_events(40_000)
    raw = dataclasses.replace(rolled, table=rolled.table.removesuffix("_rolled"))
    # So few events have as many marks by hours, which then answer the weeks.
    drop_rollup(rolled, "content")
    insert(raw, rows)
    insert(rolled, rows)
    for start, end in ((weeks[0], weeks[3]), (weeks[1], weeks[3])):
        for shift, other in ((0, 0), (-1, 1), (1, -1), (0, 1), (1, 0)):
            params: dict[str, object] = {"from": at(start + shift), "to": at(end + other)}
            first, second = (rows_of(each, "top_content", **params) for each in apps)
            events = recount.select(rows, start + shift, end + other, None)
            assert second == first == approximately(recount.top_content(events)), params
            if start == weeks[0]:  # the other range may be too short
                assert "content_weeks" in reads(rolled, "top_content", params)[0]


def test_hours_answer_weeks_without_their_rollup(rolled: ClickHouseSettings) -> None:
    insert(rolled, many_events(40_000))
    drop_rollup(rolled, "content_weeks")
    ends: dict[str, object] = {"from": at(BEGIN + 600), "to": at(BEGIN + 35 * DAY)}
    assert reads(rolled, "top_content", ends) == ({"content"}, True)


def test_distinct_counts_are_exact_up_to_thousands(
    rolled: ClickHouseSettings,
) -> None:
    users = 4_000
    insert(
        rolled,
        [
            event(
                BEGIN + number % (2 * DAY),
                "video_heartbeat",
                f"user-{number % users}",
                session_id=f"{number % users}",
            )
            for number in range(3 * users)
        ],
    )
    with app_over(rolled) as app:
        (row,) = rows_of(
            app, "overview_stats", **{"from": at(BEGIN), "to": at(BEGIN + 3 * DAY + 5)}
        )
    assert (row["unique_users"], row["sessions"]) == (users, users)


def test_distinct_counts_stay_within_the_documented_error(rolled: ClickHouseSettings) -> None:
    users = 100_000
    with ClickHouseSink(rolled, client_name="tests") as sink:
        sink.execute(
            f"INSERT INTO {sink.table} SELECT toDateTime({BEGIN} + number % 86400, 'UTC'), 'a', 'e', "
            f"concat('u', toString(number)), '{{}}' FROM numbers({users})"
        )
    ends = {"from": at(BEGIN + 1), "to": at(BEGIN + DAY)}
    with app_over(rolled) as app:
        (row,) = rows_of(app, "overview_stats", **ends)
        (exact,) = rows_of(app, "overview_stats", **ends, exact=True)
    assert exact["unique_users"] == exact["total_events"] == row["total_events"]
    assert row["unique_users"] != exact["unique_users"]
    assert abs(row["unique_users"] / exact["unique_users"] - 1) < 0.01


def test_explain_lists_rollups_and_events(
    raw: ClickHouseSettings, rolled: ClickHouseSettings
) -> None:
    rows = many_events(20_000)
    for connection, expected in ((raw, 0), (rolled, 1)):
        insert(connection, rows)
        done = run(
            *("report", "search_analytics", "--explain", "-p", f"from={at(BEGIN + 600)}"),
            *("-p", f"to={at(BEGIN + 13 * DAY + 600)}"),
            settings={
                "CLICKHOUSE_HOST": connection.host,
                "CLICKHOUSE_PORT": str(connection.port),
                "CLICKHOUSE_DATABASE": connection.database,
                "CLICKHOUSE_TABLE": connection.table,
            },
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "search_analytics: 2 reads"
        assert sum("rollup search: " in line for line in lines) == expected
        assert sum("events: " in line for line in lines) == 2 - expected


REPORTED_RANGES = {"24 hours": DAY, "7 days": 7 * DAY, "90 days": 90 * DAY}
SHIFTS = {
    "UTC": "whole hours", "Asia/Tokyo": "whole hours", "Asia/Kolkata": "half hours",
    "Australia/Lord_Howe": "half hours", "Asia/Kathmandu": "quarter hours",
    "Pacific/Chatham": "quarter hours",
}  # fmt: skip


def read_projections(
    connection: ClickHouseSettings, template: str, params: dict[str, object]
) -> set[str]:
    """Run the report; return the labels of the projections that its query has read."""
    chosen = load().templates[template]
    bound = bind(chosen, params, datetime.now(UTC))
    values = {**bound.values, "database": connection.database, "table": connection.table}
    query_id = uuid.uuid4().hex
    with ClickHouse(connection, client_name="tests") as clickhouse:
        clickhouse.select(
            chosen.statement(bound.effective, bound.range),
            values,
            settings={**chosen.settings(bound.range), "readonly": 1},
            query_id=query_id,
        )
        clickhouse.execute("SYSTEM FLUSH LOGS query_log")
        (found,) = clickhouse.select(
            "SELECT projections FROM system.query_log "
            "WHERE query_id = {id:String} AND type = 'QueryFinish'",
            {"id": query_id},
        ).rows
    return {rollups.label_of(name.rpartition(".")[2]) or name for name in found[0]}


def test_every_range_and_zone_reads_its_rollup(tmp_path: Path) -> None:
    with EmbeddedClickHouse(tmp_path, system_logs=True) as engine:
        logged = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(logged, client_name="tests") as sink:
            sink.execute(schema.create_table(sink.table))
            sink.execute(f"ALTER TABLE {sink.table} REMOVE TTL")
            for rollup in rollups.ROLLUPS:
                sink.execute(rollups.add(sink.table, rollup))
            sink.execute(
                f"INSERT INTO {sink.table} SELECT toDateTime({BEGIN} + number * 78, 'UTC'), 'a', "
                "['search', 'video_start', 'video_heartbeat', 'page_view'][number % 4 + 1], "
                "concat('u', toString(number % 300)), "
                """'{"device": "tv", "query": "q", "content_id": "c", "session_id": "s"}' """
                "FROM numbers(100000)"
            )
            sink.execute(f"OPTIMIZE TABLE {sink.table} FINAL")
        for template, (labels, more) in LABELS.items():
            zones = list(SHIFTS) if template in ("active_users", "events_over_time") else [None]
            for name, seconds in REPORTED_RANGES.items():
                for zone in zones:
                    end = BEGIN + 90 * DAY + 1_234
                    params: dict[str, object] = {
                        **more, "from": at(end - seconds), "to": at(end),
                    }  # fmt: skip
                    if zone:
                        params["timezone"] = zone
                    found = read_projections(logged, template, params)
                    assert found, (template, name, zone)
                    assert found <= labels, (template, name, zone)


def test_preferred_rollup_missing_leaves_the_others(rolled: ClickHouseSettings) -> None:
    insert(rolled, many_events(40_000))
    drop_rollup(rolled, "users")
    ends: dict[str, object] = {"from": at(BEGIN + 600), "to": at(BEGIN + 35 * DAY)}
    assert reads(rolled, "active_users", ends) == ({"totals"}, True)
    # No other rollup has the sessions.
    assert reads(rolled, "overview_stats", ends) == (set(), True)


@pytest.mark.parametrize("template", SINGLE_USERS)
def test_large_range_is_sampled_by_user(raw: ClickHouseSettings, template: str) -> None:
    rows = many_events(5_000)
    insert(raw, rows)
    ends = {"from": at(BEGIN), "to": at(BEGIN + 40 * DAY)}
    more = SINGLE_USERS[template]
    with app_over(raw) as app:
        whole = rows_of(app, template, **ends, **more)
        forced = rows_of(app, template, **ends, **more, sample=1, max_events=10)
        sampled = rows_of(app, template, **ends, **more, max_events=1_000)
        half = rows_of(app, template, **ends, **more, sample=0.5)
    assert {row["sample"] for row in whole} == {1.0}
    assert forced == whole
    assert {row["sample"] for row in half} == {0.5}
    (share,) = {row["sample"] for row in sampled}
    assert 0.1 <= share <= 0.8
    count = {"funnel": "users", "retention": "cohort_users"}.get(template, "events")
    totals = [sum(row[count] for row in each) for each in (whole, sampled)]
    assert totals[1] == pytest.approx(totals[0], rel=0.5)
    assert totals[1] != totals[0]


def test_report_that_would_time_out_is_refused_early(raw: ClickHouseSettings) -> None:
    """Each block sleeps half a second: 40 blocks, on any number of threads up to four."""
    for number in range(40):
        insert(raw, [event(BEGIN + second, "e", f"u{number}") for second in range(500)])
    limits = ComplexityLimits(
        seconds=4, result_rows=10, result_bytes=1 << 20, memory_bytes=256 << 20
    )
    started = time.monotonic()
    with (
        ClickHouse(raw, client_name="tests") as clickhouse,
        pytest.raises(StatementRejected) as refused,
    ):
        clickhouse.select(
            f"SELECT sum(sleepEachRow(0.001)) FROM {clickhouse.table}",
            settings={**limits.settings("tests"), "max_threads": 4},
        )
    assert refused.value.code == 160, refused.value
    assert time.monotonic() - started < limits.seconds
    answer = from_report(refused.value)
    assert answer.status == 504
    assert "ask for a shorter range" in str(answer)
