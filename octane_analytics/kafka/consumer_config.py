"""Properties of a worker's consumer for librdkafka: group membership and prefetching."""

import json
from collections.abc import Callable

from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.commit_outcome import RETRY_BACKOFF_MS
from octane_analytics.settings.connections import KafkaSettings

_STATISTICS_MS = 30_000
"""Time between two readings of the queue. librdkafka writes 0.7 kB about each partition of the topic."""
_SESSION_MS = 45_000
"""librdkafka's default session timeout."""
_MIN_SOCKET_MS = 4_000
_FETCH_MIN_BYTES = 1 << 20
_MIN_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.02, 0.5
_FETCH_BYTES = 2 << 20
"""Limit of a fetch response and of one partition in it. As they are equal, a response under backlog has
records of one partition, and fills its batch with a run of tens of thousands of records while the other
batches are still small."""


def member_properties(
    broker: Broker,
    settings: KafkaSettings,
    slot: int | None,
    flush_seconds: float,
    on_queue: Callable[[int], None] | None,
) -> dict[str, object]:
    """Return the properties (librdkafka's CONFIGURATION.md). For `slot` and `on_queue` see
    `KafkaSource`."""
    properties: dict[str, object] = {
        "group.id": settings.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # A fetch waits for so much, so that it has records of many partitions. With the default of one
        # byte, 1,000 events/s cost up to as many fetches: 3.1 % of a CPU instead of 0.3 %.
        "fetch.min.bytes": broker.default("fetch.min.bytes", _FETCH_MIN_BYTES),
        "fetch.wait.max.ms": broker.default("fetch.wait.max.ms", _fetch_wait_ms(flush_seconds)),
        "partition.assignment.strategy": "cooperative-sticky",
        # A rebalance lasts until every member has seen it in a heartbeat.
        "heartbeat.interval.ms": broker.default("heartbeat.interval.ms", 1000),
        "queued.max.messages.kbytes": broker.default("queued.max.messages.kbytes", 8_192),
        # By default a full queue, which any backlog causes, stops fetching for a second.
        "fetch.queue.backoff.ms": broker.default("fetch.queue.backoff.ms", 10),
        "fetch.max.bytes": broker.default("fetch.max.bytes", _FETCH_BYTES),
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        # A commit blocks for four times this if the coordinator does not answer: librdkafka sends it
        # again. By default that is longer than the session, after which others have the partitions.
        "socket.timeout.ms": broker.default("socket.timeout.ms", _socket_timeout_ms(settings)),
    }
    if "max.partition.fetch.bytes" not in settings.rdkafka:  # an alias
        properties["fetch.message.max.bytes"] = broker.default(
            "fetch.message.max.bytes", _FETCH_BYTES
        )
    if on_queue is not None:
        properties["statistics.interval.ms"] = broker.default(
            "statistics.interval.ms", _STATISTICS_MS
        )
        properties["stats_cb"] = lambda statistics: on_queue(queue_bytes(statistics))
    if settings.instance_prefix and slot is not None:
        properties["group.instance.id"] = f"{settings.instance_prefix}-{slot}"
    return properties


def _fetch_wait_ms(flush_seconds: float) -> int:
    """Return the longest time for which a broker waits for more records: a tenth of what a batch waits,
    so that it adds little to that. At most librdkafka's default.

    Each answer costs about 6 µs for each partition in it.
    """
    return round(1000 * min(max(flush_seconds / 10, _MIN_WAIT_SECONDS), _MAX_WAIT_SECONDS))


def _socket_timeout_ms(settings: KafkaSettings) -> int:
    """Return a fifth of the session timeout, or what librdkafka requires beside a longer fetch."""
    session_ms = _milliseconds(settings, "session.timeout.ms", _SESSION_MS)
    fetch_ms = _milliseconds(settings, "fetch.wait.max.ms", 0)
    return max(session_ms // 5, _MIN_SOCKET_MS, fetch_ms + 1000)


def _milliseconds(settings: KafkaSettings, name: str, default: int) -> int:
    value = settings.rdkafka.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else default


def queue_bytes(statistics: str) -> int:
    """Return the queued bytes of all partitions from librdkafka's statistics (STATISTICS.md)."""
    return sum(
        partition["fetchq_size"]
        for topic in json.loads(statistics)["topics"].values()
        for partition in topic["partitions"].values()
    )
