"""Records and commits with any bytes, sent through librdkafka's C API as C and Rust clients do."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import cimpl

_TIMEOUT_MS = 10_000
# Tags of rd_kafka_producev's arguments: rd_kafka_vtype_t in rdkafka.h.
_END, _TOPIC, _PARTITION, _VALUE, _KEY, _MESSAGE_FLAGS, _TIMESTAMP, _HEADERS = (
    0,
    1,
    3,
    4,
    5,
    7,
    8,
    10,
)
_COPY = 2
_PRODUCER, _CONSUMER = 0, 1


@dataclass(frozen=True)
class RawRecord:
    value: bytes | None = b"{}"
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp_ms: int = 0
    """Timestamp in milliseconds; 0 is now."""


def produce_raw(
    bootstrap_servers: str, topic: bytes, records: Sequence[RawRecord], *, partition: int = 0
) -> None:
    """Send the records in their order; raise AssertionError unless each is delivered."""
    library, client = _client(_PRODUCER, {b"bootstrap.servers": bootstrap_servers.encode()})
    try:
        for record in records:
            code = library.rd_kafka_producev(client, *_arguments(library, topic, partition, record))
            assert code == 0, f"rd_kafka_producev: {code}"
            # One batch each: the first undelivered one is not hidden by those after it.
            assert library.rd_kafka_flush(client, _TIMEOUT_MS) == 0
    finally:
        library.rd_kafka_destroy(client)


class _TopicPartition(ctypes.Structure):
    """First fields of rd_kafka_topic_partition_t."""

    _fields_ = (
        ("topic", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("metadata", ctypes.c_void_p),
        ("metadata_size", ctypes.c_size_t),
    )


def commit_raw(
    bootstrap_servers: str, topic: bytes, group: bytes, offset: int, metadata: bytes
) -> None:
    """Commit partition 0 with any metadata."""
    config = {b"bootstrap.servers": bootstrap_servers.encode(), b"group.id": group}
    library, client = _client(_CONSUMER, config)
    try:
        offsets = ctypes.c_void_p(library.rd_kafka_topic_partition_list_new(1))
        partition = _TopicPartition.from_address(
            library.rd_kafka_topic_partition_list_add(offsets, topic, 0)
        )
        libc: Any = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        partition.offset = offset
        partition.metadata, partition.metadata_size = libc.strdup(metadata), len(metadata)
        assert library.rd_kafka_commit(client, offsets, 0) == 0
        library.rd_kafka_topic_partition_list_destroy(offsets)
    finally:
        library.rd_kafka_destroy(client)


def _client(kind: int, config: Mapping[bytes, bytes]) -> tuple[Any, ctypes.c_void_p]:
    """Yield librdkafka and a client, which is destroyed at the end."""
    library: Any = ctypes.CDLL(cimpl.__file__)
    for name in (
        "rd_kafka_conf_new",
        "rd_kafka_new",
        "rd_kafka_headers_new",
        "rd_kafka_topic_partition_list_new",
        "rd_kafka_topic_partition_list_add",
    ):
        getattr(library, name).restype = ctypes.c_void_p
    problem = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    for key, value in config.items():
        library.rd_kafka_conf_set(conf, key, value, problem, len(problem))
    client = ctypes.c_void_p(library.rd_kafka_new(kind, conf, problem, len(problem)))
    assert client, problem.value
    return library, client


def _arguments(library: Any, topic: bytes, partition: int, record: RawRecord) -> list[Any]:
    arguments: list[Any] = [_TOPIC, topic, _PARTITION, ctypes.c_int32(partition)]
    arguments += [_MESSAGE_FLAGS, _COPY]
    if record.value is not None:
        arguments += [_VALUE, record.value, ctypes.c_size_t(len(record.value))]
    if record.key is not None:
        arguments += [_KEY, record.key, ctypes.c_size_t(len(record.key))]
    if record.timestamp_ms:
        arguments += [_TIMESTAMP, ctypes.c_int64(record.timestamp_ms)]
    if record.headers:
        headers = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(8)))
        for name, value in record.headers:
            size = 0 if value is None else len(value)
            library.rd_kafka_header_add(
                headers, name, ctypes.c_ssize_t(len(name)), value, ctypes.c_ssize_t(size)
            )
        arguments += [_HEADERS, headers]
    return [*arguments, _END]
