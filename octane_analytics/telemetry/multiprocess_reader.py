"""What all processes of the shared directory have counted together.

Reads the files of prometheus_client's multiprocess mode (`mmap_dict` there): a header of eight bytes
that begins with how many bytes are in use, then one entry after the other: the length of a key, the key
padded to eight bytes, value and time as two doubles. A key, JSON, tells name, labels and help. Entries
are only ever added, so where each value stands is worked out once for a file, and a look at all of them
is little more than reading them: a scrape has to get through beside workers that start at the same time.

Every value is summed over the files. Of the gauges' modes that is right for `sum`, and there is no other
here.
"""

import contextlib
import json
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from octane_analytics.telemetry import liveness

_SUFFIX = ".db"
_FIRST_BYTES = 4096
_HEADER_BYTES = 8
_INTEGER = struct.Struct("=i")
_VALUE_BYTES = 16

Labels = tuple[tuple[str, str], ...]
"""In the order of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesKey:
    """What a value is of. There is one for each: it stands for itself, and is found fast."""

    kind: str
    """Of the family: counter, gauge or histogram."""
    family: str
    name: str
    labels: Labels
    help: str


class MultiprocessReader:
    """For one thread at a time, in the process that made it: keeps the files open."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._cells: dict[tuple[str, bytes], SeriesKey] = {}

    def read(self) -> dict[SeriesKey, float]:
        """Counters and histograms of all processes there ever were, gauges of those alive."""
        found = {entry.name: entry.inode() for entry in os.scandir(self._directory)}
        alive = liveness.alive(self._directory)
        for name in self._files.keys() - found.keys():
            self._files.pop(name).close()
        sums: dict[SeriesKey, float] = {}
        for name, inode in sorted(found.items()):
            if name.endswith(_SUFFIX) and _is_told(name.removesuffix(_SUFFIX), alive):
                with contextlib.suppress(FileNotFoundError):  # gone since
                    for cell, value in self._file(name, inode).read():
                        sums[cell] = sums.get(cell, 0.0) + value
        return sums

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, name: str, inode: int) -> "_File":
        file = self._files.get(name)
        # While it is open no other file can get its number.
        if file is None or file.inode != inode:
            if file is not None:
                del self._files[name]
                file.close()
            file = self._files[name] = _File(self._directory / name, inode, self._cells)
        return file


class _File:
    def __init__(self, path: Path, inode: int, cells: dict[tuple[str, bytes], SeriesKey]) -> None:
        """`cells` are those that all files know, by kind and key."""
        self.inode = inode
        self._kind = path.name.partition("_")[0]
        self._known = cells
        self._used = _HEADER_BYTES
        self._cells: list[SeriesKey] = []
        self._format = f"={_HEADER_BYTES}x"
        self._values = struct.Struct(self._format)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self) -> Iterator[tuple[SeriesKey, float]]:
        """Nothing of a file that is only being made."""
        data = os.pread(self._descriptor, max(self._used, _FIRST_BYTES), 0)
        used = _INTEGER.unpack_from(data)[0] if len(data) >= _HEADER_BYTES else 0
        if used > len(data):
            data += os.pread(self._descriptor, used - len(data), len(data))
        if used > self._used:
            self._learn(data, used)
        if used < self._used:
            return iter(())
        return zip(self._cells, self._values.unpack_from(data), strict=True)

    def _learn(self, data: bytes, used: int) -> None:
        """Where the values stand that were added since the last look."""
        at = self._used
        while at < used:
            length = _INTEGER.unpack_from(data, at)[0]
            padded = length + 8 - (length + _INTEGER.size) % 8
            key = (self._kind, data[at + _INTEGER.size : at + _INTEGER.size + length])
            cell = self._known.get(key)
            if cell is None:
                cell = self._known[key] = _cell(*key)
            self._cells.append(cell)
            self._format += f"{_INTEGER.size + padded}xd8x"
            at += _INTEGER.size + padded + _VALUE_BYTES
        self._used = used
        self._values = struct.Struct(self._format)


def _cell(kind: str, key: bytes) -> SeriesKey:
    family, name, labels, told = json.loads(key)
    return SeriesKey(kind, family, name, tuple(sorted(labels.items())), told)


def _is_told(name: str, alive: Collection[str]) -> bool:
    return not name.startswith("gauge_") or name.rpartition("_")[2] in alive
