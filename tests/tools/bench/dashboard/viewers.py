"""Viewers who keep the dashboard open: each repeats the requests of a recorded refresh."""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

from tests.tools.bench.dashboard.page_loads import PageRequest

_AT_ONCE = 5
"""Requests in progress of one page, as in its client.js."""
_CONNECTIONS = 6
"""Of a browser to one host."""
_TIMEOUT_SECONDS = 60.0
# As Chromium sends them for a request that has to be revalidated.
_HEADERS = {"Accept-Encoding": "gzip, deflate, br, zstd", "Cache-Control": "max-age=0"}


@dataclass
class Traffic:
    """What the service answered to all viewers."""

    requests: int = 0
    unchanged: int = 0
    """Answers 304."""
    failed: int = 0
    content_bytes: int = 0
    """Bodies as they were transferred."""
    slowest_ms: float = 0.0


@dataclass(frozen=True)
class Crowd:
    """Cost of viewers for the service."""

    viewers: int
    interval_seconds: float
    seconds: float
    cpu_shares: tuple[float, ...]
    """CPU of the measured processes, of one core."""
    loads: Traffic
    """One refresh of each, before the measurement."""
    traffic: Traffic


class _Viewer:
    def __init__(self, client: httpx.AsyncClient, requests: Sequence[PageRequest]) -> None:
        self._client = client
        self._requests = requests
        self._etags: dict[str, str] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def stay(self, interval: float, delay: float, traffic: Traffic) -> None:
        """Refresh every `interval` seconds, at first after `delay`, until cancelled."""
        await asyncio.sleep(delay)
        while True:
            due = time.monotonic() + interval
            await self.refresh(traffic)
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def refresh(self, traffic: Traffic) -> None:
        await asyncio.gather(*(self._ask(each, traffic) for each in self._requests))

    async def listen(self, request: PageRequest) -> None:
        """Read a live report until cancelled; it ends by itself and is opened again."""
        while True:
            async with self._client.stream("GET", request.path, timeout=None) as answer:
                async for _ in answer.aiter_raw():
                    pass
            await asyncio.sleep(1)

    async def _ask(self, request: PageRequest, traffic: Traffic) -> None:
        headers = {}
        if request.path in self._etags:
            headers["If-None-Match"] = self._etags[request.path]
        if request.body:
            headers["Content-Type"] = "application/json"
        async with self._gate:
            began = time.perf_counter()
            try:
                ask = self._client.build_request(
                    request.method, request.path, headers=headers, content=request.body or None
                )
                answer = await self._client.send(ask, stream=True)
                content = b"".join([part async for part in answer.aiter_raw()])
            except httpx.TransportError:
                traffic.requests += 1
                traffic.failed += 1
                return
            took_ms = (time.perf_counter() - began) * 1000
        traffic.requests += 1
        traffic.unchanged += answer.status_code == 304
        traffic.failed += answer.status_code not in (200, 304)
        traffic.content_bytes += len(content)
        traffic.slowest_ms = max(traffic.slowest_ms, took_ms)
        if request.method == "GET" and "etag" in answer.headers:
            self._etags[request.path] = answer.headers["etag"]


def crowd(
    base: str,
    requests: Sequence[PageRequest],
    live: Sequence[PageRequest],
    *,
    viewers: int,
    interval_seconds: float,
    seconds: float,
    cpu_seconds: Callable[[], Sequence[float]],
) -> Crowd:
    """Block for some more than `seconds`, in which that many viewers refresh at different moments.

    Each has loaded the page and has its live reports open before the measurement begins.
    """
    return asyncio.run(
        _crowd(base, requests, live, viewers, interval_seconds, seconds, cpu_seconds)
    )


async def _crowd(
    base: str,
    requests: Sequence[PageRequest],
    live: Sequence[PageRequest],
    viewers: int,
    interval: float,
    seconds: float,
    cpu_seconds: Callable[[], Sequence[float]],
) -> Crowd:
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a default one takes 20 ms for each client
    async with AsyncExitStack() as stack:
        everyone = []
        for _ in range(viewers):
            client = httpx.AsyncClient(
                base_url=base,
                headers=_HEADERS,
                limits=limits,
                timeout=_TIMEOUT_SECONDS,
                verify=unused,
                trust_env=False,
            )
            everyone.append(_Viewer(await stack.enter_async_context(client), requests))
        loads = Traffic()
        for viewer in everyone:
            await viewer.refresh(loads)
        tasks = [asyncio.create_task(viewer.listen(each)) for viewer in everyone for each in live]
        traffic = Traffic()
        for number, viewer in enumerate(everyone):
            delay = interval * number / viewers
            tasks.append(asyncio.create_task(viewer.stay(interval, delay, traffic)))
        began, before = time.monotonic(), cpu_seconds()
        await asyncio.sleep(seconds)
        took, after = time.monotonic() - began, cpu_seconds()
        broken = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in broken:
        await task  # raises what ended it
    shares = tuple((end - start) / took for start, end in zip(before, after, strict=True))
    return Crowd(viewers, interval, took, shares, loads, traffic)
