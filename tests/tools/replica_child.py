"""Variant of `octane_analytics.sandbox.clickhouse_child` for a server with replicated tables.

clickhouse-local does not publish an address for other replicas, and so keeps its replicated tables
read-only: an insert waits forever. In the build of chdb-core that the tests use, the functions that
return address, scheme and credentials (null, read at the first fetch from another replica) are replaced
in memory. Exits with UNKNOWN_BUILD for any other.
"""

import ctypes
import struct
import sys
from pathlib import Path

from octane_analytics.sandbox import clickhouse_child

UNKNOWN_BUILD = "a build of chdb-core whose functions are not known"
_ADDRESS, _SCHEME, _CREDENTIALS = 0x147217C0, 0x147218C0, 0x14721740
_ADDRESS_CODE = bytes.fromhex("4156534883ec484c8b36490fbe8e67010000")
_SCHEME_CODE = bytes.fromhex("488b0680b88701000000")
_CREDENTIALS_CODE = bytes.fromhex("41574156534c8b3f498d9f88010000")
_NO_CREDENTIALS = ctypes.create_string_buffer(128)
"""An InterserverCredentials of two empty strings; kept for as long as the process."""
_HOST, _PORT = "127.0.0.1", 9009
_PAGE = 4096
_READ, _WRITE, _EXECUTE = 1, 2, 4


def _return_text(text: str) -> bytes:
    """Code that writes a short std::string of libc++ into the place of the result."""
    raw = text.encode().ljust(23, b"\0") + bytes([len(text)])
    moves = (b"\x48\xb8" + raw[i : i + 8] + b"\x48\x89\x47" + bytes([i]) for i in (0, 8, 16))
    return b"".join(moves)


def _replace(address: int, expected: bytes, code: bytes) -> None:
    if ctypes.string_at(address, len(expected)) != expected:
        sys.exit(UNKNOWN_BUILD)
    libc = ctypes.CDLL(None, use_errno=True)
    page = address & ~(_PAGE - 1)
    size = (address + len(code) - page + _PAGE - 1) & ~(_PAGE - 1)
    for protection in (_READ | _WRITE | _EXECUTE, _READ | _EXECUTE):
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(size), protection):
            sys.exit("mprotect is not allowed here")
        if protection & _WRITE:
            ctypes.memmove(address, code, len(code))


def announce_address(port: int = _PORT) -> None:
    """Make the loaded engine announce this port as its own to other replicas."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    bases = [int(line.split("-")[0], 16) for line in lines if "_chdb.abi3.so" in line]
    if not bases:
        sys.exit(UNKNOWN_BUILD)
    done = b"\x48\x89\xf8\xc3"
    stored_port = b"\x66\xc7\x47\x18" + struct.pack("<H", port)
    _replace(bases[0] + _ADDRESS, _ADDRESS_CODE, _return_text(_HOST) + stored_port + done)
    _replace(bases[0] + _SCHEME, _SCHEME_CODE, _return_text("http") + done)
    # A std::shared_ptr without an owner, returned in two registers.
    pointer = struct.pack("<Q", ctypes.addressof(_NO_CREDENTIALS))
    _replace(bases[0] + _CREDENTIALS, _CREDENTIALS_CODE, b"\x48\xb8" + pointer + b"\x31\xd2\xc3")


def main() -> None:
    load = clickhouse_child.load_engine
    engine = load()
    announce_address()
    clickhouse_child.load_engine = lambda: engine
    clickhouse_child.main()


if __name__ == "__main__":
    main()
