"""CPU time and memory of a process, from its status file in /proc."""

import os
from contextlib import suppress
from pathlib import Path


def cpu_seconds(status: Path) -> float:
    with suppress(OSError):
        spent = status.with_name("stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def memory_bytes(status: Path, field_name: str) -> int:
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith(field_name):
                return int(line.split()[1]) << 10
    return 0
