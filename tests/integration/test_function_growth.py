"""The program that measures how functions grow, over functions whose growth is known."""

from collections.abc import Iterator

import pytest

from octane_analytics.api.raw_sql import functions
from tests.tools import function_growth
from tests.tools.function_growth import Call, Server, problem, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


def test_statement_beyond_its_memory_is_reported(server: Server) -> None:
    found = problem(server, Call("printf", ("concat('%', toString(2000 * {n}), 'd')", "1"), True))
    assert found is not None
    assert "printf" not in functions.load().ordinary


def test_linear_function_is_not_reported(server: Server) -> None:
    assert problem(server, Call("length", ("text",))) is None


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
