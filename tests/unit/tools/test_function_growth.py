"""Verdicts on functions from the times and the memory that they took; arguments from examples."""

import pytest

from tests.support.statements import Answer
from tests.tools.function_growth import SIZES, Outcome, problem
from tests.tools.growth_arguments import calls_in_examples, substitutes
from tests.tools.growth_calls import Call

ANSWERED = Answer(0, ["0"])
REFUSED = Answer(43, ["no"])
SLOW = Outcome(0.1, 0, ANSWERED)


def verdict(*outcomes: Outcome) -> str | None:
    """Return the verdict on a call whose runs end so, one after the other."""
    left = iter(outcomes)
    return problem(lambda _sql: next(left), Call("length", ("text",)))


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome(0.01, 0, ANSWERED)], None),
        ([SLOW, *(Outcome(0.0005 * size / SIZES[0], 0, ANSWERED) for size in SIZES)], None),
        ([SLOW, Outcome(0.04, 0, ANSWERED), Outcome(0.04 * 20, 0, ANSWERED)], "times as long"),
        ([SLOW, Outcome(0.001, 0, ANSWERED), Outcome(1.0, 0, REFUSED)], "times as long"),
        ([SLOW, Outcome(100.0, 0, ANSWERED)], "ended after"),
        ([SLOW, Outcome(0.1, 8 << 30, ANSWERED)], "MiB"),
        ([SLOW, Outcome(0.1, 0, REFUSED)], None),
    ],
)
def test_growth_time_and_memory_are_judged(outcomes: list[Outcome], expected: str | None) -> None:
    found = verdict(*outcomes)
    assert (found is None) is (expected is None)
    assert expected is None or expected in str(found)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT f(1, 2)", [[("1", "2")]]),
        ("SELECT F ('a,)', [1, (2)]), g(f())", [[("'a,)'", "[1, (2)]")], [()]]),
        (r"""SELECT f('it\'s, )', "x,")""", [[(r"'it\'s, )'", '"x,"')]]),
        ("SELECT f(0.5, 3)(x -> x, y)", [[("0.5", "3"), ("x -> x", "y")]]),
        ("SELECT of(1), a.f(2), f(3", []),
    ],
)
def test_calls_are_found_in_examples(query: str, expected: list[list[tuple[str, ...]]]) -> None:
    assert calls_in_examples("f", f"text f(9)\n```sql title=Query\n{query}\n```\nf(8)") == expected


def test_each_argument_but_lambdas_is_substituted() -> None:
    found = set(substitutes(("x -> x", "1", "2")))
    assert ("x -> x", "text", "2") in found
    assert ("x -> x", "1", "text") in found
    assert all(arguments[0] == "x -> x" for arguments in found)
