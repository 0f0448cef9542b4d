"""The compiled decoder returns what the one in Python does, for any value."""

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octane_analytics.events.decode import decode, decode_all
from octane_analytics.events.decoders import COMPILED, choose
from tests.support.compiled import require_compiled
from tests.support.decoders import facts
from tests.support.event_values import events, json_values, record_values

require_compiled("_decoding")
from octane_analytics.events._decoding import pack  # noqa: E402

decode_compiled = choose(COMPILED).decode
FIELDS = b'"app_id":"a","event_name":"b","user_id":"c","timestamp":"2026-02-02T12:00:00Z"'
EVENT = b"{" + FIELDS + b"}"


def assert_equal(values: list[bytes | None]) -> None:
    assert facts(decode_compiled(values)) == facts(decode_all(values))


def with_properties(text: bytes) -> bytes:
    return EVENT[:-1] + b',"properties":' + text + b"}"


@given(st.lists(record_values, max_size=8))
@settings(max_examples=150)
def test_any_values_decode_alike(values: list[bytes | None]) -> None:
    assert_equal(values)


@given(events())
@settings(max_examples=150)
def test_every_valid_event_is_decoded_by_it(value: bytes) -> None:
    (rows, *_), decoded = pack([value]), decode_all([value])
    # Texts that the one in Python alone reads: a leap second, and a local year before 1970.
    if rows != len(decoded.columns[0]):
        assert b":60" in value or b"1969-" in value or b"\\u" in value
    assert_equal([value])


@given(
    json_values, st.sampled_from(["properties", "unknown", "app_id", "timestamp", "key", "whole"])
)
@settings(max_examples=150)
def test_any_json_decodes_alike_everywhere(text: bytes, place: str) -> None:
    value = {
        "properties": with_properties(text),
        "unknown": EVENT[:-1] + b',"x":' + text + b"}",
        "app_id": EVENT.replace(b'"a"', text),
        "timestamp": EVENT.replace(b'"2026-02-02T12:00:00Z"', text),
        "key": EVENT[:-1] + b"," + text + b":1}",
        "whole": text,
    }[place]
    assert_equal([value])


@pytest.mark.parametrize("first", range(0x80, 0x100))
def test_multibyte_texts_decode_alike(first: int) -> None:
    edges = (0x00, 0x22, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    tails = [b"", *(bytes([second]) for second in edges)]
    tails += [bytes([second, 0x80]) for second in edges] + [b"\x90\x80\x80", b"\x80\x80\x80"]
    tails += [b"\x8f\xbf\xbf", b"\xa0\x7f", b"\x9f\xc0", b"\xbf\xbf\xc0", b"\xbf\xbf\xbf"]
    texts = [b'"' + bytes([first]) + tail + b'"' for tail in tails]
    assert_equal([EVENT.replace(b'"a"', text) for text in texts])
    assert_equal([with_properties(b'{"a":' + text + b"}") for text in texts])


def test_each_byte_at_each_place_decodes_alike() -> None:
    whole = with_properties(b'{"a": [1.5e+3, true, null, "\\u00e9\\n"]}')
    for at in range(len(whole) + 1):
        bytes_here = [whole[:at] + bytes([byte]) + whole[at + 1 :] for byte in range(0, 256, 3)]
        assert_equal([whole[:at], whole[:at] + whole[at + 1 :], *bytes_here])


@pytest.mark.parametrize(
    "length", [0, 1, 7, 8, 9, 15, 16, 17, 127, 128, 16_383, 16_384, 10_000_000]
)
def test_texts_of_any_length_decode_alike(length: int) -> None:
    plain = b"x" * length
    for text in (plain, plain + b"\\n", "é".encode() * (length // 2), plain + b"\x1f"):
        assert_equal([EVENT.replace(b'"a"', b'"' + text + b'"')])
    value = with_properties(b'{"x":"' + b"x" * length + b'"}')
    assert pack([value])[0] == 1
    assert_equal([value])


@pytest.mark.parametrize("depth", [1, 61, 62, 63, 64, 65, 100, 500, 100_000])
def test_nested_properties_decode_alike(depth: int) -> None:
    assert_equal([with_properties(b'{"a":' + b"[" * depth + b"]" * depth + b"}")])
    assert_equal([with_properties(b'{"a":' * depth + b"1" + b"}" * depth)])
    assert_equal([EVENT[:-1] + b',"x":' + b"[" * depth])


def test_rows_keep_their_order_around_others() -> None:
    leap = EVENT.replace(b"12:00:00", b"23:59:60")
    values = [EVENT.replace(b'"a"', b'"a%d"' % number) for number in range(100)]
    mixed: list[bytes | None] = []
    for number, value in enumerate(values):
        mixed += [value, *[leap, b"{", None, leap][: number % 5]]
    assert_equal(mixed)
    assert_equal(mixed[::-1])


def test_hundred_thousand_values_pack_at_once() -> None:
    values: list[bytes | None] = [EVENT] * 100_000
    rows, seconds, *texts = pack(values)
    assert (rows, len(seconds)) == (100_000, 400_000)
    assert [text[:2] for text in texts] == [b"\x01a", b"\x01b", b"\x01c", b"\x02{"]
    assert pack(values, 99_999)[0] == 1
    assert pack(values, 100_000)[0] == pack(values, 200_000)[0] == 0


def test_values_of_another_type_are_left_to_python() -> None:
    class Value(bytes):
        pass

    others: list[Any] = [EVENT.decode(), bytearray(EVENT), memoryview(EVENT), 5, Value(EVENT), []]
    for other in others:
        assert pack([EVENT, other, EVENT])[0] == 1
        try:
            expected = tuple(decode(other))
        except (AttributeError, TypeError) as error:
            with pytest.raises(type(error)):
                decode_compiled([EVENT, other])
        else:
            assert next(zip(*decode_compiled([other]).columns, strict=True))[4] == expected[4]


def test_wrong_arguments_raise() -> None:
    wrong: list[tuple[Any, ...]] = [(), (b"",), ((EVENT,),), (None,), ([EVENT], "0"), ([], 0, 0)]
    for arguments in wrong:
        with pytest.raises(TypeError):
            pack(*arguments)
    with pytest.raises(ValueError, match="negative"):
        pack([EVENT], -1)
    with pytest.raises(OverflowError):
        pack([EVENT], 1 << 64)


def test_sequences_other_than_lists_decode_alike() -> None:
    values = (EVENT, b"", EVENT)
    assert facts(decode_compiled(values)) == facts(decode_all(values))
    assert facts(decode_compiled([])) == facts(decode_all([]))


def test_packing_leaks_no_references() -> None:
    values = [EVENT, b"not an event"]
    before = [sys.getrefcount(value) for value in values]
    gc.collect()
    blocks = []
    for _ in range(3):
        for _ in range(1000):
            pack(values)
            with pytest.raises(ValueError, match="negative"):
                pack(values, -1)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    assert [sys.getrefcount(value) for value in values] == before
    assert blocks[2] - blocks[1] < 500


@pytest.mark.parametrize("failing", range(1, 40, 3))
def test_missing_memory_raises_and_frees(failing: int) -> None:
    """Have the allocator fail from one of the call's allocations on, in a process of its own."""
    code = (
        "import _testcapi, sys\n"
        "from octane_analytics.events._decoding import pack\n"
        f"values = [{EVENT!r}.replace(b'c', b'c' * 300)] * 5000\n"
        "try:\n"
        f"    _testcapi.set_nomemory({failing}, 0)\n"
        "    pack(values)\n"
        "except MemoryError:\n"
        "    _testcapi.remove_mem_hooks()\n"
        "    print('raised')\n"
        "else:\n"
        "    _testcapi.remove_mem_hooks()\n"
        "    print('packed')\n"
    )
    pytest.importorskip("_testcapi", reason="this interpreter has no _testcapi")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) in [(0, "raised"), (0, "packed")], done.stderr
    if failing < 5:
        assert done.stdout.strip() == "raised"


def test_threads_decode_alike() -> None:
    values: list[bytes | None] = [EVENT, b"{", with_properties(b'{"a":1}')] * 500
    expected = facts(decode_all(values))
    found: list[object] = []

    def run() -> None:
        found.extend(facts(decode_compiled(values)) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20
