import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from octane_analytics.api.disconnect import cancel_on_disconnect


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def disconnect() -> Message:
    return {"type": "http.disconnect"}


def test_work_of_connected_client_returns_its_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert asyncio.run(cancel_on_disconnect(never, work())) == 7


def test_failure_of_the_work_is_raised() -> None:
    async def work() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        asyncio.run(cancel_on_disconnect(never, work()))


def test_disconnected_client_cancels_the_work() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(ClientDisconnect):
        asyncio.run(cancel_on_disconnect(disconnect, work()))
    assert cancelled


def test_cancelled_caller_cancels_the_work() -> None:
    cancelled = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def cancel_caller() -> None:
        waiting = asyncio.create_task(cancel_on_disconnect(never, work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel_caller())
    assert cancelled
