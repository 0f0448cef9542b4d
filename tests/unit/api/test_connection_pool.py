import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from octane_analytics.api.connection_pool import ConnectionPool, PooledConnection
from octane_analytics.clickhouse.results import Result
from octane_analytics.errors import Abandoned, NeedsOperator, QueryError, Unavailable
from tests.support.asgi_calls import Script, pool, result

ONE = result((1,), n="UInt8")


@contextmanager
def closing(opened: ConnectionPool) -> Iterator[ConnectionPool]:
    try:
        yield opened
    finally:
        opened.close()


def select(connection: PooledConnection) -> Result:
    return connection.select("SELECT 1")


def test_connection_is_created_on_first_job_and_reused() -> None:
    created: list[Script] = []

    def connect() -> Script:
        created.append(Script(ONE, ONE))
        return created[-1]

    with closing(ConnectionPool(connect, size=2, queue_seconds=1, deadline_seconds=1)) as opened:
        assert not created
        assert asyncio.run(opened.run(select)) == ONE
        assert asyncio.run(opened.run(select)) == ONE
        assert len(created) == 1
    assert created[0].is_closed


def test_stale_connection_is_retried() -> None:
    script = Script(Unavailable("broken pipe"), ONE)
    with closing(pool(script)) as opened:
        assert asyncio.run(opened.run(select)) == ONE


def test_second_failure_is_raised() -> None:
    script = Script(Unavailable("refused"), Unavailable("refused"), ONE)
    with closing(pool(script)) as opened, pytest.raises(Unavailable):
        asyncio.run(opened.run(select))
    assert len(script.calls) == 2


def test_error_for_the_operator_is_not_retried() -> None:
    script = Script(NeedsOperator("wrong password"), ONE)
    with closing(pool(script)) as opened, pytest.raises(NeedsOperator):
        asyncio.run(opened.run(select))
    assert len(script.calls) == 1


def test_job_above_pool_size_is_rejected_in_time() -> None:
    release = threading.Event()

    def wait() -> Result:
        release.wait(10)
        return ONE

    async def overload(opened: ConnectionPool) -> None:
        first = asyncio.create_task(opened.run(select))
        await asyncio.sleep(0)
        with pytest.raises(QueryError) as raised:
            await opened.run(select)
        assert (raised.value.status, raised.value.code) == (503, "overloaded")
        release.set()
        assert await first == ONE
        assert await opened.run(select) == ONE

    with closing(pool(Script(wait, ONE), queue_seconds=0.02)) as opened:
        asyncio.run(overload(opened))


def test_job_after_deadline_keeps_its_slot_until_done() -> None:
    release = threading.Event()

    def wait() -> Result:
        release.wait(10)
        return ONE

    async def time_out(opened: ConnectionPool) -> None:
        with pytest.raises(QueryError) as raised:
            await opened.run(select)
        assert (raised.value.status, raised.value.code) == (504, "timeout")
        with pytest.raises(QueryError) as raised:
            await opened.run(select)
        assert raised.value.code == "overloaded"
        release.set()
        second = await asyncio.wait_for(_until_free(opened), 5)
        assert second == ONE

    async def _until_free(opened: ConnectionPool) -> Result:
        while True:
            try:
                return await opened.run(select)
            except QueryError:
                continue

    with closing(pool(Script(wait, ONE), queue_seconds=0.02, deadline_seconds=0.02)) as opened:
        asyncio.run(time_out(opened))


class Busy(Script):
    """A connection whose queries run until it is aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.aborted = threading.Event(), threading.Event()

    def select(self, *_: object, **__: object) -> Result:
        self.started.set()
        assert self.aborted.wait(5)
        raise Abandoned("aborted")

    def abort(self) -> None:
        self.aborted.set()


def test_cancelled_caller_closes_its_connection() -> None:
    busy, created = Busy(), list[PooledConnection]()

    def connect() -> PooledConnection:
        created.append(Script(ONE) if created else busy)
        return created[-1]

    async def cancel_first_job() -> None:
        running = asyncio.create_task(opened.run(select))
        await asyncio.to_thread(busy.started.wait, 5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await opened.run(select) == ONE

    cancelled: list[None] = []
    with closing(
        ConnectionPool(
            connect,
            size=1,
            queue_seconds=5,
            deadline_seconds=5,
            on_cancelled=lambda: cancelled.append(None),
        )
    ) as opened:
        asyncio.run(cancel_first_job())
    assert len(cancelled) == 1, "the answered job does not count"
    assert busy.aborted.is_set()
    assert busy.is_closed
    assert len(created) == 2


def test_job_after_deadline_is_aborted() -> None:
    busy = Busy()
    with closing(pool(busy, deadline_seconds=0.05)) as opened, pytest.raises(QueryError) as raised:
        asyncio.run(opened.run(select))
    assert raised.value.status == 504
    assert busy.aborted.is_set()
