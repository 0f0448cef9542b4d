"""Sizes of installations, and the manual's table of them."""

from pathlib import Path

import octane_analytics
from tests.tools.bench.capacity import Costs, Machine, markdown, size

PAGE = Path(octane_analytics.__file__).parent / "manual" / "capacity.md"


def test_manual_has_computed_table() -> None:
    lines = PAGE.read_text("utf-8").splitlines()
    assert [
        line for line in markdown((10_000, 1_000_000, 20_000_000), 90) if line not in lines
    ] == []


def test_disk_or_cpu_decides_shards() -> None:
    assert size(1_000_000, 90).shards == 10
    assert size(1_000_000, 1).shards == 1
    assert size(20_000_000, 7).shards == 15
    small = Machine(clickhouse_cores=2)
    assert size(20_000_000, 7, machine=small).shards == 48


def test_slower_worker_needs_more_processes() -> None:
    usual, slow = size(1_000_000, 90), size(1_000_000, 90, Costs(worker_us=21.0))
    assert slow.processes == 42
    assert slow.vms > usual.vms
    assert slow.partitions >= slow.processes
