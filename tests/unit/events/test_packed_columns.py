"""Packed columns: round trips, and the server's packing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.events.event import Row
from octane_analytics.events.packed_columns import (
    PackedColumn,
    SecondsColumn,
    TextColumn,
    new_columns,
    pack_bytes,
    pack_seconds,
    pack_text,
    pack_texts,
)

# Lengths around those at which the varint becomes longer.
LENGTHS = [0, 1, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_152]
texts = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.mark.parametrize(
    ("length", "varint"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_152, b"\x80\x80\x80\x01"),
    ],
)
def test_text_is_packed_after_its_length(length: int, varint: bytes) -> None:
    text = b"x" * length
    assert pack_bytes([text]) == (varint + text, [len(varint)])
    assert pack_text(text.decode()) == varint + text


def test_second_is_four_bytes_little_endian() -> None:
    assert pack_seconds([0, 1, 0x01020304, 2**32 - 1]) == (
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x03\x02\x01\xff\xff\xff\xff"
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_texts_of_any_length_round_trip(length: int) -> None:
    column = TextColumn([b"before", b"x" * length, b"after"])
    assert list(column) == [b"before", b"x" * length, b"after"]


@given(st.lists(st.lists(st.binary(max_size=300))))
def test_text_column_equals_list_of_added_texts(added: list[list[bytes]]) -> None:
    column = TextColumn()
    for more in added:
        column.extend(more)
    texts = [text for more in added for text in more]
    assert list(column) == texts
    assert len(column) == len(texts)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1))))
def test_seconds_column_equals_list_of_added_seconds(added: list[list[int]]) -> None:
    column = SecondsColumn()
    for more in added:
        column += more
    assert list(column) == [second for more in added for second in more]


@given(st.lists(st.binary()), st.lists(st.binary()))
def test_column_extends_by_another_column(left: list[bytes], right: list[bytes]) -> None:
    column, other = TextColumn(left), TextColumn(right)
    column.extend(other)
    assert column == TextColumn(left + right)
    assert list(other) == right
    assert column[:] == left + right


@given(st.lists(texts))
def test_packing_of_texts_equals_packing_of_bytes(values: list[str]) -> None:
    assert pack_texts(values) == pack_bytes([value.encode() for value in values])[0]


@pytest.mark.parametrize("values", [["a" * 127], ["a" * 128], ["é" * 64], ["é" * 127, "a"], [""]])
def test_packing_of_texts_at_its_limits(values: list[str]) -> None:
    assert pack_texts(values) == pack_bytes([value.encode() for value in values])[0]


@given(st.lists(st.binary(max_size=300)))
def test_pack_bytes_returns_start_of_each_text(values: list[bytes]) -> None:
    packed, starts = pack_bytes(values)
    assert [packed[at : at + len(text)] for at, text in zip(starts, values, strict=True)] == values


def test_second_out_of_range_raises() -> None:
    for second in (-1, 2**32):
        with pytest.raises(OverflowError):
            SecondsColumn([second])


def test_new_columns_match_row_fields() -> None:
    columns: tuple[PackedColumn[object], ...] = new_columns()
    assert len(columns) == len(Row._fields)
    assert [len(column) for column in columns] == [0] * len(columns)
    assert [list(column) for column in columns] == [[]] * len(columns)
