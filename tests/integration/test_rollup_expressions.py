"""Expressions of rollups over any properties, compared with the same meaning in Python."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, PLAYBACK, QUALITY
from octane_analytics.settings.connections import ClickHouseSettings

BEYOND_DOUBLE = "1e999"
EVENTS = (*QUALITY, "search", "login")
MEASURES = {
    "watch_ms": ("video_heartbeat", "watch_time", 1000, 86_400),
    "content_watch_ms": ("video_heartbeat", "watch_time", 1000, 86_400),
    "quality_watch_ms": ("video_heartbeat", "watch_time", 1000, 86_400),
    "content_buffer_ms": ("video_buffering", "buffer_duration_ms", 1, 86_400_000),
    "quality_buffer_ms": ("video_buffering", "buffer_duration_ms", 1, 86_400_000),
    "quality_startup_ms": ("video_start", "startup_ms", 1, 86_400_000),
}
_NUMBERS = (
    st.sampled_from([0, -0.0, 1, 0.0005, 0.0015, 2.5, 86_400, 86_400.00000000001, 86_401, -1, 1e18])
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(0, 90_000)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_OTHERS = st.sampled_from([None, True, False, "", "12", "12.5", "1e5", "true", [1], {"a": 1}])
_TEXTS = st.sampled_from([None, "", "a", "é", '"', "1", "😀", "back\\slash"])
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("watch_time", "buffer_duration_ms", "startup_ms"), _NUMBERS | _OTHERS),
        **dict.fromkeys(("session_id", "content_id", "stream_id", "video_id", "device"), _TEXTS),
        "fatal": _OTHERS | _NUMBERS,
        "beyond": st.just(BEYOND_DOUBLE),
    },
)


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document).replace(f'"{BEYOND_DOUBLE}"', BEYOND_DOUBLE)


def measured(event_name: str, document: dict[str, Any], name: str) -> int:
    event, key, scale, high = MEASURES[name]
    value: Any = document.get(key)
    if event_name != event or type(value) not in (int, float) or not 0 < float(value) <= high:
        return 0
    return round(float(value) * scale)


def expected(event_name: str, document: dict[str, Any]) -> dict[str, object]:
    content = next(
        (document[key] for key in ("content_id", "stream_id") if document.get(key)), None
    )
    return {
        **{name: measured(event_name, document, name) for name in MEASURES},
        "session": document.get("session_id") or None,
        "content": (content or document.get("video_id") or "") if event_name in PLAYBACK else "",
        "quality_device": (document.get("device") or "") if event_name in QUALITY else "",
        "quality_is_fatal": event_name == "video_error" and document.get("fatal") is True,
    }


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(documents=st.lists(_DOCUMENTS, min_size=1, max_size=40))
def test_expressions_have_their_meaning(
    clickhouse_settings: ClickHouseSettings, documents: list[dict[str, Any]]
) -> None:
    events = [(name, document) for document in documents for name in EVENTS]
    names = list(expected("login", {}))
    shown = ", ".join(f"({EXPRESSIONS[name]}) AS {name}" for name in names)
    with ClickHouse(clickhouse_settings, client_name="tests") as clickhouse:
        found = clickhouse.select(
            f"SELECT {shown} FROM (SELECT pair.1 AS event_name, pair.2 AS properties FROM (SELECT "
            "arrayJoin(arrayZip({events:Array(String)}, {documents:Array(String)})) AS pair))",
            {
                "events": [name for name, _ in events],
                "documents": [text_of(document) for _, document in events],
            },
        ).rows
    for (name, document), row in zip(events, found, strict=True):
        assert dict(zip(names, row, strict=True)) == expected(name, document), (name, document)
