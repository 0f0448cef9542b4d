import itertools
import json
import math
import random
import threading
import time
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


def test_pieces_of_long_bytes_decode_like_the_whole() -> None:
    random_bytes = random.Random(3).randbytes(700_000)
    for value in (random_bytes, "é€\U0001f600".encode() * 90_000, b"a" + b"\xf0\x9f" * 300_000):
        assert plain(value) == value.decode(errors="replace")


def test_decoding_of_long_bytes_lets_other_threads_run() -> None:
    value = random.Random(3).randbytes(12_000_000)
    thread = threading.Thread(target=plain, args=[value])
    times = [time.monotonic()]
    thread.start()
    while thread.is_alive():
        times.append(time.monotonic())
        time.sleep(0.001)
    times.append(time.monotonic())
    longest = max(after - before for before, after in itertools.pairwise(times))
    assert longest < (times[-1] - times[0]) / 3
