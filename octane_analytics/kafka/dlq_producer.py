"""Producer of the dead-letter topic."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from confluent_kafka import Producer

from octane_analytics.errors import OctaneError, Unavailable
from octane_analytics.kafka.event_producer import DELIVERY_SECONDS, EventProducer
from octane_analytics.kafka.record_headers import headers_of
from octane_analytics.kafka.topics import check_topic
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import RejectedRecord

_TOO_LARGE = (
    "(MSG_SIZE_TOO_LARGE)",  # for the client, the topic's max.message.bytes, or the broker's
    "(RECORD_LIST_TOO_LARGE)",  # for the topic's segment.bytes
)
_SMALL_BYTES = 1024
"""A part of this size does not make a record too large."""
_MAX_DETAIL_CHARACTERS = 1000
"""Limit of the explanation in a dead-letter message: a server's message may quote whole rows."""


_Part = Literal["value", "headers", "key"]
_PARTS: Final[tuple[_Part, ...]] = ("value", "headers", "key")
"""Parts that are left out, in this order, of a record too large for the dead-letter topic."""


class KafkaDeadLetters:
    """Implements `interfaces.DeadLetters`: sends the original record unchanged, with added headers.

    Producers of confluent-kafka take header names in UTF-8 only: in any other name, each byte that is
    not UTF-8 becomes `\\xNN`, and `octane.escaped_headers` counts such names.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str,
        instrumented: Callable[[Producer], Producer] | None = None,
    ) -> None:
        self._settings = settings
        self._topic = settings.dlq_topic
        self._producer = EventProducer(
            settings, self._topic, client_id=client_id, instrumented=instrumented
        )
        self._is_checked = False

    def send(self, rejected: Sequence[RejectedRecord]) -> None:
        if not self._is_checked:
            # A missing topic would only show as a timeout of every record.
            check_topic(self._settings, self._topic)
            self._is_checked = True
        failed = self._deliver([_DeadLetter(item) for item in rejected])
        if any(map(_is_too_large, failed.values())):
            failed = {
                left: why
                for dead_letter, reason in failed.items()
                for left, why in self._send_alone(dead_letter, reason).items()
            }
        if failed:
            self.close()
            raise Unavailable(
                f"{len(failed)} of {len(rejected)} dead-letter messages were not acknowledged by "
                f"{self._topic}: {next(iter(failed.values()))}"
            )

    def _send_alone(self, dead_letter: "_DeadLetter", reason: str) -> "dict[_DeadLetter, str]":
        """Send the message again, outside the batch that was refused as too large; then without parts.

        The record fitted into its own topic; with our headers it may not fit into this one. Its offset
        identifies the complete record. Return the failure, if any.
        """
        failed = {dead_letter: reason}
        for attempt in dead_letter.reduced():
            if not any(map(_is_too_large, failed.values())):
                break
            failed = self._deliver([attempt])
        return failed

    def _deliver(self, dead_letters: "Sequence[_DeadLetter]") -> "dict[_DeadLetter, str]":
        """Send and wait; return the messages that were not acknowledged, with the reasons."""
        unacknowledged = dict.fromkeys(dead_letters, "no answer in time")

        def settle(dead_letter: _DeadLetter, failure: str | None) -> None:
            if failure is None:
                del unacknowledged[dead_letter]
            else:
                unacknowledged[dead_letter] = failure

        try:
            for dead_letter in dead_letters:
                self._send(dead_letter, functools.partial(settle, dead_letter))
            self._producer.flush(DELIVERY_SECONDS + 1.0)
        except OctaneError:
            self.close()
            raise
        return unacknowledged

    def _send(self, dead_letter: "_DeadLetter", settle: Callable[[str | None], None]) -> None:
        try:
            self._producer.send_record(
                dead_letter.value, dead_letter.key, dead_letter.headers, settle
            )
        except OctaneError as error:
            if not _is_too_large(str(error)):
                raise
            settle(str(error))  # for the client's own message.max.bytes

    def close(self) -> None:
        self._producer.close()
        self._is_checked = False


class _DeadLetter:
    """One dead-letter message: a rejected record, complete or without some parts."""

    def __init__(self, item: RejectedRecord, without: frozenset[_Part] = frozenset()) -> None:
        self._item = item
        self._without = without

    @property
    def key(self) -> bytes | None:
        return None if "key" in self._without else self._item.record.key()

    @property
    def value(self) -> bytes | None:
        return None if "value" in self._without else self._item.record.value()

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Headers of the record, then ours: of two with one name, readers use the last."""
        record = self._item.record
        kept = [] if "headers" in self._without else headers_of(record)
        kind, timestamp_ms = record.timestamp()
        detail = f"{self._item.reason}: {self._item.detail}"[:_MAX_DETAIL_CHARACTERS]
        ours = {
            "error": detail.encode(errors="replace"),
            "topic": (record.topic() or "").encode(),
            "partition": str(record.partition()).encode(),
            "offset": str(record.offset()).encode(),
        }
        if kind:
            # Distinguishes the record from another one at the same offset of a recreated topic.
            ours["timestamp"] = str(timestamp_ms).encode()
        escaped = sum(isinstance(name, bytes) for name, _ in kept)
        if escaped:
            ours["escaped_headers"] = str(escaped).encode()
        sizes = self._sizes() if self._without else {}
        ours |= {f"{part}_bytes": str(sizes[part]).encode() for part in self._without}
        return [
            *((_text(name), value) for name, value in kept),
            *((f"octane.{name}", value) for name, value in ours.items()),
        ]

    def reduced(self) -> "Iterator[_DeadLetter]":
        """Yield the same message, then without its large parts one after another, then without any."""
        sizes = self._sizes()
        yield self
        large = [part for part in _PARTS if sizes[part] > _SMALL_BYTES]
        for count in range(1, len(large) + 1):
            yield _DeadLetter(self._item, frozenset(large[:count]))
        small = frozenset(part for part in _PARTS if sizes[part])
        if len(small) > len(large):
            yield _DeadLetter(self._item, small)

    def _sizes(self) -> dict[_Part, int]:
        record = self._item.record
        headers = headers_of(record)
        return {
            "value": len(record.value() or b""),
            "headers": sum(
                len(_text(name).encode()) + len(value or b"") for name, value in headers
            ),
            "key": len(record.key() or b""),
        }


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="backslashreplace")


def _is_too_large(reason: str) -> bool:
    return any(code in reason for code in _TOO_LARGE)
