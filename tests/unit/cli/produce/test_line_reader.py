import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.produce.line_reader import Line, TooLong, read_lines


def _always(descriptor: int, seconds: float) -> bool:
    return True


def _read(data: bytes, **options: int) -> list[Line]:
    return list(_lines(data, **options))


def _lines(data: bytes, **options: int) -> Iterator[Line]:
    descriptor = os.memfd_create("lines")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield from read_lines(descriptor, _always, **options)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb\r", [b"a", b"b"]),
        (b"\n\n", [b"", b""]),
        (b"\xff\x00\n", [b"\xff\x00"]),
    ],
)
def test_lines_are_yielded_without_their_ends(data: bytes, lines: list[bytes]) -> None:
    assert _read(data) == lines


def test_line_larger_than_a_read_is_whole() -> None:
    large = b"x" * 1_000_000
    assert _read(b"a\n" + large + b"\nb") == [b"a", large, b"b"]


@pytest.mark.parametrize("end", [b"\nb\n", b""])
def test_line_beyond_the_limit_is_skipped(end: bytes) -> None:
    lines = _read(b"a\n" + b"x" * 1_000_000 + end, max_line_bytes=500_000)
    assert lines == [b"a", TooLong(1_000_000), *([b"b"] if end else [])]


def test_reader_without_data_yields_none() -> None:
    readable = iter([False, True, True])
    reading, writing = os.pipe()
    os.write(writing, b"a\n")
    os.close(writing)
    lines = list(read_lines(reading, lambda descriptor, seconds: next(readable)))
    os.close(reading)
    assert lines == [None, b"a"]


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=20))
def test_joined_lines_are_split_again(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert _read(data) == [line.removesuffix(b"\r") for line in lines]
