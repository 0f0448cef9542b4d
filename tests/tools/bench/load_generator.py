"""Events at a steady rate, from a process of its own: a thread beside others would not hold 50,000/s.

`python -m tests.tools.bench.load_generator BOOTSTRAP_SERVERS TOPIC PARTITIONS RATE WARM_SECONDS
SECONDS` sends for the warm-up seconds, then for the measured ones, and prints as JSON when these began
and how well the rate was held.

Each event carries the time at which it was handed to the producer. The rest is encoded beforehand.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from confluent_kafka import Producer

_TICK_SECONDS = 0.01
_FLUSH_SECONDS = 60
_HELD_SHARE = 0.99
_LATE_SECONDS = 0.5
_HEADS = tuple(
    b'{"app_id":"openstream","event_name":"video_heartbeat","user_id":"user_%08x","timestamp":"'
    % user
    for user in range(10_000)
)
_REST = (
    b'%s.000Z","properties":{"produced_at":%.6f,"stream_id":"st-998006","watch_time":15,'
    b'"session_id":"s-18072e8f9c","network_type":"wifi","client_version":"1.3.0-beta"}}'
)


@dataclass(frozen=True)
class Sent:
    events: int
    began: float
    """Start, by the clock of the timestamps in the events."""
    seconds: float
    late_seconds: float
    """Largest delay of an event between its due time and its send, in seconds."""

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    def is_held(self, rate: int) -> bool:
        """Return whether the events were sent at a steady rate."""
        return self.per_second >= _HELD_SHARE * rate and self.late_seconds <= _LATE_SECONDS


def steadily(
    rate: int,
    seconds: float,
    send: Callable[[int, int, float], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Sent:
    """Send the events when they are due, tick by tick; late events are sent late, not left out.

    `send` takes the first number, the one after the last, and the time.
    """
    total = round(rate * seconds)
    began = now = clock()
    sent, late = 0, 0.0
    while sent < total:
        due = min(total, math.ceil((now - began) * rate))
        if due > sent:
            late = max(late, now - began - sent / rate)
            send(sent, due, now)
            sent = due
        sleep(_TICK_SECONDS)
        now = clock()
    # The last was due one part of a second after the one before.
    return Sent(total, began, max(now - _TICK_SECONDS - began, seconds), late)


def event(number: int, rest: bytes) -> bytes:
    return _HEADS[number % len(_HEADS)] + rest


def rest(now: float) -> bytes:
    """Return the common end of all events of one moment."""
    return _REST % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)).encode(), now)


def main(
    servers: str, topic: str, partitions: str, rate: str, warm_seconds: str, seconds: str
) -> None:
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 5, "compression.type": "lz4", "log_level": 0}
    )
    count = int(partitions)

    def send(first: int, end: int, now: float) -> None:
        ending = rest(now)
        for number in range(first, end):
            while True:
                try:
                    producer.produce(topic, event(number, ending), partition=number % count)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)

    steadily(int(rate), float(warm_seconds), send, time.time, time.sleep)
    sent = steadily(int(rate), float(seconds), send, time.time, time.sleep)
    if producer.flush(_FLUSH_SECONDS):
        sys.exit("Kafka did not take all events")
    print(json.dumps(asdict(sent)))


if __name__ == "__main__":
    main(*sys.argv[1:])
