"""A producer whose queue is full, at a broker that is not there."""

import time

import pytest

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.event_producer import EventProducer
from octane_analytics.settings.connections import KafkaSettings


def test_full_queue_is_not_waited_for_once_it_is_to_stop() -> None:
    settings = KafkaSettings(
        bootstrap_servers="127.0.0.1:1", rdkafka={"queue.buffering.max.messages": "2"}
    )
    asked: list[float] = []

    def is_stopping() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3

    producer = EventProducer(settings, "octane.events", client_id="tests", is_stopping=is_stopping)
    try:
        for _ in range(2):
            producer.send(b"x", None, lambda why: None)
        with pytest.raises(Unavailable, match="queue has been full"):
            producer.send(b"x", None, lambda why: None)
        assert len(asked) == 4
    finally:
        producer.close()
