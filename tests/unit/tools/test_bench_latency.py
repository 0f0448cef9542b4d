"""The benchmark's steady rate and its report of latency."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from octane_analytics.events.decode import decode_all
from tests.support.table_cells import headed
from tests.tools.bench.latency import latency_table, remarks
from tests.tools.bench.latency_run import Latency
from tests.tools.bench.load_generator import Sent, event, rest, steadily


def sent_with(rate: int, seconds: float, takes: Callable[[int], float]) -> tuple[Sent, list[int]]:
    """Return the result of a producer with the given delays, and the numbers of its events."""
    now = 100.0
    numbers: list[int] = []

    def clock() -> float:
        return now

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def send(first: int, end: int, at: float) -> None:
        nonlocal now
        assert at == now
        numbers.extend(range(first, end))
        now += takes(end - first)

    return steadily(rate, seconds, send, clock, sleep), numbers


def test_producer_sends_events_once_at_its_rate() -> None:
    sent, numbers = sent_with(50_000, 2.0, lambda count: count * 2e-6)
    assert numbers == list(range(100_000))
    assert sent.began == 100.0
    assert sent.per_second == pytest.approx(50_000, rel=0.01)
    assert sent.is_held(50_000)


def test_slow_producer_sends_all_and_reports_it() -> None:
    sent, numbers = sent_with(50_000, 2.0, lambda count: count * 40e-6)
    assert numbers == list(range(100_000))
    assert sent.seconds == pytest.approx(4.0, rel=0.3)
    assert sent.late_seconds > 1.0
    assert not sent.is_held(50_000)


def test_pause_with_catch_up_is_not_steady() -> None:
    pauses = iter([0.0, 0.8])
    sent, _ = sent_with(1_000, 2.0, lambda count: next(pauses, 0.0))
    assert sent.per_second >= 990
    assert sent.late_seconds == pytest.approx(0.8, abs=0.02)
    assert not sent.is_held(1_000)


def test_steady_events_are_valid_and_carry_their_moment() -> None:
    now = 1_795_844_216.25
    lines = [event(number, rest(now)) for number in (0, 9_999, 10_000)]
    decoded = decode_all(lines)
    assert not decoded.invalid
    assert json.loads(lines[1])["properties"]["produced_at"] == now


LATENCY = Latency(
    contender="exactly-once",
    rate=50_000,
    sent=49_990.0,
    late_seconds=0.01,
    is_rate_held=True,
    p50=0.5,
    p95=0.9,
    p99=1.0,
    max=1.2,
    p50_first=0.5,
    p50_last=0.5,
    parts=80,
)


def test_latency_is_told_by_rate_and_contender() -> None:
    slower = replace(LATENCY, p99=1.5)
    found = [LATENCY, slower, replace(LATENCY, rate=1_000), replace(slower, p99=1.1)]
    assert [(line["events/s"], line["p99"]) for line in headed(latency_table(found))] == [
        ("1,000", "1.00"),
        ("50,000", "1.10 (1.00 to 1.50)"),
    ]
    assert remarks(found) == []


def test_rate_that_was_not_held_is_told() -> None:
    unsteady = replace(LATENCY, is_rate_held=False, sent=40_000.0, late_seconds=2.5)
    (told,) = remarks([LATENCY, unsteady])
    assert "exactly-once at 50,000/s: the rate was not held in 1 of 2 runs" in told
    assert "40,000/s" in told
    assert "2.50 s" in told


def test_growing_latency_gets_a_remark() -> None:
    (told,) = remarks([replace(LATENCY, p50_last=6.0)])
    assert "grew by up to 5.5 s" in told
