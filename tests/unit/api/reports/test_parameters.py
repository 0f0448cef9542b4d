from datetime import UTC, datetime, timedelta, timezone

import pytest

from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.parameters import bind
from octane_analytics.api.timestamps import rfc3339
from octane_analytics.errors import QueryError

NOW = datetime(2026, 2, 2, 12, 0, 0, 500_000, tzinfo=UTC)
TEMPLATES = load().templates
TOP = TEMPLATES["top_content"]


def test_no_parameters_select_last_day_of_all_apps() -> None:
    bound = bind(TOP, {}, NOW)
    assert bound.effective == {
        "app_id": None,
        "from": "2026-02-01T12:00:01Z",
        "to": "2026-02-02T12:00:01Z",
        "exact": False,
        "limit": 20,
        "offset": 0,
    }
    assert bound.values == {
        "app_id": "",
        "from": "2026-02-01 12:00:01",
        "to": "2026-02-02 12:00:01",
        "exact": "false",
        "limit": 21,
        "offset": 0,
    }


def test_null_equals_an_absent_parameter() -> None:
    nothing = dict.fromkeys(TOP.parameters)
    assert bind(TOP, nothing, NOW) == bind(TOP, {}, NOW)


def test_missing_start_is_a_day_before_end() -> None:
    bound = bind(TOP, {"to": "2026-01-10T00:00:00Z"}, NOW)
    assert bound.effective["from"] == "2026-01-09T00:00:00Z"


@pytest.mark.parametrize(
    ("given", "effective"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01t00:00:00z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2025-12-31T23:59:59.000001Z", "2026-01-01T00:00:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_time_is_shown_in_utc_rounded_up(given: str, effective: str) -> None:
    assert bind(TOP, {"from": given}, NOW).effective["from"] == effective


@pytest.mark.parametrize(
    "given",
    [
        "",
        "yesterday",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "20260101T000000Z",
        "2026-W01-1T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00Z+01:00",
        1_770_000_000_000,
        "1770000000000",
        float("nan"),
        "-24 h",
        "+1h",
        "-1y",
        "-999999999w",
        True,
        ["2026-01-01T00:00:00Z"],
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "2106-02-07T06:28:16Z",
    ],
)
@pytest.mark.parametrize("name", ["from", "to"])
def test_invalid_time_is_rejected_by_name(name: str, given: object) -> None:
    with pytest.raises(QueryError) as raised:
        bind(TOP, {name: given}, NOW)
    assert (raised.value.status, raised.value.code) == (422, "bad_parameter")
    assert raised.value.details["parameter"] in ("from", "to")


@pytest.mark.parametrize("start", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"])
def test_range_that_ends_before_start_is_rejected(start: str) -> None:
    with pytest.raises(QueryError, match="must be before `to`"):
        bind(TOP, {"from": start, "to": "2026-01-01T00:00:00Z"}, NOW)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("limit", "10", "must be a whole number"),
        ("limit", True, "must be a whole number"),
        ("limit", 1.5, "must be a whole number"),
        ("limit", 0, "must be from 1 to 10000"),
        ("limit", 10_001, "must be from 1 to 10000"),
        ("app_id", 5, "must be a string"),
        ("app_id", "", "must not be empty"),
    ],
)
def test_invalid_value_is_rejected_by_name(name: str, value: object, message: str) -> None:
    with pytest.raises(QueryError) as raised:
        bind(TOP, {name: value}, NOW)
    assert str(raised.value) == f"{name} {message}"
    assert raised.value.details == {"parameter": name}


def test_value_must_be_one_of_the_allowed() -> None:
    with pytest.raises(QueryError, match="must be one of 60, 300"):
        bind(TEMPLATES["events_over_time"], {"bucket_seconds": 61}, NOW)


def test_unknown_parameter_is_rejected_with_known_names() -> None:
    with pytest.raises(QueryError) as raised:
        bind(TOP, {"form": "2026-01-01T00:00:00Z"}, NOW)
    assert raised.value.code == "unknown_parameter"
    assert raised.value.details == {"parameter": "form", "known": list(TOP.parameters)}


def test_rfc3339_omits_a_zero_fraction() -> None:
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 1, 1, 2, tzinfo=east)) == "2026-01-01T00:00:00Z"
    assert rfc3339(datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)) == "2026-01-01T00:00:00.000005Z"
