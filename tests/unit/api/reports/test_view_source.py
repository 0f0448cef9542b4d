import re

import pytest

from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.view_source import PLAYBACK_EVENTS, SOURCES, expand


def test_sources_are_expanded_on_one_line() -> None:
    sql = "SELECT 1\nFROM {views:Source} AS v\nWHERE {is_playback:Source}"
    expanded = expand(sql)
    assert expanded.count("\n") == sql.count("\n")
    assert all(repr(name) in expanded.split("\n")[2] for name in PLAYBACK_EVENTS)


@pytest.mark.parametrize("text", ["{view:Source}", "{by:Source}"])
def test_unknown_source_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match="is unknown; sources: is_playback, heartbeat_ms, playback"
    ):
        expand(f"SELECT {text}")


def test_sources_are_balanced_and_complete() -> None:
    for sql in SOURCES.values():
        assert sql.count("(") == sql.count(")")
        assert "Source}" not in sql
        assert "  " not in sql


def test_playback_parses_an_event_once() -> None:
    # Each function of JSON parses the document by itself: one is of the events, one of the starts.
    assert len(re.findall(r"JSONExtract\w*\(", SOURCES["playback"])) == 2


@pytest.mark.parametrize(
    "name", ["views", "qoe_scorecard", "survival", "errors", "audience_retention"]
)
def test_reports_about_views_are_bounded(name: str) -> None:
    template = load().templates[name]
    assert {"sample", "max_events"} <= template.parameters.keys()
    reads = len(re.findall(r"FROM {database:Identifier}", template.sql))
    # Every read but the count of matching events is of the sampled users.
    assert template.sql.count("cityHash64(user_id) % 10000 < sampled") == reads - 1
