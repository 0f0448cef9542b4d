"""Live reports over scripted connections: sharing, changes, heartbeats, limits and the end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from octane_analytics.api.connection_pool import ConnectionPool
from octane_analytics.api.reports import live
from octane_analytics.api.reports.cache import ReportCache
from octane_analytics.api.reports.library import load
from octane_analytics.api.reports.live import LiveReports, LiveToken
from octane_analytics.api.reports.service import ReportQuery, ReportService
from octane_analytics.api.results.formats import JSON
from octane_analytics.clickhouse.results import Result
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import QueryError, StatementRejected
from tests.support.asgi_calls import LIMITS, NOW, Script, app_over, call, pool, result

TEMPLATES = load().templates


def row(number: int) -> Result:
    return result((number,), n="UInt64")


def query(partition: str = "", **given: object) -> ReportQuery:
    return ReportQuery(TEMPLATES["overview_stats"], given, JSON, "id", partition)


FREE = LiveToken()


class Rig:
    def __init__(self, *steps: Result | Exception, **options: Any) -> None:
        self.script = Script(*steps)
        connections: ConnectionPool = pool(self.script)
        self.service = ReportService(
            templates=TEMPLATES,
            table=TableName("db", "events"),
            limits=LIMITS,
            pool=connections,
            cache=ReportCache(0),
            now=lambda: NOW,
            on_rows_read=lambda _: None,
        )
        self.live = LiveReports(self.service, **options)


async def first(events: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(events), 10)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_listeners_share_one_query_per_refresh() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), row(1), *[row(2)] * 300)
        channels = await asyncio.gather(*(rig.live.join(query(), 0.1, FREE) for _ in range(500)))
        assert len(set(map(id, channels))) == 1
        streams = [rig.live.events(channel, "", 60) for channel in channels]
        received = await asyncio.gather(*map(first, streams))
        assert len(set(received)) == 1
        lines = received[0].decode().split("\n")
        assert lines[1] == "event: report"
        assert json.loads(lines[2].removeprefix("data: "))["rows"] == [{"n": 1}]
        # The second refresh has the same rows, and is no event.
        changed = await asyncio.gather(*map(first, streams))
        assert b'"rows":[{"n":2}]' in changed[0]
        # At least three refreshes; on a busy machine some more, of which each has one query.
        assert 3 <= len(rig.script.calls) < 100
        for channel in channels:
            rig.live.leave(channel)
        await asyncio.sleep(0.2)  # for a refresh in progress
        asked = len(rig.script.calls)
        await asyncio.sleep(0.5)
        assert len(rig.script.calls) == asked, "no query without listeners"

    run(scenario)


def test_current_answer_is_not_repeated_after_reconnect() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), heartbeat_seconds=0.05)
        channel = await rig.live.join(query(), 60, FREE)
        known = rig.live.events(channel, channel.event_id, 60)
        assert [await first(known) for _ in range(3)] == [b": heartbeat\n\n"] * 3
        unknown = rig.live.events(channel, "other\nid", 60)
        assert (await first(unknown)).startswith(b"id: ")
        rig.live.leave(channel)

    run(scenario)


def test_partitions_and_filters_do_not_share_answers() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), row(2), row(3))
        channels = [
            await rig.live.join(each, 60, FREE)
            for each in (query("a"), query("b"), query("a", app_id="x"))
        ]
        assert len({id(channel) for channel in channels}) == 3
        assert [b'{"n":%d}' % n in c.event for n, c in enumerate(channels, 1)] == [True] * 3
        for channel in channels:
            rig.live.leave(channel)

    run(scenario)


def test_first_error_is_raised_to_every_listener() -> None:
    async def scenario() -> None:
        rig = Rig(StatementRejected(159, "TIMEOUT_EXCEEDED", "slow"), row(1))
        joins = (rig.live.join(query(), 60, FREE) for _ in range(3))
        found = await asyncio.gather(*joins, return_exceptions=True)
        assert [isinstance(each, QueryError) and each.status for each in found] == [504] * 3
        channel = await rig.live.join(query(), 60, FREE)
        assert channel.number == 1
        rig.live.leave(channel)

    run(scenario)


def test_later_error_is_an_event_and_recovers() -> None:
    async def scenario() -> None:
        slow = StatementRejected(159, "TIMEOUT_EXCEEDED", "slow")
        rig = Rig(row(1), slow, slow, row(1))
        channel = await rig.live.join(query(), 0.1, FREE)
        events = rig.live.events(channel, "", 60)
        received = [(await first(events)).split(b"\n") for _ in range(3)]
        assert [b"event: error" in each for each in received] == [False, True, False]
        assert received[0][0] == received[2][0], "the same answer again"
        rig.live.leave(channel)

    run(scenario)


def test_refresh_beyond_the_rate_is_left_out() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), row(2))
        charges: list[int] = []

        def charge() -> None:
            charges.append(1)
            if len(charges) < 4:
                raise QueryError(429, "rate_limited", "too many")

        channel = await rig.live.join(query(), 0.05, LiveToken(charge))
        events = rig.live.events(channel, "", 60)
        assert [b'"n":1' in await first(events), b'"n":2' in await first(events)] == [True, True]
        assert (len(charges), len(rig.script.calls)) == (4, 2)
        rig.live.leave(channel)

    run(scenario)


def test_error_after_a_refused_refresh_is_an_event() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), *[StatementRejected(159, "TIMEOUT_EXCEEDED", "slow")] * 300)
        refusals = [QueryError(429, "rate_limited", "too many")]

        def charge() -> None:
            if refusals:
                raise refusals.pop()

        channel = await rig.live.join(query(), 0.05, LiveToken(charge))
        events = rig.live.events(channel, "", 60)
        assert [b"event: error" in await first(events) for _ in range(2)] == [False, True]
        rig.live.leave(channel)

    run(scenario)


def test_number_of_channels_is_limited() -> None:
    async def scenario() -> None:
        rig = Rig(*[row(1)] * 200)
        for number in range(live.MAX_CHANNELS_PER_PARTITION):
            await rig.live.join(query("a", **{"from": f"-{number + 1}h"}), 60, FREE)
        with pytest.raises(QueryError) as raised:
            await rig.live.join(query("a"), 60, FREE)
        assert raised.value.status == 429
        await rig.live.join(query("a", **{"from": "-1h"}), 60, FREE)
        for number in range(live.MAX_CHANNELS - live.MAX_CHANNELS_PER_PARTITION):
            await rig.live.join(query("", **{"from": f"-{number + 1}h"}), 60, FREE)
        with pytest.raises(QueryError) as raised:
            await rig.live.join(query("b"), 60, FREE)
        assert raised.value.status == 503

    run(scenario)


def test_streams_end_when_the_process_drains() -> None:
    async def scenario() -> None:
        is_draining = False
        rig = Rig(row(1), is_draining=lambda: is_draining)
        channel = await rig.live.join(query(), 60, FREE)
        events = rig.live.events(channel, "", 60)
        await first(events)
        is_draining = True
        with pytest.raises(StopAsyncIteration):
            await first(events)

    run(scenario)


def test_stream_ends_after_its_time() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), listen_seconds=0.2, heartbeat_seconds=0.05)
        channel = await rig.live.join(query(), 60, FREE)
        received = [event async for event in rig.live.events(channel, "", 60)]
        assert received[0].startswith(b"id: ")
        assert not [event async for event in rig.live.events(channel, "", -1)]
        rig.live.leave(channel)

    run(scenario)


def test_cancelled_listener_ends_the_query() -> None:
    async def scenario() -> None:
        rig = Rig(row(1))
        channel = await rig.live.join(query(), 60, FREE)
        rig.live.leave(channel)
        assert channel.task is not None
        with contextlib.suppress(asyncio.CancelledError):
            await channel.task
        assert channel.is_closed

    run(scenario)


def test_loop_serves_others_between_woken_listeners() -> None:
    async def scenario() -> None:
        rig = Rig(row(1))
        channel = await rig.live.join(query(), 60, FREE)
        woken: list[int] = []

        async def listen(number: int) -> None:
            await channel.wait()
            woken.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5 * live._WAKE_AT_ONCE):
                group.create_task(listen(number))
            await asyncio.sleep(0)  # each waits
            channel.publish("id", b"event")
            turns = []
            while len(woken) < 5 * live._WAKE_AT_ONCE:
                before = len(woken)
                await asyncio.sleep(0)
                turns.append(len(woken) - before)
        assert max(turns) == live._WAKE_AT_ONCE
        rig.live.leave(channel)

    run(scenario)


def test_listeners_are_counted_until_they_leave() -> None:
    async def scenario() -> None:
        counts = [0]
        rig = Rig(
            StatementRejected(159, "TIMEOUT_EXCEEDED", "slow"),
            row(1),
            on_listeners=lambda change: counts.append(counts[-1] + change),
        )
        with pytest.raises(QueryError):
            await rig.live.join(query(), 60, FREE)
        channels = [await rig.live.join(query(), 60, FREE) for _ in range(3)]
        for channel in channels:
            rig.live.leave(channel)
        assert counts == [0, 1, 0, 1, 2, 3, 2, 1, 0]

    run(scenario)


def test_heartbeats_fill_the_time_without_events() -> None:
    async def scenario() -> None:
        rig = Rig(*[row(1)] * 200, heartbeat_seconds=0.3)
        channel = await rig.live.join(query(), 0.05, FREE)
        events = rig.live.events(channel, "", 60)
        received = [await first(events) for _ in range(3)]
        assert received[1:] == [b": heartbeat\n\n"] * 2, "refreshes without news are no events"
        spoke_at = channel.spoke_at
        channel.publish("id", b"event")
        assert channel.spoke_at > spoke_at, "the next heartbeat is due later"
        rig.live.leave(channel)

    run(scenario)


def test_listener_is_sent_an_error_that_others_know() -> None:
    async def scenario() -> None:
        slow = StatementRejected(159, "TIMEOUT_EXCEEDED", "slow")
        rig = Rig(row(1), *[slow] * 300)
        channel = await rig.live.join(query(), 0.05, FREE)
        events = rig.live.events(channel, "", 60)
        assert [b"event: error" in await first(events) for _ in range(2)] == [False, True]
        late = rig.live.events(channel, "", 60)
        assert b"event: error" in await first(late)
        rig.live.leave(channel)

    run(scenario)


def test_streams_end_with_their_token() -> None:
    async def scenario() -> None:
        is_valid = True
        rig = Rig(*[row(1)] * 300, heartbeat_seconds=0.05)
        channel = await rig.live.join(query(), 60, LiveToken(is_valid=lambda: is_valid))
        events = rig.live.events(channel, "", 60)
        await first(events)
        is_valid = False
        remaining = [event async for event in events]
        assert set(remaining) <= {b": heartbeat\n\n"}
        assert channel.is_closed
        assert len(rig.script.calls) == 1

    run(scenario)


def test_large_answer_is_not_live() -> None:
    async def scenario() -> None:
        size = live.MAX_EVENT_BYTES // 3
        small, large = (
            result(*((f"{n}" * size,) for n in range(rows)), s="String") for rows in (2, 3)
        )
        rig = Rig(large, small, large, heartbeat_seconds=60)
        with pytest.raises(QueryError) as raised:
            await rig.live.join(query(), 60, FREE)
        assert (raised.value.status, raised.value.code) == (422, "result_too_large")
        channel = await rig.live.join(query(), 0.05, FREE)
        events = rig.live.events(channel, "", 60)
        received = [await first(events) for _ in range(2)]
        assert [b"event: error" in each for each in received] == [False, True]
        rig.live.leave(channel)

    run(scenario)


def test_number_of_listeners_is_limited() -> None:
    async def scenario() -> None:
        rig = Rig(*[row(1)] * 300, max_listeners=3)
        channels = [await rig.live.join(query(), 60, FREE) for _ in range(3)]
        with pytest.raises(QueryError) as raised:
            await rig.live.join(query(), 60, FREE)
        assert raised.value.status == 503
        rig.live.leave(channels.pop())
        channels.append(await rig.live.join(query(), 60, FREE))
        for channel in channels:
            rig.live.leave(channel)

    run(scenario)


def test_listener_after_the_last_one_opens_another_channel() -> None:
    async def scenario() -> None:
        rig = Rig(row(1), row(2))
        channel = await rig.live.join(query(), 60, FREE)
        rig.live.leave(channel)
        other = await rig.live.join(query(), 60, FREE)
        assert other is not channel
        assert b'"n":2' in await first(rig.live.events(other, "", 60))
        rig.live.leave(other)

    run(scenario)


def test_head_has_the_headers_and_runs_nothing() -> None:
    script = Script()
    answer = call(app_over(script), "HEAD", "/live/overview_stats?interval=1")
    assert (answer.status_code, answer.content, script.calls) == (200, b"", [])
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert call(app_over(script), "HEAD", "/live/overview_stats?interval=0").status_code == 422


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live/nothing", 404),
        ("/live/overview_stats?interval=0", 422),
        ("/live/overview_stats?interval=3601", 422),
        ("/live/overview_stats?interval=1e1", 422),
        ("/live/overview_stats?interval=%D9%A3", 422),
        (f"/live/overview_stats?interval={'9' * 5000}", 422),
        ("/live/overview_stats?format=csv", 422),
        ("/live/overview_stats?colour=red", 422),
        ("/live/funnel", 422),
    ],
)
def test_invalid_live_request_is_rejected(path: str, status: int) -> None:
    assert call(app_over(Script()), "GET", path).status_code == status
