import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

import pytest

from octane_analytics.api.results.json_values import encode, plain, plain_columns, unique
from octane_analytics.clickhouse.results import ResultColumn

BERLIN = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (1.5, 1.5),
        (math.nan, None),
        (math.inf, None),
        ("é\u0000\U0001f600", "é\u0000\U0001f600"),
        (b"\xffA", "\ufffdA"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E+3"), "1000"),
        (datetime(2026, 1, 1, 2, tzinfo=BERLIN), "2026-01-01T00:00:00Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC), "2026-01-01T00:00:00.250000Z"),
        (date(2026, 1, 1), "2026-01-01"),
        (timedelta(seconds=1.5), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (IPv4Address("1.2.3.4"), "1.2.3.4"),
        (IPv6Address("::1"), "::1"),
        ((1, [b"\xff", None]), [1, ["\ufffd", None]]),
        ({1: datetime(2026, 1, 1, tzinfo=UTC)}, {"1": "2026-01-01T00:00:00Z"}),
        ({date(2026, 1, 1): 1}, {"2026-01-01": 1}),
        ({(1, "a"): 1}, {'[1,"a"]': 1}),
        ({True: 1}, {"true": 1}),
    ],
)
def test_value_is_converted_to_json(value: object, expected: object) -> None:
    assert json.loads(encode(plain(value))) == expected


def test_wide_integers_become_strings_when_nested() -> None:
    columns = (
        ResultColumn("a", "UInt256"),
        ResultColumn("b", "Array(Nullable(Int128))"),
        ResultColumn("c", "UInt64"),
    )
    assert [*plain_columns(columns, [(1, [2, None], 3)])] == [["1"], [["2", None]], (3,)]


def test_local_time_without_a_zone_becomes_utc() -> None:
    local = datetime.fromtimestamp(1_761_440_400)
    assert plain(local) == "2025-10-26T01:00:00Z"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", "a", "a"], ["a", "a_2", "a_3"]),
        (["a", "a", "a_2"], ["a", "a_3", "a_2"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_3"]),
    ],
)
def test_repeated_name_gets_an_unused_suffix(names: list[str], expected: list[str]) -> None:
    assert unique(names) == expected
