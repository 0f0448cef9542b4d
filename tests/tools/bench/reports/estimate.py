"""Expected duration and disk of a run, from figures of two quiet cores."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.tools.bench.reports.by_hand import ALTERNATIVES
from tests.tools.bench.reports.insert_cost import WAYS as INSERT_WAYS
from tests.tools.bench.reports.ledgers import RAW, ROLLUPS, Ledgers
from tests.tools.bench.reports.questions import RANGES
from tests.tools.bench.reports.through_api import BUDGET_SECONDS

_BUILD_US = {RAW: 4.7, ROLLUPS: 12.0}
"""Microseconds an event; the raw ledger with its views."""
_BYTES = {RAW: 65.0, ROLLUPS: 20.0}
"""Bytes an event, while it is merged; the data of the rollups' table is shared."""
_READ_US = {RAW: 0.6, ROLLUPS: 0.02}
_LEAST_SECONDS = {RAW: 0.05, ROLLUPS: 0.15}
_DAY_COUNT = 90
_INSERT_SECONDS = 5.0
"""Of one size, in one way, in one round."""


@dataclass(frozen=True)
class Scope:
    """Extent of a run."""

    sizes: Sequence[int]
    parts: Sequence[int]
    reports: Sequence[str]
    spans: Sequence[str]
    rounds: int
    ways: Sequence[str]
    """Kinds of tables."""
    insert_sizes: Sequence[int]
    crowds: Sequence[int]
    requests: int
    timeout_seconds: float


def build_seconds(scope: Scope, ledgers: Ledgers) -> float:
    """Return the expected duration until all ledgers are built."""
    return sum(
        events * _BUILD_US[way] / 1e6
        for events in scope.sizes
        for parts in scope.parts
        for way in scope.ways
        if not ledgers.is_built(way, events, parts)
    )


def measure_seconds(scope: Scope) -> float:
    """Return the expected duration of everything after that."""
    return len(scope.insert_sizes) * len(INSERT_WAYS) * scope.rounds * _INSERT_SECONDS + sum(
        _cell_seconds(scope, events, way, report, span) * len(scope.parts)
        for events in scope.sizes
        for way in scope.ways
        for report in scope.reports
        for span in scope.spans
    )


def new_bytes(scope: Scope, ledgers: Ledgers) -> float:
    """Return the disk that the tables take which are not built yet."""
    return sum(
        events * _BYTES[way]
        for events in scope.sizes
        for parts in scope.parts
        for way in scope.ways
        if not ledgers.is_built(way, events, parts)
    )


def _cell_seconds(scope: Scope, events: int, way: str, report: str, span: str) -> float:
    share = RANGES[span].days / _DAY_COUNT
    once = min(_LEAST_SECONDS[way] + events * share * _READ_US[way] / 1e6, scope.timeout_seconds)
    executions = 2 * scope.rounds
    if way == RAW and report in ALTERNATIVES:
        executions *= 2  # the queries by hand
    if once == scope.timeout_seconds:
        return once  # is not run again
    total = once * executions
    for crowd in scope.crowds:
        requests = max(scope.requests, crowd)
        if once * requests <= BUDGET_SECONDS:
            total += once * (requests + crowd)
    return total
