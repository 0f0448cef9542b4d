"""The program that measures how functions grow, over functions whose growth is known."""

from collections.abc import Iterator

import pytest

from tests.tools.function_growth import (
    Server,
    accepted,
    per_element,
    problem,
    running_server,
)
from tests.tools.growth_arguments import KNOWN, calls_in_examples
from tests.tools.growth_calls import Call


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


def test_growth_of_server_is_measured(server: Server) -> None:
    outcome = server.run("SELECT ignore(arrayWithConstant(8000000, materialize(toUInt64(1))))")
    assert outcome.grown_bytes > 30 << 20


def test_linear_function_is_not_reported(server: Server) -> None:
    assert problem(server.run, Call("length", ("text",))) is None


def test_example_gives_sized_arguments(server: Server) -> None:
    rows = server.select("SELECT hex(examples) FROM system.functions WHERE name = 'lower'")
    shown = calls_in_examples("lower", bytes.fromhex(rows[0][0]).decode())
    calls = accepted(server, "lower", [lists[0] for lists in shown])
    assert calls[0].has_size
    assert per_element(server, calls[:1])


def test_known_arguments_are_accepted(server: Server) -> None:
    names = {
        name.lower(): name
        for (name,) in server.select("SELECT name FROM system.functions WHERE alias_to = ''")
    }
    refused = [
        (name, arguments)
        for name, known in KNOWN.items()
        for arguments in known
        if server.accepts(Call(names[name], arguments).sql(4)).code
        and server.accepts(Call(names[name], arguments, True).sql(4)).code
    ]
    assert not refused
