"""Verdicts on functions from the times and the memory that they took."""

import pytest

from octane_analytics.errors import StatementRejected
from tests.tools.function_growth import SIZES, Call, Outcome, problem

ERROR = StatementRejected(43, "ILLEGAL_TYPE_OF_ARGUMENT", "no")


class Measured:
    """Server whose statements take the given times, one after the other."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = iter(outcomes)

    def run(self, sql: str) -> Outcome:
        return next(self._outcomes)


def verdict(*outcomes: Outcome) -> str | None:
    return problem(Measured(*outcomes).run, Call("length", ("text",)))


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
