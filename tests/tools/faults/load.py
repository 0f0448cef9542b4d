"""Events at a steady rate, each with a number of its own, and what became of them on the way in.

Owns the producing side only. Whether a record counts is decided by the log, not by what the producer
believes: see `audit`.
"""

import itertools
import random
import threading
import time
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message, Producer

from octane_analytics.sandbox.generator import BROKEN_KINDS, break_event

_TURN_SECONDS = 0.02
_APPS = ("openstream", "octane-live", "kidsplay")
_NAMES = ("video_start", "video_heartbeat", "video_buffering", "video_end", "search")
_KINDS = (*BROKEN_KINDS, "tombstone")


class Load:
    """Producer thread that runs between `resume` and `pause`; numbers start at 0 and have no gaps.

    The number is the record's key, and `properties.event_id` of a valid event.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, partitions: int, rate: float, seed: int
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._partitions = partitions
        self._rate = rate
        self._random = random.Random(seed)
        self._kinds = itertools.cycle(_KINDS)
        self._producer = self._new_producer()
        self._thread: threading.Thread | None = None
        self._should_pause = threading.Event()
        self.poison_ratio = 0.0
        self.is_poison = bytearray()
        """Flags by number: 1 for an invalid record."""
        self.is_acknowledged = bytearray()
        """Flags by number: 1 once the broker has acknowledged the record."""
        self.failures: dict[str, int] = {}
        """Records whose fate is unknown, by librdkafka's reason."""

    @property
    def sent(self) -> int:
        return len(self.is_poison)

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def resume(self) -> None:
        """Start or continue to produce."""
        assert self._thread is None, "it produces already"
        self._should_pause.clear()
        self._thread = threading.Thread(target=self._produce, name="load", daemon=True)
        self._thread.start()

    def pause(self, flush_seconds: float = 60.0) -> None:
        """Stop producing; block until every record is acknowledged or has failed."""
        if self._thread is not None:
            self._should_pause.set()
            self._thread.join()
            self._thread = None
        left = self._producer.flush(flush_seconds)
        assert left == 0, f"{left} records were not answered for in {flush_seconds:g} s"

    def renew(self) -> None:
        """Replace the producer after the topic was recreated: its log does not know the old one."""
        assert self._thread is None, "pause first"
        self._producer = self._new_producer()

    def burst(self, records: int) -> None:
        """Send that many at once from the caller's thread; `pause` first."""
        assert self._thread is None, "pause first"
        for _ in range(records):
            self._send_one()
        self.pause()

    def _new_producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 10,
                # Unlimited: an outage of the broker must not make gaps.
                "message.timeout.ms": 0,
                "topic.metadata.refresh.interval.ms": 1000,
                "reconnect.backoff.max.ms": 500,
                "allow.auto.create.topics": False,
                # Messages about a broker that was killed on purpose are noise.
                "log_level": 0,
            }
        )

    def _produce(self) -> None:
        started, done = time.monotonic(), 0
        while not self._should_pause.is_set():
            wanted = int((time.monotonic() - started) * self._rate)
            for _ in range(wanted - done):
                self._send_one()
            done = wanted
            self._producer.poll(0)
            self._should_pause.wait(_TURN_SECONDS)

    def _send_one(self) -> None:
        number = self.sent
        value: bytes | None = _event(number)
        is_poison = self._random.random() < self.poison_ratio
        if is_poison:
            kind = next(self._kinds)
            value = None if kind == "tombstone" else break_event(_event(number), kind)
        self.is_poison.append(is_poison)
        self.is_acknowledged.append(0)
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=value,
                    key=b"%d" % number,
                    partition=number % self._partitions,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures[error.name()] = self.failures.get(error.name(), 0) + 1
            return
        key = message.key()
        assert key is not None
        self.is_acknowledged[int(key)] = 1


def _event(number: int) -> bytes:
    now = datetime.now(UTC)
    return (
        f'{{"app_id":"{_APPS[number % len(_APPS)]}","event_name":"{_NAMES[number % len(_NAMES)]}",'
        f'"user_id":"user_{number % 1000:06d}","timestamp":"{now:%Y-%m-%dT%H:%M:%S}.'
        f'{now.microsecond // 1000:03d}Z","properties":{{"event_id":"{number}",'
        f'"session_id":"s-{number % 500:06d}","network_type":"5g","client_version":"1.2.0"}}}}'
    ).encode()
