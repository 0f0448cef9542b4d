"""A part of a MergeTree table in the form in which ClickHouse's replicas send it to one another.

See DataPartsExchange.cpp: sizes and names first, then each file with its hash. Most hashes are in the
part's own `checksums.txt`, so that only the few small files that it does not list are hashed here.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import lz4.block
import zstd

from tests.tools.cluster.city_hash import Hash, file_hash

PROTOCOL = 9
"""Newest version of the exchange that is served (with columns_substreams.txt)."""
_NO_UUID = b"00000000-0000-0000-0000-000000000000"
_NO_TTL = b"ttl format version: 1\n{}"
_NEVER_SENT = frozenset({"txn_version.txt", "uuid.txt", "invalidated_system_columns.txt"})
_SUBSTREAMS = "columns_substreams.txt"
_CHECKSUMS_HEADER = b"checksums format version: 4\n"
_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90


def encoded(part: Path, version: int) -> Iterator[bytes]:
    """Yield the body of the answer to a fetch of the part. Raises OSError if it is removed meanwhile."""
    projections = sorted(each for each in part.iterdir() if each.suffix == ".proj")
    ttl = part / "ttl.txt"
    yield _number(sum(file.stat().st_size for file in part.rglob("*") if file.is_file()))
    yield _string(ttl.read_bytes() if ttl.exists() else _NO_TTL)
    yield _string(b"Compact" if (part / "data.bin").exists() else b"Wide")
    yield _NO_UUID
    yield _number(len(projections))
    for projection in projections:
        yield _string(projection.stem.encode())
        yield from _files(projection, version)
    yield from _files(part, version)


def _files(folder: Path, version: int) -> Iterator[bytes]:
    has_substreams = version >= 9
    sent = sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.name not in _NEVER_SENT
        and (has_substreams or file.name != _SUBSTREAMS)
    )
    known = checksums((folder / "checksums.txt").read_bytes())
    yield _number(len(sent))
    for file in sent:
        data = file.read_bytes()
        yield _string(file.name.encode()) + _number(len(data))
        yield data
        yield struct.pack("<QQ", *(known.get(file.name) or file_hash(data)))


def checksums(raw: bytes) -> Mapping[str, Hash]:
    """Return the hashes of a `checksums.txt` by file name."""
    if not raw.startswith(_CHECKSUMS_HEADER):
        raise ValueError("checksums.txt has an unknown version")
    reader = _Reader(_decompressed(raw[len(_CHECKSUMS_HEADER) :]))
    found = {}
    for _ in range(reader.varint()):
        name = reader.take(reader.varint()).decode()
        reader.varint()  # size
        found[name] = struct.unpack("<QQ", reader.take(16))
        if reader.take(1) != b"\0":
            reader.varint()  # size and hash before compression
            reader.take(16)
    return found


def _decompressed(raw: bytes) -> bytes:
    """Return the content of a sequence of ClickHouse's compressed blocks."""
    content = b""
    while raw:
        method, size, full_size = struct.unpack_from("<BII", raw, 16)
        block, raw = raw[25 : 16 + size], raw[16 + size :]
        if method == _LZ4:
            content += lz4.block.decompress(block, uncompressed_size=full_size)
        elif method == _ZSTD:
            content += zstd.decompress(block)
        elif method == _NONE:
            content += block
        else:
            raise ValueError(f"unknown compression {method:#x}")
    return content


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise ValueError("checksums.txt is cut short")
        self._at += size
        return taken

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def _number(value: int) -> bytes:
    return struct.pack("<Q", value)


def _string(text: bytes) -> bytes:
    size, prefix = len(text), b""
    while size > 127:
        prefix += bytes([size & 127 | 128])
        size >>= 7
    return prefix + bytes([size]) + text
