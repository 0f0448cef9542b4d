"""All decoders of record values, which must agree."""

from collections.abc import Sequence

from octane_analytics.errors import DecodeError
from octane_analytics.events import decode as in_python
from octane_analytics.events.decoders import AUTO, choose
from octane_analytics.events.event import Decode, Decoded, Row

DECODERS: Sequence[Decode] = list(dict.fromkeys([in_python.decode_all, choose(AUTO).decode]))
"""The decoder in Python, and the compiled one if it is built."""


def facts(decoded: Decoded) -> tuple[list[bytes], list[int], list[tuple[int, str, str]]]:
    """Return everything that one decoder may have different from another."""
    packed = [b"".join(column.chunks) for column in decoded.columns]
    return packed, [len(column) for column in decoded.columns], decoded.invalid


def decode(value: bytes | None) -> Row:
    """Decode with `decode.decode`, and check that all decoders of many values return the same."""
    expected: Row | DecodeError
    try:
        expected = in_python.decode(value)
    except DecodeError as error:
        expected = error
    for decode_all in DECODERS:
        columns, invalid = decode_all([value])
        if isinstance(expected, DecodeError):
            assert [len(column) for column in columns] == [0] * len(columns)
            assert invalid == [(0, expected.reason, expected.detail)]
        else:
            assert invalid == []
            (found,) = zip(*columns, strict=True)
            assert found == (expected[0], *(text.encode() for text in expected[1:4]), expected[4])
    if isinstance(expected, DecodeError):
        raise expected
    return expected
