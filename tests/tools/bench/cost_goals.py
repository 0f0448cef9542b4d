"""Goals of cost and latency, at steady rates and under backlog, judged by the medians of the runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Protocol

from tests.tools.bench.measure import Run
from tests.tools.bench.reports.goals import Goal
from tests.tools.bench.steady_run import SteadyLoad, SteadyRun
from tests.tools.bench.tables import BASELINE

MAIN, LOOSE, ROLLED_UP = "exactly-once", "at-least-once", "with-rollups"
_PARTITIONS, _PROCESSES = 32, 2
_MIB = 1 << 20
_MEMORY_MB = 150

Loads = dict[SteadyLoad, dict[str, list[SteadyRun]]]


def steady_goals(runs: Sequence[SteadyRun]) -> list[Goal]:
    """Return the goals at steady rates."""
    loads: Loads = {}
    for run in runs:
        loads.setdefault(run.load, {}).setdefault(run.contender, []).append(run)
    return [
        _against_engine(loads, 10_000, 2.0),
        _against_engine(loads, 50_000, 2.0),
        _against_engine(loads, 1_000, 1.0),
        _share_above_engine(loads),
        _idle_worker(loads),
        _partitions(loads),
        _against_loose(loads),
        _with_rollups(loads),
        _latency(loads),
        _memory(run.peak_client_mib for run in runs if run.contender == MAIN),
    ]


def backlog_goals(runs: Sequence[Run]) -> list[Goal]:
    """Return the goals under backlog, for one process and the largest batches."""
    largest = max((run.batch_size for run in runs), default=0)
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        if run.processes == 1 and run.batch_size == largest:
            by_name.setdefault(run.contender, []).append(run)
    return [
        _least(
            "one process, the largest batches: at least 2.0 x the engine's events per CPU second",
            _ratios({"": by_name}, BASELINE),
            2.0,
        ),
        _least(
            "exactly-once at least 0.95 x at-least-once",
            _ratios({"": by_name}, LOOSE),
            0.95,
        ),
        _most(
            "worker CPU at most 2.0 µs an event",
            {"": median(run.client_cpu_us for run in mine)} if (mine := by_name.get(MAIN)) else {},
            2.0,
            "µs",
        ),
        _memory(run.peak_client_mib for run in by_name.get(MAIN, [])),
    ]


def _against_engine(loads: Loads, rate: int, least: float) -> Goal:
    text = (
        f"{rate:,} events/s, {_PARTITIONS} partitions, {_PROCESSES} processes: at least {least:.1f} x "
        "the engine's events per CPU second"
    )
    return _least(text, _ratios(_named(loads, lambda load: _is_main(load, rate)), BASELINE), least)


def _share_above_engine(loads: Loads) -> Goal:
    above = {}
    for name, mine in _named(loads, lambda load: _is_main(load, 100)).items():
        if MAIN in mine and BASELINE in mine:
            shares = [median(run.cpu_share for run in mine[who]) for who in (MAIN, BASELINE)]
            above[name] = (shares[0] - shares[1]) * 100
    text = "100 events/s: at most 0.5 % of a CPU above the engine"
    return _most(text, above, 0.5, "%")


def _idle_worker(loads: Loads) -> Goal:
    shares = {}
    for name, mine in _named(loads, lambda load: load.rate == 1_000).items():
        if MAIN in mine:
            shares[name] = 100 * median(
                run.client_cpu_seconds / run.elapsed_seconds / run.load.processes
                for run in mine[MAIN]
            )
    text = "1,000 events/s: a worker, with its share of the metrics process, at most 2 % of a CPU"
    return _most(text, shares, 2.0, "%")


def _partitions(loads: Loads) -> Goal:
    costs: dict[tuple[int, int], dict[int, float]] = {}
    for load, mine in loads.items():
        if MAIN in mine:
            of_size = costs.setdefault((load.rate, load.processes), {})
            of_size[load.partitions] = median(run.cpu_us for run in mine[MAIN])
    ratios = {
        f"{rate:,}/s x{processes}": found[128] / found[8]
        for (rate, processes), found in costs.items()
        if found.keys() >= {8, 128}
    }
    return _most("an event with 128 partitions at most 1.15 x of one with 8", ratios, 1.15, "x")


def _against_loose(loads: Loads) -> Goal:
    text = "exactly-once at least 0.95 x at-least-once, at every rate"
    return _least(text, _ratios(_named(loads, lambda _: True), LOOSE), 0.95)


def _with_rollups(loads: Loads) -> Goal:
    text = "with the default rollups, at every rate: cheaper than the engine without any"
    return _least(text, _ratios(_named(loads, lambda _: True), BASELINE, ROLLED_UP), 1.0)


def _latency(loads: Loads) -> Goal:
    found = {
        name: median(run.p99_seconds for run in mine[MAIN])
        for name, mine in _named(
            loads, lambda load: load.rate == 10_000 and load.flush_seconds == 1
        ).items()
        if MAIN in mine
    }
    text = "p99 from produced to readable at 10,000 events/s with --flush-interval 1: at most 1.5 s"
    return _most(text, found, 1.5, "s")


def _memory(peaks: Iterable[int]) -> Goal:
    peak = max(peaks, default=0) * _MIB / 1e6
    found = {"": peak} if peak else {}
    return _most(f"memory of a worker: at most {_MEMORY_MB} MB", found, _MEMORY_MB, "MB")


def _is_main(load: SteadyLoad, rate: int) -> bool:
    return (load.rate, load.partitions, load.processes) == (rate, _PARTITIONS, _PROCESSES)


def _named(
    loads: Loads, is_meant: Callable[[SteadyLoad], bool]
) -> dict[str, dict[str, list[SteadyRun]]]:
    """Return the runs of these loads, by a name of the load and by contender."""
    return {
        f"{load.rate:,}/s, {load.partitions} partitions x{load.processes}": mine
        for load, mine in loads.items()
        if is_meant(load)
    }


class _Costed(Protocol):
    @property
    def cpu_us(self) -> float: ...


def _ratios(
    named: Mapping[str, Mapping[str, Sequence[_Costed]]], other: str, measured: str = MAIN
) -> dict[str, float]:
    """Return how many times the other contender's events a CPU second carries, by load."""
    return {
        name: median(run.cpu_us for run in mine[other])
        / median(run.cpu_us for run in mine[measured])
        for name, mine in named.items()
        if measured in mine and other in mine
    }


def _least(text: str, ratios: dict[str, float], least: float) -> Goal:
    if not ratios:
        return Goal(text, "")
    name = min(ratios, key=ratios.__getitem__)
    return Goal(text, f"{ratios[name]:.2f} x{_at(name, ratios)}", ratios[name] >= least)


def _most(text: str, values: dict[str, float], most: float, unit: str) -> Goal:
    if not values:
        return Goal(text, "")
    name = max(values, key=values.__getitem__)
    form = ",.0f" if unit == "MB" else ".2f"
    return Goal(text, f"{values[name]:{form}} {unit}{_at(name, values)}", values[name] <= most)


def _at(name: str, values: dict[str, float]) -> str:
    return f" ({name})" if len(values) > 1 else ""
