"""Adapter of a decoder for single values."""

from collections.abc import Callable, Sequence

from octane_analytics.errors import (
    DecodeError,
)
from octane_analytics.events.event import Decode, Decoded, Row
from octane_analytics.events.packed_columns import new_columns


def each(decode: Callable[[bytes | None], Row]) -> Decode:
    """Return a decoder of many values from a decoder of one."""

    def decode_all(values: Sequence[bytes | None]) -> Decoded:
        columns, invalid = new_columns(), []
        for index, value in enumerate(values):
            try:
                row = decode(value)
            except DecodeError as error:
                invalid.append((index, error.reason, error.detail))
                continue
            for column, value_of in zip(columns, row, strict=True):
                column.extend([value_of.encode() if isinstance(value_of, str) else value_of])
        return Decoded(columns, invalid)

    return decode_all
