"""Records with foreign bytes, which any librdkafka client can send: safety of the accessors."""

import ctypes
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as RawPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from octane_analytics.kafka import record_headers
from octane_analytics.kafka.client import text_of
from octane_analytics.kafka.dlq_producer import KafkaDeadLetters
from octane_analytics.kafka.dlq_topic import DeadLetterTopic
from octane_analytics.kafka.offsets import committed_by
from octane_analytics.kafka.record_headers import Headers, headers_of
from octane_analytics.operations.dead_letter_retry import read_index
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.telemetry.batch_tracing import BatchTracer
from octane_analytics.types import Committed, RejectedRecord, TopicPartition
from tests.support.raw_producer import RawRecord, commit_raw, produce_raw

DEADLINE_SECONDS = 20.0
NOT_UTF8 = b"tr\xffce\xed\xa0\x80"
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KINDS = {
    "plain": RawRecord(b"x", b"k", [(b"a", b"1")]),
    "header name": RawRecord(b"x", b"k", [(NOT_UTF8, b"1"), (b"b", b"2")]),
    "header names": RawRecord(b"x", b"k", [(bytes([n]), None) for n in range(128, 256)]),
    "header name that is empty": RawRecord(b"x", b"k", [(b"", b"")]),
    "header name with NUL": RawRecord(b"x", b"k", [(b"a\0\xff", b"1")]),
    "header value": RawRecord(b"x", b"k", [(b"a", bytes(range(256))), (b"b", None)]),
    "key": RawRecord(b"x", bytes(range(256)), []),
    "value": RawRecord(bytes(range(256)), b"k", []),
    "nulls": RawRecord(None, None, []),
    "empties": RawRecord(b"", b"", []),
    "latest timestamp": RawRecord(b"x", timestamp_ms=2**63 - 1),
    "negative timestamp": RawRecord(b"x", timestamp_ms=-(2**62)),
}
ACCESSORS = ("topic", "partition", "offset", "key", "value", "timestamp", "headers", "error")
UNSAFE = {("header name", "headers"), ("header names", "headers")}
"""Accessors that confluent-kafka 2.x does not survive. Only record_headers may call them."""


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as engine:
        yield engine


def sent(kafka: EmbeddedKafka, records: Sequence[RawRecord]) -> list[Message]:
    """Return the records as a consumer receives them, from a topic of their own."""
    topic = f"foreign-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic, 1)
    produce_raw(kafka.bootstrap_servers, topic.encode(), records)
    return read(kafka, topic, len(records))


def called(message: Message, accessor: str) -> object:
    # With map, which always checks for an exception beside a result.
    return next(map(getattr(Message, accessor), [message]))


def read(kafka: EmbeddedKafka, topic: str, count: int) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "tests", "log_level": 0}
    )
    consumer.assign([RawPartition(topic, 0, 0)])
    found: list[Message] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        found += consumer.consume(count, 0.1)
    consumer.close()
    return found


_PROBE = """
import sys
from confluent_kafka import Consumer, TopicPartition
servers, topic, offset, accessor = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": servers, "group.id": "tests", "log_level": 0})
consumer.assign([TopicPartition(topic, 0, int(offset))])
message = consumer.poll(20)
try:
    next(map(getattr(type(message), accessor), [message]))
except SystemError:
    pass
for name, value in getattr(message, accessor)():
    hash(name)
sys.stdout.write("survived")
"""


def test_only_headers_accessor_breaks_on_foreign_bytes(kafka: EmbeddedKafka) -> None:
    (first, *_) = sent(kafka, list(KINDS.values()))
    topic = first.topic()
    assert topic is not None
    broken = set()
    for kind, message in zip(KINDS, read(kafka, topic, len(KINDS)), strict=True):
        for accessor in ACCESSORS:
            try:
                repr(called(message, accessor))
            except SystemError:
                broken.add((kind, accessor))
    assert broken <= UNSAFE
    for kind, accessor in broken:
        # Accessing the result of the second call ends the process.
        offset = str(list(KINDS).index(kind))
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, kafka.bootstrap_servers, topic, offset, accessor],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (probe.returncode, probe.stdout) != (0, b"survived")


def test_headers_accessor_is_called_in_one_module() -> None:
    package = Path(record_headers.__file__).parents[1]
    pattern = re.compile(r"\b(record|message|Message)\.headers\b")
    callers = {path.name for path in package.rglob("*.py") if pattern.search(path.read_text())}
    assert callers == {"record_headers.py"}


def expected(record: RawRecord) -> Headers:
    found: Headers = []
    for name, value in record.headers:
        until_nul = name.split(b"\0")[0]
        try:
            found.append((until_nul.decode(), value))
        except UnicodeDecodeError:
            found.append((until_nul, value))
    return found


def test_headers_of_survives_every_kind_of_header(kafka: EmbeddedKafka) -> None:
    for message, record in zip(sent(kafka, list(KINDS.values())), KINDS.values(), strict=True):
        assert headers_of(message) == expected(record)
        assert headers_of(message) == expected(record)
        assert (message.key(), message.value()) == (record.key, record.value)


_NAMES = st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode(errors="ignore"))
_RECORDS = st.builds(
    RawRecord,
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(_NAMES, st.none() | st.binary(max_size=20)), max_size=5),
    st.just(0) | st.integers(-(2**63), 2**63 - 1),
)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_RECORDS, min_size=1, max_size=10))
def test_headers_of_any_bytes_are_read(kafka: EmbeddedKafka, records: list[RawRecord]) -> None:
    for message, record in zip(sent(kafka, records), records, strict=True):
        assert headers_of(message) == expected(record)


def test_headers_with_unknown_layout_lose_only_names(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_headers._layout, "_is_confirmed", False)
    for message, record in zip(sent(kafka, list(KINDS.values())), KINDS.values(), strict=True):
        lossy: Headers = [
            (record_headers.UNREADABLE_NAME if isinstance(name, bytes) else name, value)
            for name, value in expected(record)
        ]
        assert headers_of(message) == lossy
        assert headers_of(message) == lossy


def test_headers_survive_call_of_accessor(kafka: EmbeddedKafka) -> None:
    (message,) = sent(kafka, [KINDS["header name"]])
    with pytest.raises(SystemError):
        called(message, "headers")
    assert headers_of(message) == [(record_headers.UNREADABLE_NAME, b"1"), ("b", b"2")]


def test_layout_of_another_class_is_not_confirmed(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = sent(kafka, [KINDS["plain"]])
    assert record_headers._is_as_described(message)
    for name in ("topic", "value", "key", "error", "offset", "timestamp"):
        shifted = list(record_headers._MessageFields._fields_)
        at = [other for other, _ in shifted].index(name)
        shifted.insert(at, ("gap", ctypes.c_int64))
        moved: Any = type("Moved", (ctypes.Structure,), {"_fields_": tuple(shifted)})
        monkeypatch.setattr(record_headers, "_fields_at", moved.from_address)
        assert not record_headers._is_as_described(message), name


def test_trace_of_record_with_foreign_header_is_found(kafka: EmbeddedKafka) -> None:
    headers = [(NOT_UTF8, b"1"), (b"traceparent", TRACEPARENT)]
    (message,) = sent(kafka, [RawRecord(b"x", None, headers)])
    batches = BatchTracer(trace.NoOpTracer(), "group", headers_of)
    assert len(batches.contexts([message], 10)) == 1
    assert len(batches.contexts([message], 10)) == 1


def test_record_with_foreign_headers_is_dead_lettered_complete(kafka: EmbeddedKafka) -> None:
    messages = sent(kafka, list(KINDS.values()))
    dlq = f"dlq-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(dlq, 1)
    config = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none=dlq)
    outlet = KafkaDeadLetters(config, client_id="tests")
    outlet.send([RejectedRecord(message, "not_json", "is not") for message in messages])
    outlet.close()
    for record, dead_letter in zip(KINDS.values(), read(kafka, dlq, len(KINDS)), strict=True):
        headers = headers_of(dead_letter)
        kept = headers[: len(record.headers)]
        assert [value for _, value in kept] == [value for _, value in record.headers]
        assert [name for name, _ in kept] == [
            name.split(b"\0")[0].decode(errors="backslashreplace") for name, _ in record.headers
        ]
        escaped = sum(isinstance(name, bytes) for name, _ in expected(record))
        assert dict(headers).get("octane.escaped_headers") == (
            str(escaped).encode() if escaped else None
        )
        assert (dead_letter.key(), dead_letter.value()) == (record.key, record.value)


def test_dead_letter_topic_with_foreign_records_is_read(kafka: EmbeddedKafka) -> None:
    dlq = f"dlq-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(dlq, 1)
    produce_raw(kafka.bootstrap_servers, dlq.encode(), list(KINDS.values()))
    config = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, dlq_topic_or_none=dlq)
    with DeadLetterTopic(config, client_id="tests") as log:
        index = read_index(log, log.spans())
    assert len(index.messages) == len(KINDS)
    assert {message.reason for message in index.messages} == {"unknown"}


def test_foreign_commit_metadata_counts_as_empty(kafka: EmbeddedKafka) -> None:
    topic = f"foreign-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(topic, 1)
    commit_raw(kafka.bootstrap_servers, topic.encode(), b"group", 3, b"octane;\xff\xfe")
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "group", "log_level": 0}
    )
    partition = TopicPartition(topic, 0)
    (committed,) = committed_by(consumer, "group", [partition]).values()
    consumer.close()
    assert committed == Committed(3, "")


def test_error_with_foreign_bytes_has_text() -> None:
    class Foreign:
        def str(self) -> str:
            return b"no \xffaccess".decode()

    error: Any = Foreign()
    assert text_of(error) == "no \\xffaccess"
