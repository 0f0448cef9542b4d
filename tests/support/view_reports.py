"""Events of views and playback for the tests of reports, and their answers."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from octane_analytics.api.reports.library import load
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.events.decode import decode
from octane_analytics.events.event import Row
from octane_analytics.sandbox.generator import generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support import recount_views
from tests.support.api_fixtures import at, event, insert
from tests.support.asgi_calls import report

END = int(datetime(2026, 10, 27, 12, tzinfo=UTC).timestamp())
START = END - 600
DAY = 86_400
_SERIAL = itertools.count(2_000_000)

_ROUNDED_TO_3 = {
    "average_view_duration", "average_bitrate_kbps", "startup_ms_mean", "startup_score",
    "smoothness_score",
}  # fmt: skip


def close_to(expected: list[dict[str, Any]]) -> list[Any]:
    """Approximate floats: rates that are rounded from exactly half may differ in the last digit."""
    return [
        {
            name: pytest.approx(value, rel=1e-9, abs=1.1e-3 if name in _ROUNDED_TO_3 else 1.1e-6)
            if isinstance(value, float)
            else value
            for name, value in row.items()
        }
        for row in expected
    ]


def answer_of(app: ASGIApp, template: str, start: int, end: int, **params: Any) -> list[Any]:
    # Another value for each call, so that no answer comes from the cache.
    params = {"limit": 2000, **params, "max_events": next(_SERIAL)}
    if params["limit"] is None:
        del params["limit"]
    answer = report(app, template, **{"from": at(start), "to": at(end)}, **params)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [each["name"] for each in body["columns"]] == list(load().templates[template].columns)
    rows: list[dict[str, Any]] = body["rows"]
    return rows


def insert_generated(settings_: ClickHouseSettings) -> list[Row]:
    until = datetime.fromtimestamp(END, UTC)
    rows = [decode(line) for line in generate(20_000, seed=3, until=until)]
    insert(settings_, rows)
    return rows


RANGES = [
    (END - 6 * 3600, END, None),
    (END - 6 * 3600, END, "octane-live"),
    (END - 3 * 3600, END - 2 * 3600 + 7, "openstream"),
]


# --- events of any order and shape ---

_NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 15, 0.5, 100, 250.25, 86_400, 10**9, True, None, "15"]),
    st.integers(0, 5000),
)
_IDS = st.sampled_from(["", "a", "b", 5, None])


@st.composite
def playback_events(draw: st.DrawFn) -> Row:
    names = [*sorted(recount_views.PLAYBACK), "session_start", "search_click", "video_seek"]
    properties: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "view_id": st.sampled_from(["", "v1", "v2"]),
                "session_id": _IDS,
                "content_id": _IDS,
                "stream_id": _IDS,
                "device": st.sampled_from(["tv", "web"]),
                "watch_time": _NUMBERS,
                "position": _NUMBERS,
                "duration": _NUMBERS,
                "bitrate_kbps": _NUMBERS,
                "startup_ms": _NUMBERS,
                "buffer_duration_ms": _NUMBERS,
                "code": st.sampled_from(["X", "Y", 404, None]),
                "fatal": st.sampled_from([True, False, "true"]),
                "completed": st.sampled_from([True, False, "true"]),
                "player_version": st.sampled_from(["1", "2"]),
            },
        )
    )
    # Few seconds, about the ends of the range too: many events share one.
    second = draw(
        st.one_of(
            st.integers(START - 3, START + 20),
            st.integers(END - 20, END + 2),
            st.sampled_from([START - DAY - 1, START - DAY, START - 3600]),
        )
    )
    user = draw(st.sampled_from(["u1", "u2", "u3"]))
    app = draw(st.sampled_from(["a", "b"]))
    return event(second, draw(st.sampled_from(names)), user, app=app, **properties)


def replace_rows(settings_: ClickHouseSettings, rows: Sequence[Row]) -> None:
    with ClickHouseSink(settings_, client_name="tests") as sink:
        sink.execute(f"TRUNCATE TABLE {sink.table}")
    insert(settings_, rows)


any_events = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
