"""Producer with a full queue, without a broker."""

import time

import pytest

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.event_producer import EventProducer
from octane_analytics.settings.connections import KafkaSettings


def test_full_queue_does_not_block_when_stopping() -> None:
    settings = KafkaSettings(
        bootstrap_servers="127.0.0.1:1", rdkafka={"queue.buffering.max.messages": "2"}
    )
    calls: list[float] = []

    def is_stopping() -> bool:
        calls.append(time.monotonic())
        return len(calls) > 3

    producer = EventProducer(settings, "octane.events", client_id="tests", is_stopping=is_stopping)
    try:
        for _ in range(2):
            producer.send(b"x", None, lambda why: None)
        with pytest.raises(Unavailable, match="queue has been full"):
            producer.send(b"x", None, lambda why: None)
        assert len(calls) == 4
    finally:
        producer.close()
