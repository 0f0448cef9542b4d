"""Verdicts on functions from the times and the memory that they took."""

import pytest

from octane_analytics.errors import StatementRejected
from tests.tools.function_growth import SIZES, Call, Outcome, problem

ERROR = StatementRejected(43, "ILLEGAL_TYPE_OF_ARGUMENT", "no")


def verdict(*outcomes: Outcome) -> str | None:
    """Return the verdict on a call whose runs end so, one after the other."""
    left = iter(outcomes)
    return problem(lambda _sql: next(left), Call("length", ("text",)))


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome(0.0005 * size / SIZES[0], 0) for size in SIZES], None),
        ([Outcome(0.04, 0), Outcome(0.04 * 20, 0)], "times as long"),
        ([Outcome(100.0, 0)], "ended after"),
        ([Outcome(0.1, 8 << 30)], "MiB"),
        ([Outcome(0.1, 0, ERROR)], None),
    ],
)
def test_growth_time_and_memory_are_judged(outcomes: list[Outcome], expected: str | None) -> None:
    found = verdict(*outcomes)
    assert (found is None) is (expected is None)
    assert expected is None or expected in str(found)
