"""Ends of a process between any two statements that change a ClickHouse server.

A server is left by `kill -9` as it was before a statement or as it is after it: both are ends before
some statement, on whatever connection of the process it runs.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink

MAX_STATEMENTS = 100


class Killed(BaseException):
    """Simulated `kill -9`: no handler of errors sees it."""


def kills(life: Callable[[], None]) -> Iterator[int]:
    """Run `life` again and again, each time ended one statement later; yield after each end.

    The last one, which runs to its end, is not yielded.
    """
    for statements in range(MAX_STATEMENTS):
        left = itertools.count(statements, -1)

        def kill_at_last(left: Iterator[int] = left) -> None:
            if not next(left):
                raise Killed

        with before_statements(kill_at_last):
            try:
                life()
            except Killed:
                pass
            else:
                return
        yield statements
    raise AssertionError(f"more than {MAX_STATEMENTS} statements")


@contextlib.contextmanager
def before_statements(call: Callable[[], None]) -> Iterator[None]:
    """Call it before each statement of this process that changes a server; not for its own ones."""
    is_calling = False

    def preceded(run: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **named: object) -> object:
            nonlocal is_calling
            if not is_calling:
                is_calling = True
                try:
                    call()
                finally:
                    is_calling = False
            return run(*arguments, **named)

        return called

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClickHouse, "execute", preceded(ClickHouse.execute))
        patch.setattr(ClickHouseSink, "insert_into", preceded(ClickHouseSink.insert_into))
        yield
