"""Throttling of librdkafka.s log: every message is logged, none floods the log."""

import logging

from octane_analytics.kafka.log_throttle import LogThrottle

REFUSED = "Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after %dms in state CONNECT)"


class Log:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self._throttle = LogThrottle(self._write, lambda: self.now)

    def _write(self, level: int, message: str, *arguments: object) -> None:
        self.lines.append(message % arguments)

    def write(self, text: str, level: int = logging.ERROR) -> None:
        self._throttle.log(level, "%s [%s] %s", "FAIL", "consumer-1", text)


def test_repeated_message_is_logged_twice_a_minute() -> None:
    log = Log()
    for milliseconds in range(35):
        log.write(REFUSED % milliseconds)
    assert log.lines == [f"FAIL [consumer-1] {REFUSED % 0}"]
    log.now += 30.0
    log.write(REFUSED % 7)
    log.write(REFUSED % 8)
    assert log.lines[1:] == [f"FAIL [consumer-1] {REFUSED % 7} (34 more like it)"]


def test_different_messages_are_logged_at_once() -> None:
    log = Log()
    log.write(REFUSED % 0)
    log.write("SASL authentication error (after 3ms in state AUTH_REQ)")
    log.write("100% wrong")
    assert len(log.lines) == 3


def test_debug_messages_are_all_logged() -> None:
    log = Log()
    for _ in range(3):
        log.write("Fetch topic events [0]", logging.DEBUG)
    assert len(log.lines) == 3


def test_ever_different_messages_take_bounded_memory() -> None:
    log = Log()
    for number in range(1000):
        log.write(f"broker {number} is unreachable")
    assert len(log.lines) == 1000
    assert len(log._throttle._logged) <= 100
