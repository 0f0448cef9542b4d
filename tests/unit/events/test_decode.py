"""Valid and invalid events, to the byte and to the second."""

import calendar
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octane_analytics.errors import DecodeError
from octane_analytics.events import decode as module
from octane_analytics.events.decode import MAX_DEPTH, MAX_EPOCH_SECONDS, REASONS
from octane_analytics.events.decode import epoch_seconds as epoch_seconds_in_python
from octane_analytics.events.event import Decode, Row
from tests.support.decoders import DECODERS, decode

EVENT: dict[str, Any] = {
    "app_id": "openstream",
    "event_name": "video_buffering",
    "user_id": "user_550e8400",
    "timestamp": "2026-02-02T12:00:00.000Z",
}
NOON = 1_770_033_600


def payload(**changes: object) -> bytes:
    return json.dumps(EVENT | changes).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in EVENT.items() if key != name}).encode()


def spliced(properties: bytes) -> bytes:
    """Return an event whose properties are these bytes."""
    return payload()[:-1] + b', "properties": ' + properties + b"}"


def reason_of(value: bytes | None) -> str:
    with pytest.raises(DecodeError) as raised:
        decode(value)
    assert raised.value.reason in REASONS
    assert raised.value.detail
    return raised.value.reason


def epoch_seconds(text: str) -> int:
    """Parse a timestamp, and check that all decoders return the same."""
    second = epoch_seconds_in_python(text)
    assert decode(payload(timestamp=text)).timestamp == second
    return second


def test_decode_accepts_documented_example() -> None:
    properties = (
        b'{"stream_id": "st-998877", "buffer_duration_ms": 1500, "network_type": "5g", '
        b'"client_version": "1.2.0"}'
    )
    value = (
        b'{"app_id": "openstream", "event_name": "video_buffering", "user_id": "user_550e8400",\n'
        b' "timestamp": "2026-02-02T12:00:00.000Z",\n "properties": ' + properties + b"}\n"
    )
    row = decode(value)
    assert tuple(row) == (NOON, "openstream", "video_buffering", "user_550e8400", properties)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b'{"app_id": "\xff"}', "not_utf8"),
        (spliced(b'{"a": "\xc3"}'), "not_utf8"),
        (spliced(b'{"a": "\xed\xa0\x80"}'), "not_utf8"),
        (b"", "not_json"),
        (b"  ", "not_json"),
        (b"{", "not_json"),
        (payload() + b"x", "not_json"),
        (payload() + payload(), "not_json"),
        (b"\xef\xbb\xbf" + payload(), "not_json"),
        (payload().replace(b'"', b"'"), "not_json"),
        (payload()[:-1] + b",}", "not_json"),
        (payload(app_id="A").replace(b'"A"', b'"\\ud800"'), "bad_unicode"),
        (payload(app_id="A").replace(b'"A"', b'"\x01"'), "not_json"),
        (spliced(b'{"a": "\\ud800"}'), "bad_unicode"),
        (spliced(b'{"a": "\\udc00"}'), "bad_unicode"),
        (spliced(b'{"a": "\\uD83Dx"}'), "bad_unicode"),
        (spliced(b'{"a": "\\ude00\\ud83d"}'), "bad_unicode"),
        (spliced(b'{"a": "\\ud83d\\u0041"}'), "bad_unicode"),
        (spliced(b'{"a": "\\ud83d\\n"}'), "bad_unicode"),
        (spliced(b'{"a": "\\ud83d\\ud83d\\ude00"}'), "bad_unicode"),
        (spliced(b'{"\\ud83d": 1}'), "bad_unicode"),
        (payload()[:-1] + b', "extra": "\\udfff"}', "bad_unicode"),
        (b'{"app_id": "\\ud800"}', "bad_unicode"),
        (spliced(b'{"a": "\\ud800}'), "not_json"),
        (spliced(b'{"a": "\\ud800", "b": }'), "not_json"),
        (spliced(b'{"a": "\\ud800", "b": "\\x"}'), "not_json"),
        (spliced(b'{"a": "\\ud800"}') + b"x", "not_json"),
        (spliced(b'{"a": \\ud800}'), "not_json"),
        (spliced(b"{'a': 1}"), "not_json"),
        (spliced(b'{"a": }'), "not_json"),
        (spliced(b'{"a": NaN}'), "not_json"),
        (spliced(b'{"a": 01}'), "not_json"),
        (spliced(b'{"a": "\\x"}'), "not_json"),
        (spliced(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"12", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"{}", "missing_field"),
        (without("app_id"), "missing_field"),
        (without("event_name"), "missing_field"),
        (without("user_id"), "missing_field"),
        (without("timestamp"), "missing_field"),
        (payload(app_id=None), "wrong_type"),
        (payload(user_id=12), "wrong_type"),
        (payload(event_name=["a"]), "wrong_type"),
        (payload(timestamp=NOON), "wrong_type"),
        (payload(timestamp=None), "wrong_type"),
        (payload(app_id=""), "empty_field"),
        (payload(event_name=""), "empty_field"),
        (payload(user_id=""), "empty_field"),
        (payload(timestamp=""), "bad_timestamp"),
        (payload(timestamp="yesterday"), "bad_timestamp"),
        (payload(timestamp="1969-12-31T23:59:59Z"), "timestamp_out_of_range"),
        (payload(properties=[]), "properties_not_an_object"),
        (payload(properties="{}"), "properties_not_an_object"),
        (payload(properties=0), "properties_not_an_object"),
        (payload(properties=False), "properties_not_an_object"),
    ],
)
def test_decode_rejects_with_reason(value: bytes | None, reason: str) -> None:
    assert reason_of(value) == reason


def test_every_reason_has_an_example() -> None:
    (mark,) = (m for m in _marks(test_decode_rejects_with_reason) if m.name == "parametrize")
    assert {reason for _, reason in mark.args[1]} == set(REASONS)


def _marks(test: object) -> list[pytest.Mark]:
    return list(getattr(test, "pytestmark", []))


@pytest.mark.parametrize("name", ["app_id", "event_name", "user_id"])
def test_decode_names_empty_field(name: str) -> None:
    with pytest.raises(DecodeError, match=name):
        decode(payload(**{name: ""}))


def test_decode_explanation_is_short() -> None:
    long = "9" * 100_000
    for value in (
        payload(timestamp=f"2200-01-01T00:00:00.{long}Z"),
        payload(timestamp=long),
        payload(timestamp=f"2026-01-01T00:00:00.{long}"),
        b'{"' + long.encode() + b'": }',
        payload(app_id={long: long}),
        payload(properties=long),
    ):
        with pytest.raises(DecodeError) as raised:
            decode(value)
        assert len(raised.value.detail) < 300


@pytest.mark.parametrize(
    "properties",
    [
        b"{}",
        b"{ }",
        b"{\n\t }",
        b'{"b" :\t1 , "a":[ 1,2 ]}',
        b'{"a":1,"a":2}',
        '{"name": "日本語 é 😀"}'.encode(),
        b'{"name": "\\u65e5\\ud83d\\ude00 \\/ \\" \\\\"}',
        b'{"n": 1.0, "m": 1e400, "k": -0.0, "big": 123456789012345678901234567890}',
        b'{"deep": ' + b'{"a":' * 60 + b"null" + b"}" * 61,
    ],
)
def test_decode_keeps_properties_byte_for_byte(properties: bytes) -> None:
    assert decode(spliced(properties))[4] == properties


def _nested(levels: int) -> bytes:
    """Return an event whose innermost array or object is in so many others and itself."""
    inner = levels - 2  # the event and its properties
    return spliced(
        b'{"a]": '
        + b'[{"[":' * (inner // 2)
        + b"[" * (inner % 2)
        + b"]" * (inner % 2)
        + (b"null" if inner % 2 == 0 else b"")
        + b"}]" * (inner // 2)
        + b"}"
    )


def _from_frames(frames: int, value: bytes) -> Row:
    return _from_frames(frames - 1, value) if frames else decode(value)


@pytest.mark.parametrize("frames", [0, 300])
@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
def test_nesting_is_valid_from_any_caller(levels: int, frames: int) -> None:
    assert _from_frames(frames, _nested(levels)) == decode(_nested(levels))


@pytest.mark.parametrize("frames", [0, 300])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, MAX_DEPTH + 2, 980, 1200, 100_000])
def test_deeper_nesting_is_rejected(levels: int, frames: int) -> None:
    with pytest.raises(DecodeError, match=f"more than {MAX_DEPTH} levels") as raised:
        _from_frames(frames, _nested(levels))
    assert raised.value.reason == "not_json"


def test_brackets_in_texts_are_no_nesting() -> None:
    properties = b'{"a": "' + b"[{" * MAX_DEPTH + b'\\"["}'
    assert decode(spliced(properties))[4] == properties


def test_decode_drops_space_around_properties() -> None:
    assert decode(spliced(b' \n{"a": 1}\t '))[4] == b'{"a": 1}'


@pytest.mark.parametrize("value", [payload(), payload(properties=None), spliced(b" null ")])
def test_absent_or_null_properties_are_empty_object(value: bytes) -> None:
    assert decode(value)[4] == b"{}"


def test_decode_ignores_unknown_fields() -> None:
    value = payload(version=3, nested={"app_id": "other"}, Timestamp="never")
    assert decode(value) == decode(payload())


def test_decode_uses_last_of_repeated_field() -> None:
    value = payload()[:-1] + b', "user_id": "second"}'
    assert decode(value)[3] == "second"


def test_decode_keeps_space_in_text() -> None:
    assert decode(payload(app_id=" a\u0000\u00a0"))[1] == " a\u0000\u00a0"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-02-02T12:00:00Z", NOON),
        ("2026-02-02T12:00:00.000Z", NOON),
        ("2026-02-02T12:00:00.999999999999Z", NOON),
        ("2026-02-02t12:00:00z", NOON),
        ("2026-02-02T12:00:00+00:00", NOON),
        ("2026-02-02T12:00:00-00:00", NOON),
        ("2026-02-02T13:30:00+01:30", NOON),
        ("2026-02-02T00:15:00.5-11:45", NOON),
        ("2026-02-03T11:59:00+23:59", NOON),
        ("2024-02-29T00:00:00Z", 1_709_164_800),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000+00:00", 0),
        ("1969-12-31T23:59:00-00:01", 0),
        ("1970-01-01T14:00:00+14:00", 0),
        ("2106-02-07T06:28:15Z", MAX_EPOCH_SECONDS),
        ("2106-02-07T06:28:15.999Z", MAX_EPOCH_SECONDS),
        ("2106-02-07T07:28:15.999+01:00", MAX_EPOCH_SECONDS),
    ],
)
def test_timestamp_is_parsed_to_its_second(text: str, seconds: int) -> None:
    assert epoch_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+23:59",
        "2106-02-07T06:28:16Z",
        "2106-02-07T06:28:15-00:01",
        "2200-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_timestamp_out_of_range_is_rejected(text: str) -> None:
    assert reason_of(payload(timestamp=text)) == "timestamp_out_of_range"


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-02",
        "2026-02-02T12:00:00",
        "2026-02-02T12:00:00.Z",
        "2026-02-02T12:00:00,5Z",
        "2026-02-02 12:00:00Z",
        "2026-02-02T12:00Z",
        "2026-02-02T12Z",
        "2026-02-02T12:00:00 Z",
        "2026-02-02T12:00:00Z ",
        " 2026-02-02T12:00:00Z",
        "2026-02-02T12:00:00Z\n",
        "2026-02-02T12:00:00ZZ",
        "2026-02-02T12:00:00+0100",
        "2026-02-02T12:00:00+01",
        "2026-02-02T12:00:00+1:00",
        "2026-02-02T12:00:00+24:00",
        "2026-02-02T12:00:00+01:60",
        "2026-02-02T12:00:00\u221201:00",
        "2026-02-02T12:00:00UTC",
        "2026-02-02T12:00:60Z",
        "2016-12-31T23:59:60",
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31T15:59:60Z",
        "2016-12-31T24:59:60Z",
        "2016-12-32T23:59:60Z",
        "0000-12-31T15:59:60Z",
        "2026-02-02T24:00:00Z",
        "2026-02-02T12:60:00Z",
        "2026-02-30T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "0000-02-30T12:00:00Z",
        "0000-01-01T12:00:00",
        "2025-02-29T12:00:00Z",
        "20260202T120000Z",
        "2026-W06-1T12:00:00Z",
        "2026-033T12:00:00.00Z",
        "+2026-02-02T12:00:0Z",
        "\uff12\uff10\uff12\uff16-02-02T12:00:00Z",
        "2026-02-02T12:00:00.\u0663Z",
        "1770033600",
    ],
)
def test_timestamp_other_than_rfc3339_is_rejected(text: str) -> None:
    for _ in range(2):
        assert reason_of(payload(timestamp=text)) == "bad_timestamp"


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.999z", "2017-01-01T00:00:00Z"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"),
        ("2015-07-01t05:29:60.5+05:30", "2015-07-01T00:00:00Z"),
        ("1969-12-31T23:59:60Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_leap_second_is_following_second(text: str, following: str) -> None:
    second = int(datetime.fromisoformat(following).timestamp())
    for _ in range(2):
        assert epoch_seconds(text) == second
    values = [payload(timestamp=each) for each in (EVENT["timestamp"], text)]
    for decode_all in DECODERS:
        decoded = decode_all(values)
        assert (list(decoded.columns[0]), decoded.invalid) == ([NOON, second], [])


@pytest.mark.parametrize(
    "text", ["0000-01-01T00:00:00Z", "0000-02-29T12:00:00Z", "9999-12-31T23:59:60Z"]
)
def test_timestamp_outside_datetime_is_out_of_range(text: str) -> None:
    assert reason_of(payload(timestamp=text)) == "timestamp_out_of_range"


@given(st.integers(0, MAX_EPOCH_SECONDS // 86_400), st.integers(-1439, 1439), st.booleans())
def test_leap_second_is_valid_only_before_midnight(
    day: int, minutes: int, is_utc_midnight: bool
) -> None:
    before = day * 86_400 - 1 if is_utc_midnight else day * 86_400 + 12 * 3600 - 1
    text = written(before, minutes, None).replace(":59+", ":60+").replace(":59-", ":60-")
    if is_utc_midnight:
        assert epoch_seconds(text) == before + 1
    else:
        assert reason_of(payload(timestamp=text)) == "bad_timestamp"


_ESCAPES = st.lists(
    st.sampled_from(
        [r"\ud83d", r"\ude00", r"\uD800", r"\uDFFF", r"\\", r"\n", r"\u0041", "u", "d8", "x"]
    ),
    max_size=8,
).map("".join)


@given(_ESCAPES, st.sampled_from(["app_id", "key", "value", "unknown"]))
def test_lone_surrogate_escapes_are_bad_unicode(text: str, place: str) -> None:
    has_lone = any("\ud800" <= character <= "\udfff" for character in json.loads(f'"{text}"'))
    quoted = f'"{text}"'.encode()
    value = {
        "app_id": payload(app_id="A").replace(b'"A"', quoted[:-1] + b'."'),
        "key": spliced(b"{" + quoted + b": 1}"),
        "value": spliced(b'{"a": [' + quoted + b"]}"),
        "unknown": payload()[:-1] + b', "extra": ' + quoted + b"}",
    }[place]
    if has_lone:
        assert reason_of(value) == "bad_unicode"
    else:
        decode(value)


_CASES = (Path(__file__).parent / "field_events.ndjson").read_bytes().splitlines()


@pytest.mark.parametrize("value", _CASES)
def test_field_events_are_accepted_or_rejected_as_named(value: bytes) -> None:
    expected = json.loads(value)["properties"]["expect"]
    if expected == "stored":
        assert decode(value).properties in value
    else:
        assert reason_of(value) == expected


def test_timestamp_caches_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for known in (module._seconds, module._tails):
        known.clear()
        monkeypatch.setattr(known, "_max_texts", 50)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(500):
        moment = (start + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S")
        assert epoch_seconds(f"{moment}.{number:06}Z") == int(start.timestamp()) + number
        epoch_seconds(f"{moment}.{'1' * (10_000 + number)}Z")
    for remembered in (module._seconds, module._tails):
        assert 0 < len(remembered) <= 50
        assert max(map(len, remembered)) <= 19


moments = st.integers(0, MAX_EPOCH_SECONDS)
offsets = st.integers(-(24 * 60 - 1), 24 * 60 - 1)
fractions = st.none() | st.text("0123456789", min_size=1, max_size=12)


def written(seconds: int, minutes: int, fraction: str | None) -> str:
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, minutes=minutes)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    part = "" if fraction is None else f".{fraction}"
    return f"{local:%Y-%m-%dT%H:%M:%S}{part}{sign}{hours:02}:{rest:02}"


@given(moments, offsets, fractions)
@example(0, -(24 * 60 - 1), "999")
@example(MAX_EPOCH_SECONDS, 24 * 60 - 1, "999")
def test_timestamp_with_any_offset_is_exact(
    seconds: int, minutes: int, fraction: str | None
) -> None:
    assert epoch_seconds(written(seconds, minutes, fraction)) == seconds


@given(st.integers(-62_135_596_800 + 86_400, 253_402_300_799 - 86_400), offsets)
def test_timestamp_is_in_range_or_rejected(seconds: int, minutes: int) -> None:
    local = datetime(1970, 1, 1) + timedelta(seconds=seconds, minutes=minutes)
    text = f"{local.year:04}-{local:%m-%dT%H:%M:%S}" + written(0, minutes, None)[19:]
    assert calendar.timegm(local.timetuple()) - minutes * 60 == seconds
    if 0 <= seconds <= MAX_EPOCH_SECONDS:
        assert epoch_seconds(text) == seconds
    else:
        with pytest.raises(DecodeError) as raised:
            epoch_seconds(text)
        assert raised.value.reason == "timestamp_out_of_range"


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts.filter(bool) | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
).filter(lambda value: "NaN" not in repr(value))
objects = st.dictionaries(texts, values, max_size=4)


@given(
    texts,
    texts,
    texts,
    moments,
    offsets,
    fractions,
    objects,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]),
    st.permutations(range(5)),
)
def test_decode_round_trips_any_valid_event(
    app_id: str,
    event_name: str,
    user_id: str,
    seconds: int,
    minutes: int,
    fraction: str | None,
    properties: dict[str, object],
    is_ascii: bool,
    separators: tuple[str, str],
    order: list[int],
) -> None:
    def dumps(value: object) -> str:
        return json.dumps(value, ensure_ascii=is_ascii, separators=separators)

    text = dumps(properties)
    if "NaN" in text or "Infinity" in text:
        return  # json.dumps wrote invalid JSON
    members = [
        f'"app_id"{separators[1]}{dumps(app_id)}',
        f'"event_name"{separators[1]}{dumps(event_name)}',
        f'"user_id"{separators[1]}{dumps(user_id)}',
        f'"timestamp"{separators[1]}{dumps(written(seconds, minutes, fraction))}',
        f'"properties"{separators[1]}{text}',
    ]
    value = "{" + separators[0].join(members[index] for index in order) + "}"
    row = decode(value.encode())
    assert tuple(row) == (seconds, app_id, event_name, user_id, text.encode())


def reason_or_none(value: bytes) -> str | None:
    """Decode any bytes; check that an accepted event has all properties of a valid one."""
    try:
        row = decode(value)
    except DecodeError as error:
        return error.reason
    assert isinstance(json.loads(row[4]), dict)
    for text in row[1:4]:
        assert isinstance(text, str)
        assert text.encode()
    assert 0 <= row[0] <= MAX_EPOCH_SECONDS
    return None


@given(st.binary(max_size=200))
def test_decode_of_any_bytes_raises_only_decode_error(value: bytes) -> None:
    assert reason_or_none(value) in (None, *REASONS)


@given(
    st.integers(0, 200),
    st.binary(max_size=6) | st.text('{}[]",:\\u0189eE+-. \n\t\x00', max_size=6).map(str.encode),
    st.integers(0, 6),
)
@settings(max_examples=400)
def test_decode_of_damaged_events_raises_only_decode_error(
    at: int, piece: bytes, removed: int
) -> None:
    whole = spliced('{"a": [1, -2.5e3, true, null, "é\\u00e9\\n"], "b": {}}'.encode())
    assert reason_or_none(whole[:at] + piece + whole[at + removed :]) in (None, *REASONS)


@given(
    st.recursive(st.binary(max_size=12), lambda inner: st.lists(inner, max_size=3).map(b",".join))
)
@settings(max_examples=300)
def test_decode_accepts_only_json_properties(content: bytes) -> None:
    assert reason_or_none(spliced(b'{"a": ' + content + b"}")) in (None, *REASONS)


def _one_by_one(values: list[bytes | None]) -> tuple[list[Row], list[tuple[int, str, str]]]:
    rows, invalid = [], []
    for index, value in enumerate(values):
        try:
            rows.append(decode(value))
        except DecodeError as error:
            invalid.append((index, error.reason, error.detail))
    return rows, invalid


@pytest.mark.parametrize("decode_all", DECODERS)
@pytest.mark.parametrize(
    "texts",
    [
        ["2026-02-02T12:00:00Z", "1970-01-01t00:00:00z"],
        ["2026-02-02T12:00:00.5Z", "2026-02-02T12:00:00xZ"],
        ["2026-02-02T12:00:00.Z", "2026-02-02T12:00:01.Z"],
        ["2026-02-02T12:00:00.1x3Z", "2026-02-02T12:00:01.123Z"],
        ["2026-02-02T12:00:00.\u0661Z", "2026-02-02T12:00:00.1Z"],
        ["2026-02-02T12:00:00.123+01:00", "2026-02-02T12:00:00.123+02:00"],
        ["2026-02-02T12:00:00.123Z", "2026-02-02T12:00:00.123x"],
        ["2026-02-02T12:00:0Z", "2026-02-02T12:00:0Z"],
        [f"2026-02-02T12:00:00.{'1' * 50}Z", f"2026-02-02T12:00:01.{'1' * 50}Z"],
    ],
)
def test_timestamps_of_one_width_parse_like_singles(texts: list[str], decode_all: Decode) -> None:
    values = [payload(timestamp=text) for text in texts]
    rows, invalid = _one_by_one(list(values))
    decoded = decode_all(values)
    assert decoded.columns[0] == [row.timestamp for row in rows]
    assert decoded.invalid == invalid


@given(
    st.lists(
        st.sampled_from(
            [
                payload(),
                payload(user_id="u2", timestamp="2026-02-02T12:00:01.5+01:00"),
                payload(timestamp="2026-02-02T12:00:01Z"),
                payload(timestamp="1969-12-31T23:59:59Z"),
                payload(timestamp="2106-02-07T06:28:16.5Z"),
                payload(timestamp="2026-02-02T12:00:01.5é"),
                payload(properties=None),
                payload(properties={"a": "é"}, app_id="né", user_id="ü"),
                spliced('{"ü": "ö"}'.encode()),
                payload(user_id=""),
                payload(timestamp="yesterday"),
                payload(properties=[1]),
                without("app_id"),
                b'{"app_id":',
                b"\xff",
                b"",
                None,
            ]
        ),
        max_size=40,
    )
)
def test_decode_all_equals_decode_of_each(values: list[bytes | None]) -> None:
    rows, invalid = _one_by_one(values)
    for decode_all in DECODERS:
        decoded = decode_all(values)
        assert list(zip(*decoded.columns, strict=True)) == [
            (row.timestamp, *(text.encode() for text in row[1:4]), row.properties) for row in rows
        ]
        assert decoded.invalid == invalid
