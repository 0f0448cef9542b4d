"""How a worker's consumer is set up: its place in the group, how much it fetches ahead."""

import json
from collections.abc import Callable

from octane_analytics.kafka.client import Broker
from octane_analytics.settings.connections import KafkaSettings

_STATISTICS_MS = 10_000
_FETCH_BYTES = 2 << 20
"""Of one answer and of one partition in it: so under backlog an answer is of one partition, and fills
its batch with a run of tens of thousands of records while the other batches are still small."""


def member_properties(
    broker: Broker,
    settings: KafkaSettings,
    slot: int | None,
    on_queue: Callable[[int], None] | None,
) -> dict[str, object]:
    """librdkafka's (its CONFIGURATION.md). `slot` and `on_queue` are those of `KafkaSource`."""
    properties: dict[str, object] = {
        "group.id": settings.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "partition.assignment.strategy": "cooperative-sticky",
        # A rebalance waits for every member to hear of it.
        "heartbeat.interval.ms": broker.default("heartbeat.interval.ms", 1000),
        "queued.max.messages.kbytes": broker.default("queued.max.messages.kbytes", 8_192),
        # Else a full queue, as there is under any backlog, stops fetching for a second.
        "fetch.queue.backoff.ms": broker.default("fetch.queue.backoff.ms", 10),
        "fetch.max.bytes": broker.default("fetch.max.bytes", _FETCH_BYTES),
    }
    if "max.partition.fetch.bytes" not in settings.rdkafka:  # the other's alias
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


def queue_bytes(statistics: str) -> int:
    """Out of librdkafka's statistics (STATISTICS.md): over all partitions."""
    return sum(
        partition["fetchq_size"]
        for topic in json.loads(statistics)["topics"].values()
        for partition in topic["partitions"].values()
    )
