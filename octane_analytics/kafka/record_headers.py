"""Record headers, read through librdkafka's C API.

Kafka does not require header names to be UTF-8, and clients in C, C++ and Rust send any bytes. For
such a name confluent-kafka's `Message.headers()` raises SystemError (or leaves an exception for any
later call to raise), drops the name, and keeps a list whose tuples have a NULL in its place; accessing
that ends the process with SIGSEGV. So the headers are read from the C structure that the message holds,
and `headers()` is not called.

The offset of that structure is private to confluent-kafka. It has been the same since headers exist,
and it is compared with the values of the message's accessors before it is used. If they differ, headers
are read with `headers()` without accessing a NULL; names that are not UTF-8 are lost then.
"""

import contextlib
import ctypes
import functools
import logging
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message, cimpl

from octane_analytics.types import Record

_LOG = logging.getLogger(__name__)

Headers = list[tuple[str | bytes, bytes | None]]
"""Names and values; a name that is not UTF-8 is bytes."""

UNREADABLE_NAME = b"\xff"
"""Replacement for a name that confluent-kafka has dropped."""


class _MessageFields(ctypes.Structure):
    """First fields of `Message` in confluent_kafka.h."""

    _fields_ = (
        ("object_head", ctypes.c_char * object.__basicsize__),
        ("topic", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("key", ctypes.c_void_p),
        ("headers", ctypes.c_void_p),
        ("c_headers", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("leader_epoch", ctypes.c_int32),
        ("timestamp", ctypes.c_int64),
    )


_fields_at = _MessageFields.from_address


def headers_of(record: Record) -> Headers:
    """Return the record's headers in their order; empty if it has none. Safe for any bytes, repeatable.

    A name ends at its first NUL byte, as everywhere in librdkafka.
    """
    if not isinstance(record, Message):
        return list(record.headers() or ())
    if not _layout.is_confirmed_by(record):
        return _readable_headers(record)
    fields = _fields_at(id(record))
    if fields.headers is not None:  # headers() was called before
        return _readable_headers(record)
    address = fields.c_headers
    return [] if address is None else _read_headers(address)


class _Layout:
    """Check whether `_MessageFields` describes this build of confluent-kafka.

    Decided by the first record with a timestamp, whose value is unlike any other field's.
    """

    def __init__(self) -> None:
        self._is_confirmed: bool | None = None

    def is_confirmed_by(self, message: Message) -> bool:
        if self._is_confirmed is None and message.timestamp()[1] > 0:
            self._is_confirmed = _is_as_described(message)
            if not self._is_confirmed:
                _LOG.warning(
                    "layout of confluent-kafka's Message unknown; foreign header names lost"
                )
        return self._is_confirmed is True


_layout = _Layout()


def _is_as_described(message: Message) -> bool:
    if Message.__basicsize__ < ctypes.sizeof(_MessageFields):
        return False
    fields = _fields_at(id(message))
    pointers = (
        (fields.topic, message.topic()),
        (fields.value, message.value()),
        (fields.key, message.key()),
        (fields.error, message.error()),
    )
    return (
        all(
            address == id(value) or (value is None and address is None)
            for address, value in pointers
        )
        and fields.partition == message.partition()
        and fields.offset == message.offset()
        and fields.timestamp == message.timestamp()[1]
    )


@functools.cache
def _header_at() -> Callable[..., int]:
    """Return `rd_kafka_header_get_all` of the library that confluent-kafka itself is linked to."""
    function = ctypes.PyDLL(cimpl.__file__).rd_kafka_header_get_all
    function.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_size_t),
    )
    function.restype = ctypes.c_int
    return function


def _read_headers(address: int) -> Headers:
    header_at = _header_at()
    name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    targets = ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
    found: Headers = []
    # It returns an error code for an index after the last header.
    while header_at(address, len(found), *targets) == 0:
        # The pointer is NULL for a null value, and not NULL for an empty one.
        content = None if value.value is None else ctypes.string_at(value.value, size.value)
        found.append((_decoded(name.value or b""), content))
    return found


def _decoded(name: bytes) -> str | bytes:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _readable_headers(message: Message) -> Headers:
    headers: Any = None
    for _ in range(2):  # the second call returns the list that the first has kept, with its gaps
        with contextlib.suppress(SystemError, UnicodeDecodeError):
            # Not message.headers(): once the interpreter has specialized that call, it does not check
            # for an exception beside a result, and a later call raises the exception.
            (headers,) = map(Message.headers, [message])
            break
    found: Headers = []
    for pair in headers or ():
        name, value = _item(pair, 0), _item(pair, 1)
        found.append((UNREADABLE_NAME if name is None else name, value))
    return found


def _item(pair: object, index: int) -> Any:
    """Return the tuple's item; None for a NULL."""
    address = _tuple_item()(pair, index)
    return None if address is None else ctypes.cast(address, ctypes.py_object).value


@functools.cache
def _tuple_item() -> Callable[..., int | None]:
    # A separate prototype: the attributes of ctypes.pythonapi are shared by the whole process.
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_ssize_t)
    return prototype(("PyTuple_GetItem", ctypes.pythonapi))
