"""Live reports: answers that are refreshed at an interval and shared by all their listeners.

A channel is one report of one cache partition at one interval. It runs one query per refresh, however
many listeners it has, and ends with the last of them, or with the token that it serves. A listener is
sent the newest answer only, so a slow one costs no memory. Timers belong to the channel: a listener that
waits has one future. For one event loop; does not depend on HTTP.
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
MAX_EVENT_BYTES = 256 << 10
"""Each listener that does not read holds a copy of an event, until it is disconnected."""
LISTEN_SECONDS = 600.0
"""Time after which a stream ends; the client connects again, with a token that is still valid."""
_DRAIN_CHECK_SECONDS = 0.5
_WAKE_AT_ONCE = 100
"""Listeners of one turn of the event loop: some 3 ms."""
_HEARTBEAT = b": heartbeat\n\n"


@dataclass(frozen=True, slots=True)
class LiveToken:
    """Access of a channel to the token of its listeners, which is the same for all of them."""

    charge: Callable[[], None] = lambda: None
    """Charges a refresh to the token, or raises QueryError."""
    is_valid: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class LiveChannel:
    key: bytes
    query: ReportQuery
    interval_seconds: float
    token: LiveToken
    listeners: int = 0
    number: int = 0
    """Number of events so far."""
    heartbeats: int = 0
    """Number of heartbeats so far."""
    spoke_at: float = 0.0
    """Time of the loop at the last event or heartbeat."""
    event_id: str = ""
    event: bytes = b""
    failure: QueryError | None = None
    """Error of the first refresh."""
    is_closed: bool = False
    task: "asyncio.Task[None] | None" = field(default=None)

    _waiters: "dict[asyncio.Future[None], None]" = field(default_factory=dict)

    def publish(self, event_id: str, event: bytes) -> None:
        self.event_id, self.event = event_id, event
        self.number += 1
        self._speak()

    def beat(self) -> None:
        self.heartbeats += 1
        self._speak()

    def _speak(self) -> None:
        self.spoke_at = asyncio.get_running_loop().time()
        self.wake()

    def wake(self) -> None:
        waiters, self._waiters = list(self._waiters), {}
        _wake_some(waiters)

    async def wait(self) -> None:
        """Block until the next event, heartbeat or the end of the channel."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)


def _wake_some(waiters: "list[asyncio.Future[None]]") -> None:
    """Wake the first of them in this turn of the event loop, and the others in the following turns.

    All at once, 10,000 listeners would hold the loop for 0.3 s, and every other request with it.
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
        max_listeners: int = 2**32,
        on_listeners: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`on_listeners` is called with the change of the number of listeners."""
        self._on_listeners = on_listeners
        self._service = service
        self._is_draining = is_draining
        self._heartbeat_seconds = heartbeat_seconds
        self._listen_seconds = listen_seconds
        self._max_listeners = max_listeners
        self._listeners = 0
        self._channels: dict[bytes, LiveChannel] = {}
        self._watch: asyncio.Task[None] | None = None

    async def join(
        self, query: ReportQuery, interval_seconds: float, token: LiveToken
    ) -> LiveChannel:
        """Return the channel once it has an answer; call `leave` after use.

        Raises QueryError if the report fails, or there are too many channels or listeners.
        """
        if self._listeners >= self._max_listeners:
            raise QueryError(503, "overloaded", "too many clients listen: try again later")
        key = encode(interval_seconds) + self._service.key(query)
        channel = self._channels.get(key)
        if channel is None:
            self._check_room(query.partition)
            query = dataclasses.replace(query, is_fresh=True)
            channel = LiveChannel(key, query, interval_seconds, token)
            self._channels[key] = channel
            channel.task = asyncio.create_task(self._run(channel))
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._close_when_draining())
        self._count(channel, 1)
        try:
            while not channel.number and channel.failure is None and not channel.is_closed:
                await channel.wait()
            if channel.failure is not None:
                raise channel.failure
        except BaseException:
            self.leave(channel)
            raise
        return channel

    def leave(self, channel: LiveChannel) -> None:
        self._count(channel, -1)
        if not channel.listeners and channel.task is not None:
            self._forget(channel)
            channel.task.cancel()

    async def events(
        self, channel: LiveChannel, last_event_id: str, seconds: float
    ) -> AsyncIterator[bytes]:
        """Yield the current answer unless it is `last_event_id`, then each new one, and heartbeats.

        Yields nothing after `seconds`, and ends with the next heartbeat at the latest, or sooner.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + min(seconds, self._listen_seconds)
        is_known = bool(last_event_id) and channel.event_id == last_event_id
        seen, heartbeats = (channel.number if is_known else 0), channel.heartbeats
        if is_known:
            yield _HEARTBEAT
        while not channel.is_closed and loop.time() < end:
            if channel.number > seen:
                seen, heartbeats = channel.number, channel.heartbeats
                yield channel.event
            elif channel.heartbeats > heartbeats:
                heartbeats = channel.heartbeats
                yield _HEARTBEAT
            else:
                await channel.wait()

    def _count(self, channel: LiveChannel, change: int) -> None:
        channel.listeners += change
        self._listeners += change
        self._on_listeners(change)

    def _forget(self, channel: LiveChannel) -> None:
        """Let the next listener open another channel."""
        if self._channels.get(channel.key) is channel:
            del self._channels[channel.key]

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

    async def _run(self, channel: LiveChannel) -> None:
        loop = asyncio.get_running_loop()
        pulse = asyncio.create_task(self._pulse(channel))
        is_first = True
        try:
            while channel.token.is_valid():
                started = loop.time()
                await self._refresh(channel, is_first)
                is_first = False
                if channel.failure is not None:
                    return  # the first answer failed: each request has the error's status
                await asyncio.sleep(max(channel.interval_seconds - (loop.time() - started), 0.05))
        finally:
            pulse.cancel()
            channel.is_closed = True
            self._forget(channel)
            channel.wake()

    async def _pulse(self, channel: LiveChannel) -> None:
        """Send heartbeats while there is nothing else to send; end the channel with its token."""
        loop = asyncio.get_running_loop()
        channel.spoke_at = loop.time()
        while channel.token.is_valid():
            await asyncio.sleep(channel.spoke_at + self._heartbeat_seconds - loop.time())
            if loop.time() >= channel.spoke_at + self._heartbeat_seconds:
                channel.beat()
        if channel.task is not None:
            channel.task.cancel()

    async def _refresh(self, channel: LiveChannel, is_first: bool) -> None:
        try:
            if not is_first:
                channel.token.charge()  # the request of the first listener paid for the first
            answer = (await self._service.answer(channel.query)).content
            if not isinstance(answer, CachedAnswer):
                answer.abandon()
                raise _too_large()
            if len(answer.body) > MAX_EVENT_BYTES:
                raise _too_large()
        except QueryError as error:
            if not channel.number:
                channel.failure = error
                channel.wake()
            elif channel.event_id and error.status != 429:  # an answer is the current event
                body = encode(error_body(error, channel.query.request_id))
                channel.publish("", b"event: error\ndata: " + body + b"\n\n")
            return
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


def _too_large() -> QueryError:
    return QueryError(
        422,
        "result_too_large",
        f"the answer has more than {MAX_EVENT_BYTES >> 10} KiB, too many to be live",
    )
