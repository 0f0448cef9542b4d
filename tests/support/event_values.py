"""Hypothesis strategies of record values: events in every shape, near events, and anything else."""

from hypothesis import strategies as st

FIELDS = (b"app_id", b"event_name", b"user_id", b"timestamp", b"properties")

_space = st.sampled_from([b"", b"", b" ", b"\n", b"\r\n\t "])
_character = st.characters(exclude_categories=["Cs"], exclude_characters='"\\')
_plain = st.text(_character, max_size=12).map(
    lambda text: "".join(c if c >= " " else " " for c in text).encode()
)
_unit = st.integers(0, 0xD7FF) | st.integers(0xE000, 0xFFFF)
_escape = (
    st.sampled_from([b'\\"', b"\\\\", b"\\/", b"\\b", b"\\f", b"\\n", b"\\r", b"\\t"])
    | _unit.map(lambda unit: b"\\u%04x" % unit)
    | st.tuples(st.integers(0xD800, 0xDBFF), st.integers(0xDC00, 0xDFFF)).map(
        lambda pair: b"\\u%04X\\u%04x" % pair
    )
)
_content = st.lists(_plain | _escape, max_size=4).map(b"".join)


def _quoted(content: bytes) -> bytes:
    return b'"' + content + b'"'


strings = _content.map(_quoted)
_texts = st.tuples(_content, st.sampled_from([b"a", b"\\u0000", "é".encode()])).map(
    lambda parts: _quoted(b"".join(parts))
)
_numbers = st.tuples(
    st.sampled_from([b"", b"-"]),
    st.sampled_from([b"0", b"7", b"10", b"9" * 30]),
    st.sampled_from([b"", b"", b".0", b".25"]),
    st.sampled_from([b"", b"", b"e5", b"E+400", b"e-09"]),
).map(b"".join)


def _joined(parts: list[bytes], space: bytes) -> bytes:
    return (space + b"," + space).join(parts)


def _members(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    member = st.tuples(strings, _space, values).map(
        lambda parts: parts[0] + parts[1] + b":" + parts[1] + parts[2]
    )
    return st.tuples(st.lists(member, max_size=3), _space).map(
        lambda parts: b"{" + parts[1] + _joined(*parts) + parts[1] + b"}"
    )


json_values = st.recursive(
    strings | _numbers | st.sampled_from([b"true", b"false", b"null", b"{}", b"[]"]),
    lambda inner: (
        _members(inner)
        | st.tuples(st.lists(inner, max_size=3), _space).map(
            lambda parts: b"[" + parts[1] + _joined(*parts) + parts[1] + b"]"
        )
    ),
    max_leaves=8,
)
_objects = _members(json_values)


@st.composite
def _timestamps(draw: st.DrawFn) -> bytes:
    """Return a timestamp, of which some do not exist or are out of range."""
    year = draw(st.sampled_from([0, 1, 1969, 1970, 2000, 2024, 2026, 2100, 2106, 9999]))
    month, day = draw(st.integers(1, 12)), draw(st.integers(1, 31))
    hour, minute, second = (
        draw(st.integers(0, 23)),
        draw(st.integers(0, 59)),
        draw(st.integers(0, 60)),
    )
    fraction = draw(st.sampled_from(["", "", ".5", ".123456789", "." + "1" * 70]))
    offset = draw(
        st.sampled_from(["Z", "Z", "z", "+00:00", "-00:00", "+05:30", "-23:59", "+24:00"])
    )
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}"
    return _quoted(_respelled(draw, text.encode()))


def _respelled(draw: st.DrawFn, text: bytes) -> bytes:
    """Return the content of a JSON string with one character escaped, now and then."""
    at = draw(st.integers(0, 8 * len(text)))
    if at >= len(text):
        return text
    return text[:at] + b"\\u%04x" % text[at] + text[at + 1 :]


_GOOD = st.sampled_from(
    [b'"2026-02-02T12:00:00.000Z"', b'"2026-02-02T12:00:00+01:00"', b'"1999-12-31t23:59:59z"']
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Return an event; valid but for some timestamps."""
    names = [*FIELDS[:4], *draw(st.sampled_from([(), (b"properties",), (b"properties",)]))]
    names += draw(st.lists(st.sampled_from([*FIELDS, b"app_i", b"Timestamp", b""]), max_size=2))
    space, members = draw(_space), []
    for name in draw(st.permutations(names)):
        match name:
            case b"properties":
                value = draw(_objects | st.just(b"null"))
            case b"timestamp":
                value = draw(_GOOD | _timestamps())
            case b"app_id" | b"event_name" | b"user_id":
                value = draw(_texts)
            case _:
                value = draw(json_values)
        members.append(
            _quoted(_respelled(draw, name)) + space + b":" + draw(_space) + value + space
        )
    return space + b"{" + space + b",".join(members) + b"}" + space


_PIECES = [
    *(bytes([byte]) for byte in b'{}[]",:\\/uetfnsTZz.+-0189 \n\t\x00\x1f\x7f'),
    *(bytes([byte]) for byte in b"\x80\xc0\xc3\xe0\xed\xf0\xf4\xff"),
    *(b"\\ud800", b"\\udc00", b"\\u12", b"\\x", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"),
    *(b"null", b"true", b"NaN", b"1e5", b"01", b'""', b'"x":1,', b"\xef\xbb\xbf", b":60", b"0000-"),
]


@st.composite
def near_events(draw: st.DrawFn) -> bytes:
    """Return an event with up to three bytes or pieces changed, removed or inserted."""
    value = draw(events())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        removed = draw(st.sampled_from([0, 0, 1, 1, 2, 9, len(value)]))
        piece = draw(st.sampled_from(_PIECES) | st.just(b"") | st.binary(min_size=1, max_size=1))
        value = value[:at] + piece + value[at + removed :]
    return value


record_values = events() | near_events() | st.binary(max_size=80) | st.none() | json_values
