"""The program that measures how functions grow, over functions whose growth is known."""

from collections.abc import Iterator

import pytest

from tests.tools import function_growth
from tests.tools.function_growth import Call, Server, problem, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


def test_growth_of_server_is_measured(server: Server) -> None:
    outcome = server.run("SELECT ignore(groupArray(number)) FROM numbers(5000000)")
    assert outcome.is_answered
    assert outcome.grown_bytes > 30 << 20


def test_linear_function_is_not_reported(server: Server) -> None:
    assert problem(server.run, Call("length", ("text",))) is None


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
