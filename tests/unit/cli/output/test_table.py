import click
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.output.table import aligned, wrapped, wrapped_list

NUMBERS = st.integers(0, 10**15).map(lambda number: f"{number:,}")
WORDS = st.text("abc-é", max_size=30)


def test_columns_align_with_numbers_to_the_right() -> None:
    assert list(aligned(("n", "name"), [("1", "a"), ("234", "bc")], right=1)) == [
        "  n  name",
        "  1  a",
        "234  bc",
    ]


def test_styles_have_no_width() -> None:
    styled = click.style("up", fg="green")
    head, row = aligned(("state", "lag"), [(styled, "7")], numbers={"lag"})
    assert (head, click.unstyle(row)) == ("state  lag", "up       7")


def test_narrow_table_drops_columns_in_order() -> None:
    rows = [("partition-one", "12345678", "1234567", "some text")]
    headings = ("name", "first", "second", "text")
    dropped = ("second", "first")
    wide = next(aligned(headings, rows, numbers=("first", "second"), width=80, drop=dropped))
    assert wide.split() == ["name", "first", "second", "text"]
    less = next(aligned(headings, rows, numbers=("first", "second"), width=35, drop=dropped))
    assert less.split() == ["name", "first", "text"]
    least = next(aligned(headings, rows, numbers=("first", "second"), width=24, drop=dropped))
    assert least.split() == ["name", "text"]


def test_last_column_of_text_is_shortened() -> None:
    lines = list(aligned(("n", "owner"), [("1", "a-very-long-name@host")], right=1, width=12))
    assert lines == ["n  owner", "1  a-very-l…"]


@given(st.lists(st.tuples(WORDS, NUMBERS, NUMBERS, WORDS), min_size=1), st.integers(20, 120))
def test_table_fits_its_width_and_keeps_numbers(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    lines = list(
        aligned(
            ("name", "first", "lag", "text"),
            rows,
            numbers=("first", "lag"),
            width=width,
            drop=("first", "name"),
        )
    )
    lag = max(len(row[2]) for row in rows)
    assert max(map(len, lines)) <= max(width, lag + 2 + len("text"))
    for line, row in zip(lines[1:], rows, strict=True):
        assert row[2] in line


@given(
    st.lists(st.text("ab-,", min_size=1, max_size=20), min_size=1),
    st.integers(24, 100),
    st.integers(0, 60),
)
def test_wrapped_text_keeps_its_words(words: list[str], width: int, indent: int) -> None:
    first = "OK".ljust(min(indent, width))
    text = wrapped(" ".join(words), width, first=first, indent=indent)
    output = text.removeprefix("OK")
    assert "".join(output.split()) == "".join(words)
    assert all(word in output for word in words if "," not in word)
    assert max(map(len, text.splitlines())) <= width


@given(st.lists(NUMBERS, min_size=2), st.integers(24, 40))
def test_wrapped_text_breaks_no_number(numbers: list[str], width: int) -> None:
    text = f"{' of '.join(numbers)} records"
    assert " ".join(wrapped(text, width).split()) == text


def test_wrapped_list_continues_after_a_comma() -> None:
    assert wrapped("b1.example.com:9092,b2.example.com:9092", 30) == (
        "b1.example.com:9092,\nb2.example.com:9092"
    )


@given(
    st.lists(st.lists(NUMBERS | st.text("abc-é", min_size=1, max_size=9), min_size=1, max_size=4)),
    st.integers(24, 90),
)
def test_wrapped_list_keeps_its_parts(words: list[list[str]], width: int) -> None:
    parts = ["healthy", *map(" ".join, words)]
    text = wrapped_list(parts, width)
    assert " ".join(text.split("\n")) == ", ".join(parts)
    if max(map(len, parts)) < width:
        assert max(map(len, text.splitlines())) <= width
        assert all(line.endswith(",") for line in text.splitlines()[:-1])


def test_text_without_a_width_is_one_line() -> None:
    assert wrapped("a " * 100, None, first="> ") == "> " + "a " * 100
