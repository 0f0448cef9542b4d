"""Live reports: answers that are refreshed at an interval and shared by all their listeners.

A channel is one report of one cache partition at one interval. It runs one query per refresh, however
many listeners it has, and ends with the last of them. A listener is sent the newest answer only, so a
slow one costs no memory. For one event loop; does not depend on HTTP.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from octane_analytics.api.errors import error_body
from octane_analytics.api.reports.cache import CachedAnswer
from octane_analytics.api.reports.service import ReportQuery, ReportService
from octane_analytics.api.results.json_values import encode
from octane_analytics.errors import QueryError

HEARTBEAT_SECONDS = 15.0
MAX_CHANNELS = 100
MAX_CHANNELS_PER_PARTITION = 10
LISTEN_SECONDS = 600.0
"""Time after which a stream ends; the client connects again, with a token that is still valid."""
_DRAIN_CHECK_SECONDS = 0.5
_WAKE_AT_ONCE = 100
"""Listeners of one turn of the event loop: some 5 ms."""
_HEARTBEAT = b": heartbeat\n\n"


@dataclass(slots=True)
class LiveChannel:
    query: ReportQuery
    interval_seconds: float
    charge: Callable[[], None]
    """Charges a refresh to the token, or raises QueryError."""
    listeners: int = 0
    number: int = 0
    """Number of events so far."""
    event_id: str = ""
    event: bytes = b""
    failure: QueryError | None = None
    """Error of the last refresh."""
    is_closed: bool = False
    task: "asyncio.Task[None] | None" = field(default=None)

    _waiters: "dict[asyncio.Future[None], None]" = field(default_factory=dict)

    def publish(self, event_id: str, event: bytes) -> None:
        self.event_id, self.event = event_id, event
        self.number += 1
        self.wake()

    def wake(self) -> None:
        waiters, self._waiters = list(self._waiters), {}
        _wake_some(waiters)

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Block until the next event or the end of the channel; return False after the timeout."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            done, _ = await asyncio.wait({waiter}, timeout=timeout_seconds)
            return bool(done)
        finally:
            self._waiters.pop(waiter, None)


def _wake_some(waiters: "list[asyncio.Future[None]]") -> None:
    """Wake the first of them in this turn of the event loop, and the others in the following turns.

    All at once, 10,000 listeners would hold the loop for half a second, and every other request with it.
    """
    for waiter in waiters[:_WAKE_AT_ONCE]:
        if not waiter.done():
            waiter.set_result(None)
    if others := waiters[_WAKE_AT_ONCE:]:
        asyncio.get_running_loop().call_soon(_wake_some, others)


class LiveReports:
    """All channels of a process. `is_draining` ends all streams once it returns true."""

    def __init__(
        self,
        service: ReportService,
        *,
        is_draining: Callable[[], bool] = lambda: False,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        listen_seconds: float = LISTEN_SECONDS,
        on_listeners: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`on_listeners` is called with the change of the number of listeners."""
        self._on_listeners = on_listeners
        self._service = service
        self._is_draining = is_draining
        self._heartbeat_seconds = heartbeat_seconds
        self._listen_seconds = listen_seconds
        self._channels: dict[bytes, LiveChannel] = {}
        self._watch: asyncio.Task[None] | None = None

    async def join(
        self, query: ReportQuery, interval_seconds: float, charge: Callable[[], None]
    ) -> LiveChannel:
        """Return the channel once it has an answer; call `leave` after use.

        Raises QueryError if the report fails, or there are too many channels.
        """
        key = encode(interval_seconds) + self._service.key(query)
        channel = self._channels.get(key)
        if channel is None:
            self._check_room(query.partition)
            channel = LiveChannel(
                dataclasses.replace(query, is_fresh=True),
                interval_seconds,
                charge,
            )
            self._channels[key] = channel
            channel.task = asyncio.create_task(self._run(key, channel))
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._close_when_draining())
        channel.listeners += 1
        self._on_listeners(1)
        try:
            while not channel.number and channel.failure is None and not channel.is_closed:
                await channel.wait()
            if not channel.number and channel.failure is not None:
                raise channel.failure
        except BaseException:
            self.leave(channel)
            raise
        return channel

    def leave(self, channel: LiveChannel) -> None:
        channel.listeners -= 1
        self._on_listeners(-1)
        if not channel.listeners and channel.task is not None:
            channel.task.cancel()

    async def events(
        self, channel: LiveChannel, last_event_id: str, seconds: float
    ) -> AsyncIterator[bytes]:
        """Yield the current answer unless it is `last_event_id`, then each new one, and heartbeats.

        Ends after `seconds`, or sooner.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(seconds, self._listen_seconds)
        seen = 0 if channel.event_id != last_event_id else channel.number
        if seen:
            yield _HEARTBEAT
        while not channel.is_closed and loop.time() < end:
            if channel.number > seen:
                seen = channel.number
                yield channel.event
                continue
            timeout = min(self._heartbeat_seconds, max(end - loop.time(), 0))
            if not await channel.wait(timeout):
                yield _HEARTBEAT

    def _check_room(self, partition: str) -> None:
        own = sum(each.query.partition == partition for each in self._channels.values())
        if len(self._channels) >= MAX_CHANNELS:
            raise QueryError(503, "overloaded", "too many live reports: try again later")
        if partition and own >= MAX_CHANNELS_PER_PARTITION:
            raise QueryError(
                429,
                "too_many_at_once",
                f"a token may have {MAX_CHANNELS_PER_PARTITION} different live reports at once",
            )

    async def _run(self, key: bytes, channel: LiveChannel) -> None:
        loop = asyncio.get_running_loop()
        is_first = True
        try:
            while True:
                started = loop.time()
                await self._refresh(channel, is_first)
                is_first = False
                if channel.failure is not None and not channel.number:
                    return  # the first answer failed: each request has the error's status
                await asyncio.sleep(max(channel.interval_seconds - (loop.time() - started), 0.05))
        finally:
            channel.is_closed = True
            if self._channels.get(key) is channel:
                del self._channels[key]
            channel.wake()

    async def _refresh(self, channel: LiveChannel, is_first: bool) -> None:
        try:
            if not is_first:
                channel.charge()  # the request of the first listener paid for the first
            answer = (await self._service.answer(channel.query)).content
            if not isinstance(answer, CachedAnswer):
                answer.abandon()
                raise QueryError(422, "result_too_large", "the answer is too large to be live")
        except QueryError as error:
            has_news = channel.failure is None
            channel.failure = error
            if channel.number and has_news and error.status != 429:
                body = encode(error_body(error, channel.query.request_id))
                channel.publish("", b"event: error\ndata: " + body + b"\n\n")
            elif not channel.number:
                channel.wake()
            return
        channel.failure = None
        event_id = answer.etag.removeprefix("W/").strip('"')
        if event_id != channel.event_id:
            head = f"id: {event_id}\nevent: report\ndata: ".encode()
            # JSON of one line: line feeds within strings are escaped.
            channel.publish(event_id, head + answer.body + b"\n\n")

    async def _close_when_draining(self) -> None:
        while self._channels:
            if self._is_draining():
                for channel in list(self._channels.values()):
                    if channel.task is not None:
                        channel.task.cancel()
            await asyncio.sleep(_DRAIN_CHECK_SECONDS)
