"""CityHash128 of version 1.0.2 with a seed, as ClickHouse chains it over the blocks of a file.

The function of the same name in clickhouse-cityhash ignores its seed.
"""

import struct
from collections.abc import Iterator

from clickhouse_cityhash.cityhash import CityHash64

Hash = tuple[int, int]
"""Low and high half."""

_BLOCK_BYTES = 2048
"""ClickHouse's DBMS_DEFAULT_HASHING_BLOCK_SIZE."""
_MASK = (1 << 64) - 1
_K0, _K1 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273
_MULTIPLIER = 0x9DDFEA08EB382D69


def file_hash(data: bytes) -> Hash:
    """Return the hash that ClickHouse's HashingWriteBuffer has after writing the data."""
    state: Hash = (0, 0)
    for start in range(0, len(data), _BLOCK_BYTES):
        state = city_hash(data[start : start + _BLOCK_BYTES], state)
    return state


def city_hash(data: bytes, seed: Hash) -> Hash:
    return _murmur(data, seed) if len(data) < 128 else _long(data, seed)


def _long(data: bytes, seed: Hash) -> Hash:
    x, y = seed
    left = len(data)
    z = left * _K1 & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _fetch(data, 0)) & _MASK
    v = v0, (_rotate(v0, 42) * _K1 + _fetch(data, 8)) & _MASK
    w = (
        (_rotate(y + z, 35) * _K1 + x) & _MASK,
        _rotate(x + _fetch(data, 88), 53) * _K1 & _MASK,
    )
    at = 0
    while left >= 128:
        for _ in range(2):
            x = _rotate(x + y + v[0] + _fetch(data, at + 16), 37) * _K1 & _MASK
            y = _rotate(y + v[1] + _fetch(data, at + 48), 42) * _K1 & _MASK
            x ^= w[1]
            y ^= v[0]
            z = _rotate(z ^ w[0], 33)
            v = _weak(data, at, v[1] * _K1, x + w[0])
            w = _weak(data, at + 32, z + w[1], y)
            x, z = z, x
            at += 64
        left -= 128
    y = (y + _rotate(w[0], 37) * _K0 + z) & _MASK
    x = (x + _rotate(v[0] + z, 49) * _K0) & _MASK
    for done in range(32, left + 32, 32):
        tail = at + left - done
        y = (_rotate(y - x, 42) * _K0 + v[1]) & _MASK
        w = (w[0] + _fetch(data, tail + 16)) & _MASK, w[1]
        x = (_rotate(x, 49) * _K0 + w[0]) & _MASK
        w = (w[0] + v[0]) & _MASK, w[1]
        v = _weak(data, tail, *v)
    x = _mix(x, v[0])
    y = _mix(y, w[0])
    return (_mix(x + v[1], w[1]) + y) & _MASK, _mix(x + w[1], y + v[1])


def _murmur(data: bytes, seed: Hash) -> Hash:
    a, b = seed
    size = len(data)
    if size <= 16:
        a = _shift_mix(a * _K1) * _K1 & _MASK
        c = (b * _K1 + CityHash64(data)) & _MASK
        d = _shift_mix(a + (_fetch(data, 0) if size >= 8 else c))
    else:
        c = _mix(_fetch(data, size - 8) + _K1, a)
        d = _mix(b + size, c + _fetch(data, size - 16))
        a = (a + d) & _MASK
        for first, second in _pairs(data):
            a = (a ^ _shift_mix(first * _K1) * _K1) * _K1 & _MASK
            b ^= a
            c = (c ^ _shift_mix(second * _K1) * _K1) * _K1 & _MASK
            d ^= c
    a = _mix(a, c)
    b = _mix(d, b)
    return a ^ b, _mix(b, a)


def _pairs(data: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(data) - 16, 16):
        yield _fetch(data, at), _fetch(data, at + 8)


def _fetch(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotate(value: int, shift: int) -> int:
    value &= _MASK
    return (value >> shift | value << (64 - shift)) & _MASK


def _shift_mix(value: int) -> int:
    value &= _MASK
    return value ^ (value >> 47)


def _mix(low: int, high: int) -> int:
    low, high = low & _MASK, high & _MASK
    a = _shift_mix((low ^ high) * _MULTIPLIER)
    return _shift_mix((high ^ a) * _MULTIPLIER) * _MULTIPLIER & _MASK


def _weak(data: bytes, at: int, a: int, b: int) -> Hash:
    first, second, third, fourth = struct.unpack_from("<4Q", data, at)
    a = (a + first) & _MASK
    b = _rotate(b + a + fourth, 21)
    total = (a + second + third) & _MASK
    b = (b + _rotate(total, 44)) & _MASK
    return (total + fourth) & _MASK, (b + a) & _MASK
