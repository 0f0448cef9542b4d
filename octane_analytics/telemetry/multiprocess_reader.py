"""Reader of the metrics files of all processes, summed over the processes.

The format is prometheus_client's multiprocess mode (`mmap_dict` there): a header of eight bytes that
starts with the number of bytes in use, then entries of a key's length, the key padded to eight bytes,
and value and timestamp as two doubles. A key is JSON: family, name, labels and help. Entries are only
appended, so the offset of each value is computed once per file, and a read costs little more than the
input itself: a scrape has to succeed while the workers of the machine start at the same time.

Every value is summed over the files. Of the gauges' modes that is correct for `sum`, which all gauges
of this package use.
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
_FIRST_READ_BYTES = 4096
_HEADER_BYTES = 8
_INTEGER = struct.Struct("=i")
_VALUE_BYTES = 16

Labels = tuple[tuple[str, str], ...]
"""Name and value of each label, ordered by name."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesKey:
    """Identity of a time series. One instance exists per series, so it is hashed and compared by id."""

    kind: str
    """Kind of the family: counter, gauge or histogram."""
    family: str
    name: str
    labels: Labels
    help: str


class MultiprocessReader:
    """Keeps the files open between reads. For one thread at a time, in the process that created it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._series: dict[tuple[str, bytes], SeriesKey] = {}

    def read(self) -> dict[SeriesKey, float]:
        """Return counters and histograms of all processes, and gauges of those that are alive."""
        inodes = {entry.name: entry.inode() for entry in os.scandir(self._directory)}
        alive = liveness.alive(self._directory)
        for name in self._files.keys() - inodes.keys():
            self._files.pop(name).close()
        totals: dict[SeriesKey, float] = {}
        for name, inode in sorted(inodes.items()):
            if name.endswith(_SUFFIX) and _is_current(name.removesuffix(_SUFFIX), alive):
                with contextlib.suppress(FileNotFoundError):  # removed since the directory was read
                    for series, value in self._file(name, inode).read():
                        totals[series] = totals.get(series, 0.0) + value
        return totals

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, name: str, inode: int) -> "_File":
        file = self._files.get(name)
        # An open file keeps its inode number from being reused.
        if file is None or file.inode != inode:
            if file is not None:
                del self._files[name]
                file.close()
            file = self._files[name] = _File(self._directory / name, inode, self._series)
        return file


class _File:
    """Open metrics file with the offsets of its values."""

    def __init__(
        self, path: Path, inode: int, known_series: dict[tuple[str, bytes], SeriesKey]
    ) -> None:
        """`known_series` is shared by all files: keys by kind and raw key."""
        self.inode = inode
        self._kind = path.name.partition("_")[0]
        self._known_series = known_series
        self._used = _HEADER_BYTES
        self._series: list[SeriesKey] = []
        self._format = f"={_HEADER_BYTES}x"
        self._values = struct.Struct(self._format)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self) -> Iterator[tuple[SeriesKey, float]]:
        """Return all values of the file; none of a file that is still being created."""
        data = os.pread(self._descriptor, max(self._used, _FIRST_READ_BYTES), 0)
        used = _INTEGER.unpack_from(data)[0] if len(data) >= _HEADER_BYTES else 0
        if used > len(data):
            data += os.pread(self._descriptor, used - len(data), len(data))
        if used > self._used:
            self._index_entries(data, used)
        if used < self._used:
            return iter(())
        return zip(self._series, self._values.unpack_from(data), strict=True)

    def _index_entries(self, data: bytes, used: int) -> None:
        """Compute the offsets of the values that were appended since the last read."""
        at = self._used
        while at < used:
            length = _INTEGER.unpack_from(data, at)[0]
            padded = length + 8 - (length + _INTEGER.size) % 8
            key = (self._kind, data[at + _INTEGER.size : at + _INTEGER.size + length])
            series = self._known_series.get(key)
            if series is None:
                series = self._known_series[key] = _parse_key(*key)
            self._series.append(series)
            self._format += f"{_INTEGER.size + padded}xd8x"
            at += _INTEGER.size + padded + _VALUE_BYTES
        self._used = used
        self._values = struct.Struct(self._format)


def _parse_key(kind: str, key: bytes) -> SeriesKey:
    family, name, labels, help_text = json.loads(key)
    return SeriesKey(kind, family, name, tuple(sorted(labels.items())), help_text)


def _is_current(name: str, alive: Collection[str]) -> bool:
    """Return False for the gauges of a process that has exited."""
    return not name.startswith("gauge_") or name.rpartition("_")[2] in alive
