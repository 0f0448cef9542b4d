"""Parser of RFC 3339 times, compared with the standard library."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.runtime import rfc3339

_ZONES = st.integers(-23 * 60, 23 * 60).map(lambda n: timezone(timedelta(minutes=n)))


@given(st.datetimes(timezones=_ZONES))
def test_time_with_offset_is_parsed_exactly(when: datetime) -> None:
    assert rfc3339.parse(when.isoformat()) == when
    assert rfc3339.parse_as_utc(when.isoformat()) == when


@given(st.datetimes())
def test_time_without_offset_is_utc(when: datetime) -> None:
    assert rfc3339.parse_as_utc(when.isoformat()) == when.replace(tzinfo=UTC)


@given(st.dates())
def test_date_is_its_midnight_in_utc(day: date) -> None:
    expected = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert rfc3339.parse_as_utc(day.isoformat()) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-W05-1", "20260202T120000Z", "2026-02-02T12:00Z", "12:00:00Z"),
        *("2026-02-30T12:00:00Z", "2026-02-02T24:00:00Z", "2026-02-02T12:00:00,5Z"),
        "2026-02-02T12:00:00+5",
    ],
)
def test_text_that_is_not_rfc3339_is_refused(text: str) -> None:
    for parse in (rfc3339.parse, rfc3339.parse_as_utc):
        with pytest.raises(ValueError, match="not an RFC 3339 time"):
            parse(text)
