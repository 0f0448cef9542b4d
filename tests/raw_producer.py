"""Records with any bytes, produced through librdkafka's C API as clients in C, C++ and Rust do."""

import ctypes
from collections.abc import Sequence
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


@dataclass(frozen=True)
class RawRecord:
    value: bytes | None = b"{}"
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp_ms: int = 0
    """0 is now."""


def produce_raw(
    bootstrap_servers: str, topic: bytes, records: Sequence[RawRecord], *, partition: int = 0
) -> None:
    """Sends the records in their order; raises AssertionError unless each is delivered."""
    library: Any = ctypes.CDLL(cimpl.__file__)
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, name).restype = ctypes.c_void_p
    problem = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    servers = bootstrap_servers.encode()
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", servers, problem, len(problem))
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, problem, len(problem)))
    assert client, problem.value
    try:
        for record in records:
            code = library.rd_kafka_producev(client, *_arguments(library, topic, partition, record))
            assert code == 0, f"rd_kafka_producev: {code}"
            # One batch each: the first undelivered one is not hidden by those after it.
            assert library.rd_kafka_flush(client, _TIMEOUT_MS) == 0
    finally:
        library.rd_kafka_destroy(client)


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
