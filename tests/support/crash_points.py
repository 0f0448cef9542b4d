"""Ends of a process between any two statements that change a ClickHouse server.

A server is left by `kill -9` as it was before a statement or as it is after it: both are ends before
some statement, on whatever connection of the process it runs.
"""

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
        with pytest.MonkeyPatch.context() as patch:
            left = statements

            def counted(call: Callable[..., object]) -> Callable[..., None]:
                def run(*arguments: object, **named: object) -> None:
                    nonlocal left
                    if not left:
                        raise Killed
                    left -= 1
                    call(*arguments, **named)

                return run

            patch.setattr(ClickHouse, "execute", counted(ClickHouse.execute))
            patch.setattr(ClickHouseSink, "insert_into", counted(ClickHouseSink.insert_into))
            try:
                life()
            except Killed:
                pass
            else:
                return
        yield statements
    raise AssertionError(f"more than {MAX_STATEMENTS} statements")
