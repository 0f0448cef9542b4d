"""What librdkafka writes to a client's log: each complaint is told, and none of them drowns the rest."""

import logging

from octane_analytics.kafka.log_throttle import LogThrottle

REFUSED = "Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after %dms in state CONNECT)"


class Log:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self._complaints = LogThrottle(self._write, lambda: self.now)

    def _write(self, level: int, message: str, *arguments: object) -> None:
        self.lines.append(message % arguments)

    def tell(self, text: str, level: int = logging.ERROR) -> None:
        self._complaints.log(level, "%s [%s] %s", "FAIL", "consumer-1", text)


def test_same_complaint_is_told_once_in_half_a_minute_and_then_how_often_it_came() -> None:
    log = Log()
    for milliseconds in range(35):
        log.tell(REFUSED % milliseconds)
    assert log.lines == [f"FAIL [consumer-1] {REFUSED % 0}"]
    log.now += 30.0
    log.tell(REFUSED % 7)
    log.tell(REFUSED % 8)
    assert log.lines[1:] == [f"FAIL [consumer-1] {REFUSED % 7} (34 more like it)"]


def test_other_complaints_are_told_at_once() -> None:
    log = Log()
    log.tell(REFUSED % 0)
    log.tell("SASL authentication error (after 3ms in state AUTH_REQ)")
    log.tell("100% wrong")
    assert len(log.lines) == 3


def test_what_was_asked_for_by_debug_is_all_told() -> None:
    log = Log()
    for _ in range(3):
        log.tell("Fetch topic events [0]", logging.DEBUG)
    assert len(log.lines) == 3


def test_complaints_that_differ_each_time_take_no_more_and_more_memory() -> None:
    log = Log()
    for number in range(1000):
        log.tell(f"broker {number} is away")
    assert len(log.lines) == 1000
    assert len(log._complaints._told) <= 100
