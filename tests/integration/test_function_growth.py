"""The program that measures how functions grow, over functions whose growth is known."""

from collections.abc import Callable, Iterator

import pytest

from octane_analytics.errors import OctaneError
from tests.tools import function_growth
from tests.tools.function_growth import Call, Outcome, Server, problem, running_server
from tests.tools.function_limits import BYTES


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


CALL = Call("length", ("text",))


def outcomes(*given: Outcome) -> Callable[[str], Outcome]:
    left = iter(given)
    return lambda _sql: next(left)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([Outcome(0.1, 0), Outcome(0.9, 0), Outcome(1.0, int(BYTES * 1.2))], "64,000: 614 MiB"),
        ([Outcome(0.1, 0), Outcome(2.5, 0)], "8,000: ended after 2.5 s"),
        ([Outcome(0.04, 0), Outcome(0.9, 0)], "8,000: 0.90 s, 22 times as long"),
        ([Outcome(0.001, 0), Outcome(0.02, 0), Outcome(0.1, 0), Outcome(0.9, 0)], None),
        ([Outcome(0.1, 0), Outcome(1.1, 0, OctaneError("stopped by its limit"))], None),
    ],
)
def test_cost_beyond_limits_is_reported(given: list[Outcome], found: str | None) -> None:
    assert problem(outcomes(*given), CALL) == found


def test_growth_of_server_is_measured(server: Server) -> None:
    outcome = server.run("SELECT ignore(groupArray(number)) FROM numbers(5000000)")
    assert outcome.is_answered
    assert outcome.grown_bytes > 30 << 20


def test_linear_function_is_not_reported(server: Server) -> None:
    assert problem(server.run, CALL) is None


def test_known_arguments_are_accepted(server: Server) -> None:
    spelled = server.names()
    refused = [
        (name, arguments)
        for name, known in function_growth.KNOWN.items()
        for arguments in known
        if not server.run(Call(spelled[name], arguments).sql(4)).is_answered
        and not server.run(Call(spelled[name], arguments, True).sql(4)).is_answered
    ]
    assert not refused
