"""Every function that raw SQL may call was reviewed: measured, bounded by its pattern, or listed."""

from pathlib import Path

from octane_analytics.api.raw_sql import functions, patterns
from tests.tools import function_limits

LISTED = Path(function_limits.__file__).with_name("linear_functions.txt")


def listed() -> list[str]:
    lines = LISTED.read_text("utf-8").splitlines()
    return [name for line in lines if not line.startswith(("#", "[")) for name in line.split()]


def measured() -> set[str]:
    return {name.partition(" (")[0].lower() for name in function_limits.STATEMENTS}


def test_every_allowed_function_was_reviewed() -> None:
    allowed = functions.load()
    bounded = {name for name in allowed.ordinary if patterns.place(name) is not None}
    unknown = (allowed.ordinary | allowed.aggregate) - measured() - bounded - set(listed())
    assert not unknown, f"measure them, or list them in {LISTED.name}: {sorted(unknown)}"


def test_listed_functions_are_allowed_and_stand_once() -> None:
    allowed = functions.load()
    names = listed()
    assert len(names) > 1000
    assert set(names) <= allowed.ordinary | allowed.aggregate
    ordinary_and_aggregate = allowed.ordinary & allowed.aggregate
    twice = {name for name in names if names.count(name) > 1}
    assert twice <= ordinary_and_aggregate
