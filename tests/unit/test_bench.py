"""The benchmarks' arithmetic: quantiles, ratios, medians, and pictures that are to scale."""

import io
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.bench.api import WAYS, Cell, api_table
from tests.bench.clients import Took, at_once
from tests.bench.measure import Run
from tests.bench.place import Backlog, Shape
from tests.bench.plot import Bar, bars, svg
from tests.bench.start import Start, start_table
from tests.bench.tables import side_by_side, sweep_table

RUN = Run(
    contender="exactly-once",
    batch_size=1_000,
    processes=1,
    partitions=8,
    event_bytes=None,
    events_per_second=200_000.0,
    client_cpu_us=2.0,
    clickhouse_cpu_us=2.0,
    peak_client_mib=130,
    peak_clickhouse_mib=400,
    parts=20,
)
ENGINE = replace(
    RUN,
    contender="kafka-engine",
    events_per_second=100_000.0,
    client_cpu_us=0.0,
    clickhouse_cpu_us=8.0,
    peak_client_mib=0,
)


def lines(table: Table) -> list[list[str]]:
    """The cells of each line."""
    return [list(cells) for cells in zip(*(column.cells for column in table.columns), strict=True)]


def headed(table: Table) -> list[dict[str, str]]:
    """As `lines`, by heading; of several equal headings the last."""
    headings = [str(column.header) for column in table.columns]
    return [dict(zip(headings, line, strict=True)) for line in lines(table)]


@pytest.mark.parametrize(
    ("share", "milliseconds"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.995, 100.0), (1.0, 100.0)]
)
def test_quantile_is_the_smallest_that_so_many_did_not_exceed(
    share: float, milliseconds: float
) -> None:
    took = Took([float(number) for number in range(100, 0, -1)])
    assert took.quantile(share) == milliseconds


def test_quantile_of_one_is_that_one() -> None:
    assert [Took([7.0]).quantile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [7.0] * 4


def test_clients_share_the_requests_and_number_them() -> None:
    asked: list[list[int]] = [[], [], []]
    took = Took()
    at_once([mine.append for mine in asked], 7, took)
    at_once([mine.append for mine in asked], 3, took)
    assert asked == [[0, 1, 2, 0]] * 3
    assert len(took.milliseconds) == 12
    assert took.per_second == pytest.approx(12 / took.wall_seconds)


def test_clients_in_step_make_each_request_at_the_same_moment() -> None:
    crowd = 4
    # Passes only if all are within it at once.
    meeting = threading.Barrier(crowd, timeout=30)
    numbers: list[int] = []

    def ask(number: int) -> None:
        meeting.wait()
        numbers.append(number)

    at_once([ask] * crowd, 3 * crowd, Took(), in_step=True)
    assert numbers == sorted(numbers)
    assert len(numbers) == 3 * crowd


@pytest.mark.parametrize("in_step", [False, True])
def test_client_that_fails_is_told_and_nobody_waits_for_it(in_step: bool) -> None:
    def fail(number: int) -> None:
        raise ValueError(f"request {number}")

    with pytest.raises(ValueError, match="request 0"):
        at_once([lambda _: None, fail], 10, Took(), in_step=in_step)


def test_contender_is_set_against_the_kafka_engine() -> None:
    worker, engine = headed(side_by_side([RUN, ENGINE], ["exactly-once", "kafka-engine"]))
    assert worker["events/s"] == "200,000"
    assert worker["x"] == "2.00"
    assert worker["events/CPU s x"] == "2.00"  # 4 microseconds against 8
    assert worker["peak MiB"] == "130"
    assert engine["x"] == "1.00"
    assert engine["peak MiB"] == ""


def test_median_is_told_with_the_lowest_and_the_highest() -> None:
    runs = [replace(RUN, client_cpu_us=cost) for cost in (3.0, 2.0, 9.0)]
    (line,) = headed(side_by_side(runs, ["exactly-once"]))
    assert line["client µs"] == "3.00 (2.00 to 9.00)"


def test_runs_of_each_shape_are_compared_among_themselves() -> None:
    larger = [replace(run, batch_size=50_000) for run in (RUN, ENGINE)]
    larger[0] = replace(larger[0], clickhouse_cpu_us=0.0)
    table = side_by_side([RUN, ENGINE, *larger], ["exactly-once", "kafka-engine"])
    assert [(line["batch"], line["events/CPU s x"]) for line in headed(table)] == [
        ("1,000", "2.00"),
        ("1,000", "1.00"),
        ("50,000", "4.00"),
        ("50,000", "1.00"),
    ]


def test_sweep_is_set_against_its_first_value() -> None:
    shapes = [Shape(Backlog(1_000, partitions), 1_000) for partitions in (4, 64)]
    found = [(shapes[0], RUN), (shapes[1], replace(RUN, client_cpu_us=3.0))]
    table = sweep_table("partitions", shapes, ["exactly-once"], found)
    assert [(line[0], line[4], line[7]) for line in lines(table)] == [
        ("4", "1.00", "1.00"),
        ("64", "1.50", "1.25"),
    ]


def test_api_is_set_against_the_direct_way_of_the_same_crowd() -> None:
    cells = [
        Cell("report", clients, way, 400, 100.0, p50 * clients, p99 * clients)
        for clients in (1, 4)
        for way, p50, p99 in zip(WAYS, (10.0, 11.0, 1.0, 5.0), (20.0, 30.0, 2.0, 10.0), strict=True)
    ]
    table = api_table(cells)
    assert [line[5] for line in lines(table)] == ["1.00", "1.10", "0.10", "0.50"] * 2
    assert [line[7] for line in lines(table)] == ["1.00", "1.50", "0.10", "0.50"] * 2


def test_start_tells_the_time_since_the_group_formed() -> None:
    starts = [Start(1.0, 1.5, 2.0), Start(1.0, 3.0, 4.0), Start(2.0, 2.25, 3.0)]
    told = {line[0]: line[1:] for line in lines(start_table(starts, [(0.2, 0.1)]))}
    assert told["group forms until all consume"] == ["0.50", "0.25", "2.00"]
    assert told["start until all consume"] == ["2.25", "1.50", "3.00"]
    assert told["--help, CPU"] == ["0.10"] * 3


def rects(picture: str) -> list[dict[str, str]]:
    root: Any = ET.fromstring(picture)  # noqa: S314  # drawn here
    found = root.iter("{http://www.w3.org/2000/svg}rect")
    return [rect.attrib for rect in found if "x" in rect.attrib]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars(
            "a < b & c", [Bar("<one>", (1.0, 2.0), "x"), Bar("two", (6.0, 0.0), "y")], ("p", "q")
        ),
        lambda: svg([RUN, ENGINE]),
    ],
)
def test_picture_is_well_formed_and_nothing_of_it_is_outside(draw: Callable[[], str]) -> None:
    root: Any = ET.fromstring(draw())  # noqa: S314  # drawn here
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in rects(draw()):
        assert 0 <= float(rect["x"]) <= float(rect["x"]) + float(rect["width"]) <= width
        assert 0 <= float(rect["y"]) <= float(rect["y"]) + float(rect["height"]) <= height


def test_bars_are_to_scale() -> None:
    picture = bars("t", [Bar("one", (1.0, 2.0), ""), Bar("two", (6.0, 0.0), "")], ("p", "q"))
    one, of_one, two, of_two = (float(rect["width"]) for rect in rects(picture)[2:])
    assert of_one == pytest.approx(2 * one, rel=0.01)
    assert two == pytest.approx(6 * one, rel=0.01)
    assert of_two == 0


def test_tables_fit_a_terminal() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(side_by_side([RUN, ENGINE], ["exactly-once", "kafka-engine"]))
    assert "…" not in console.export_text()
