"""Reader of the server's exceptions, with code, message and stack trace separate.

The driver joins message and stack trace into one text and refuses bytes that are not UTF-8. A message
quotes values of rows, so it may contain any text, even cut in the middle of a character.
"""

from typing import Any

from clickhouse_driver import errors as driver_errors
from clickhouse_driver.reader import read_binary_bytes, read_binary_int32, read_binary_uint8

_CLASS = "DB::Exception"


def read_exception(source: Any) -> driver_errors.ServerException:
    """Read the body of one Exception packet; the message has no stack trace and no class name."""
    code = read_binary_int32(source)
    name, message, _trace = (_read_text(source) for _ in range(3))
    nested = None
    if read_binary_uint8(source):
        nested = read_exception(source)
    message = message.removeprefix(f"{_CLASS}: ")
    if name != _CLASS:
        message = f"{name}. {message}"
    return driver_errors.ServerException(message, code, nested=nested)


def _read_text(source: Any) -> str:
    return bytes(read_binary_bytes(source)).decode(errors="backslashreplace")
