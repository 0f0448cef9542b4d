"""Hashes of a part's files, and the table of those that ClickHouse has computed itself."""

import struct
from functools import partial
from pathlib import Path

import lz4.block
import pytest
import zstd
from clickhouse_cityhash.cityhash import CityHash128
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.cluster.city_hash import city_hash, file_hash
from tests.tools.cluster.part_files import checksums, encoded

K0, K1, K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0xC949D7C7509E6557
HEADER = b"checksums format version: 4\n"


@given(st.binary(max_size=1000))
def test_hash_equals_that_of_the_library(data: bytes) -> None:
    """The library derives its seed from the first bytes, or has a constant one for short data."""
    high, low = divmod(CityHash128(data), 1 << 64)[0], CityHash128(data) % (1 << 64)
    first, second = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
    if len(data) >= 16:
        assert city_hash(data[16:], (first ^ K3, second)) == (high, low)
    elif len(data) < 8:
        assert city_hash(data, (K0, K1)) == (high, low)


def test_hash_of_a_file_chains_its_blocks() -> None:
    data = bytes(range(256)) * 20
    state = (0, 0)
    for block in (data[:2048], data[2048:4096], data[4096:]):
        state = city_hash(block, state)
    assert file_hash(data) == state
    assert file_hash(b"") == (0, 0)


def compressed(content: bytes, method: int = 0x82) -> bytes:
    pack = {0x82: partial(lz4.block.compress, store_size=False), 0x90: zstd.compress, 0x02: bytes}
    block = bytes(pack[method](content))
    return bytes(16) + struct.pack("<BII", method, len(block) + 9, len(content)) + block


@pytest.mark.parametrize("method", [0x82, 0x90, 0x02])
def test_checksums_are_read_by_file_name(method: int) -> None:
    plain = b"\x07a.cmrk2" + b"\x05" + struct.pack("<QQ", 1, 2) + b"\0"
    packed = b"\x05a.bin" + b"\x80\x01" + struct.pack("<QQ", 3, 4) + b"\1\x09" + bytes(16)
    raw = HEADER + compressed(b"\x02" + plain, method) + compressed(packed, method)
    assert checksums(raw) == {"a.cmrk2": (1, 2), "a.bin": (3, 4)}


@pytest.mark.parametrize(
    "raw", [b"", b"checksums format version: 5\n", HEADER + compressed(b"\x02\x01a")]
)
def test_unknown_or_short_checksums_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="checksums"):
        checksums(raw)


def test_part_is_sent_without_local_files(tmp_path: Path) -> None:
    for name in ("data.bin", "txn_version.txt", "columns_substreams.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "checksums.txt").write_bytes(HEADER + compressed(b"\0"))
    old, new = (b"".join(encoded(tmp_path, version)) for version in (8, 9))
    assert b"Compact" in new
    assert b"data.bin" in old
    assert b"txn_version" not in new
    assert b"columns_substreams" not in old
    assert b"columns_substreams" in new


def test_projection_is_sent_with_its_substreams(tmp_path: Path) -> None:
    """Without them the receiver takes it for broken, and reads the rows instead."""
    projection = tmp_path / "sums.proj"
    projection.mkdir()
    for folder in (tmp_path, projection):
        (folder / "checksums.txt").write_bytes(HEADER + compressed(b"\0"))
    (projection / "columns_substreams.txt").write_bytes(b"x")
    old, new = (b"".join(encoded(tmp_path, version)) for version in (8, 9))
    assert b"columns_substreams" in new
    assert b"columns_substreams" not in old
