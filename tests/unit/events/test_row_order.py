"""Order of packed rows: the same as Python's sort, whatever the chunks; invalid packing is refused."""

import random
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.clickhouse import schema
from octane_analytics.events import row_order
from octane_analytics.events.packed_columns import PackedColumn, SecondsColumn, new_columns
from tests.support.compiled import require_compiled

require_compiled("_ordering")

from octane_analytics.events import _ordering  # noqa: E402  # after the requirement

Row = tuple[int, bytes, bytes, bytes, bytes]
SECONDS = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
# Few and often equal keys, prefixes of one another, bytes above ASCII, and lengths of two-byte varints.
TEXTS = st.one_of(
    st.sampled_from([b"", b"a", b"ab", b"a\x00", b"a\xc3\xa9", b"a\xff", b"b" * 127, b"b" * 128]),
    st.binary(max_size=40),
)
ROWS = st.lists(st.tuples(SECONDS, TEXTS, TEXTS, TEXTS, st.binary(max_size=300)), max_size=60)
PIECE_BYTES = 256 << 10


def _columns(rows: Sequence[Row], *cuts: int) -> tuple[PackedColumn[Any], ...]:
    """Return the rows packed, each column in its own chunks."""
    columns = new_columns()
    for number, column in enumerate(columns):
        values = [row[number] for row in rows]
        places = sorted({0, len(rows), *(cut * (number + 1) % (len(rows) + 1) for cut in cuts)})
        for first, end in pairwise(places):
            column.extend(values[first:end])
    return columns


def _order(columns: Sequence[PackedColumn[Any]]) -> list[int] | None:
    chunks = [column.chunks for column in columns[:3]]
    packed = _ordering.row_order(chunks[0], chunks[1], chunks[2], len(columns[0]))
    return None if packed is None else list(struct.unpack(f"={len(packed) // 4}I", packed))


def _written(column: PackedColumn[Any], order: Sequence[int]) -> list[Any]:
    pieces: list[bytes] = []
    row_order.write_in_order(column, struct.pack(f"={len(order)}I", *order), pieces.append)
    written = type(column)()
    written.append_packed(b"".join(pieces), len(order))
    return list(written)


def _expected(rows: Sequence[Row]) -> list[int]:
    return sorted(range(len(rows)), key=lambda row: (rows[row][1], rows[row][2], rows[row][0]))


def _check(rows: Sequence[Row], *cuts: int) -> None:
    columns, expected = _columns(rows, *cuts), _expected(rows)
    order = _order(columns)
    if expected == list(range(len(rows))):
        assert order is None, "the rows are in order already"
        return
    assert order == expected
    for number, column in enumerate(columns):
        assert _written(column, order) == [rows[row][number] for row in expected]
        assert list(column) == [row[number] for row in rows], "the column stays as it was"


def test_order_is_that_of_the_tables_key() -> None:
    assert ", ".join(row_order.KEY) == schema.SORTING_KEY


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_order_equals_stable_sort(rows: list[Row], cuts: list[int]) -> None:
    _check(rows, *cuts)


@pytest.mark.parametrize("groups", [1, 255, 256, 257, 5_000])
@pytest.mark.parametrize("span", [1, 2_047, 2_048, 2**22 - 1, 2**32 - 1])
def test_order_of_many_rows_equals_stable_sort(groups: int, span: int) -> None:
    draw = random.Random(groups * span)
    _check(
        [
            (
                draw.randint(2**32 - 1 - span, 2**32 - 1),
                b"app-%d" % draw.randrange(groups),
                b"event" * draw.randrange(2),
                b"user-%d" % row,
                b"{}",
            )
            for row in range(6_000)
        ],
        1_000,
        2_500,
    )


def test_sorted_rows_have_no_order() -> None:
    rows = [(row % 100 // 7, b"a", b"e%03d" % (row // 100), b"u", b"{}") for row in range(1_000)]
    assert _order(_columns(rows)) is None
    assert _order(_columns([])) is None


def test_large_values_are_written_in_pieces() -> None:
    sizes = [10, PIECE_BYTES - 9, 3 * PIECE_BYTES, 0, 100_000, 200_000, 1]
    column = _columns([(0, b"a", b"e", b"u", b"x" * size) for size in sizes])[4]
    pieces: list[bytes] = []
    order = list(reversed(range(len(sizes))))
    row_order.write_in_order(column, struct.pack(f"={len(order)}I", *order), pieces.append)
    written = type(column)()
    written.append_packed(b"".join(pieces), len(sizes))
    assert [len(value) for value in written] == sizes[::-1]
    assert all(len(piece) <= PIECE_BYTES or piece.count(b"x") == sizes[2] for piece in pieces)
    assert len(pieces) > 2


def test_errors_of_the_writer_are_raised() -> None:
    columns = _columns([(1, b"b", b"e", b"u", b"{}"), (0, b"a", b"e", b"u", b"{}")])

    def refuse(piece: bytes) -> None:
        raise ConnectionResetError(piece)

    for column in columns:
        with pytest.raises(ConnectionResetError):
            row_order.write_in_order(column, struct.pack("=2I", 1, 0), refuse)


def test_column_that_changes_meanwhile_is_written_whole() -> None:
    column = _columns([(0, b"a", b"e", b"u", b"x" * 200_000)] * 20, 3, 7)[4]
    size, pieces = sum(map(len, column.chunks)), 0

    def write(piece: bytes) -> None:
        nonlocal pieces
        pieces += len(piece)
        column.chunks.clear()

    row_order.write_in_order(column, struct.pack("=20I", *range(20)), write)
    assert pieces == size


@pytest.mark.parametrize(
    ("chunks", "rows", "problem"),
    [
        ([b""], 1, "not as many"),
        ([b"\x01a"], 2, "not as many"),
        ([b"\x01a", b"\x01b"], 1, "not as many"),
        ([b"\x01"], 1, "truncated"),
        ([b"\x02a"], 1, "truncated"),
        ([b"\x80"], 1, "truncated"),
        ([b"\x02a", b"b"], 1, "truncated"),
        ([b"\x80" * 9 + b"\x01"], 1, "truncated"),
        ([b"\xff" * 10], 1, "truncated"),
        ([b"\xff" * 9 + b"\x01abc"], 1, "truncated"),
        ([b"\x80" * 100], 1, "truncated"),
    ],
)
def test_invalid_texts_are_refused(chunks: list[bytes], rows: int, problem: str) -> None:
    seconds, texts = [bytes(4 * rows)], [b"\x01a" * rows]
    for arguments in ((seconds, chunks, texts), (seconds, texts, chunks)):
        with pytest.raises(ValueError, match=problem):
            _ordering.row_order(*arguments, rows)
    with pytest.raises(ValueError, match=problem):
        _ordering.write_texts(chunks, struct.pack(f"={rows}I", *range(rows)), print)


@pytest.mark.parametrize("chunks", [[], [b"abc"], [b"abcd", b"efgh"], [b"abcde"], [b"ab", b"cd"]])
def test_invalid_seconds_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"truncated|not as many"):
        _ordering.row_order(chunks, [b"\x01a"], [b"\x01a"], 1)
    with pytest.raises(ValueError, match=r"truncated|not as many"):
        _ordering.write_seconds(chunks, struct.pack("=I", 0), print)


@pytest.mark.parametrize("rows", [-1, 2**32, 2**62])
def test_impossible_number_of_rows_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="number of rows"):
        _ordering.row_order([b""], [b""], [b""], rows)
    with pytest.raises(ValueError, match="not as many"):
        _ordering.row_order([b""], [b""], [b""], 2**32 - 1)


@pytest.mark.parametrize("order", [b"\x00", struct.pack("=2I", 0, 2), b"\xff" * 8])
def test_invalid_order_is_refused(order: bytes) -> None:
    for write in (_ordering.write_texts, _ordering.write_seconds):
        with pytest.raises(ValueError, match="order"):
            write([b"\x01a\x01b"], order, print)


def test_other_types_are_refused() -> None:
    not_bytes: Any = ["text"]
    no_list: Any = (b"\x01a",)
    for chunks in (not_bytes, no_list):
        with pytest.raises(TypeError, match="list of bytes"):
            _ordering.row_order([bytes(4)], chunks, [b"\x01a"], 1)
        with pytest.raises(TypeError, match="list of bytes"):
            _ordering.write_texts(chunks, bytes(4), print)


@given(
    chunks=st.lists(st.lists(st.binary(max_size=24), max_size=4), min_size=3, max_size=3),
    rows=st.integers(0, 12),
)
def test_any_bytes_are_ordered_or_refused(chunks: list[list[bytes]], rows: int) -> None:
    try:
        order = _ordering.row_order(chunks[0], chunks[1], chunks[2], rows)
    except ValueError:
        return
    assert order is None or sorted(struct.unpack(f"={rows}I", order)) == list(range(rows))


def test_small_and_unpacked_blocks_are_not_sorted() -> None:
    rows: list[Row] = [(0, b"b", b"e", b"u", b"{}"), (0, b"a", b"e", b"u", b"{}")]
    many = rows * (row_order.MIN_ROWS // 2)
    assert row_order.sorting_order(_columns(many)) is not None
    assert row_order.sorting_order(_columns(many[1:])) is None
    assert row_order.sorting_order([list(column) for column in _columns(many)]) is None
    assert row_order.sorting_order([SecondsColumn([0] * 500), *_columns(many)[1:4], ["{}"]]) is None


def test_rows_stay_as_they_are_without_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [(0, b"b", b"e", b"u", b"{}"), (0, b"a", b"e", b"u", b"{}")]
    monkeypatch.setattr(row_order, "_ordering", None)
    assert row_order.sorting_order(_columns(rows * row_order.MIN_ROWS)) is None
