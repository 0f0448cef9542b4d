"""Arithmetic of the benchmarks: quantiles, ratios, medians, and pictures to scale."""

import io
import json
import random
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.support.table_cells import headed, lines
from tests.tools.bench.api import WAYS, Cell, api_table
from tests.tools.bench.backlog import Backlog, Shape, even_events, sized
from tests.tools.bench.clients import at_once, quantile
from tests.tools.bench.command import main
from tests.tools.bench.measure import Look, Run, pace
from tests.tools.bench.plot import side_by_side_svg, sweep_svg
from tests.tools.bench.start import Start, start_table
from tests.tools.bench.svg_bars import Bar, bars, ticks
from tests.tools.bench.sweep import swept
from tests.tools.bench.tables import extremes, side_by_side, sweep_table

RUN = Run(
    contender="exactly-once",
    batch_size=1_000,
    processes=1,
    partitions=8,
    event_bytes=None,
    events=1_000,
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


BAR = Bar("one", "<one>", (1.0, 2.0), "3 s")


@pytest.mark.parametrize(
    ("share", "milliseconds"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.995, 100.0), (1.0, 100.0)]
)
def test_quantile_is_the_smallest_sufficient_value(share: float, milliseconds: float) -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert quantile(values, share) == milliseconds


def test_quantile_of_one_is_that_one() -> None:
    assert [quantile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [7.0] * 4


def test_clients_share_the_requests_and_number_them() -> None:
    asked: list[list[int]] = [[], [], []]
    took = at_once([mine.append for mine in asked], 7)
    assert asked == [[0, 1, 2]] * 3
    assert len(took.milliseconds) == 9
    assert took.per_second == pytest.approx(9 / took.wall_seconds)


def test_clients_in_step_send_requests_at_once() -> None:
    crowd = 4
    # Passes only if all clients are inside at once.
    meeting = threading.Barrier(crowd, timeout=30)
    numbers: list[int] = []

    def ask(number: int) -> None:
        meeting.wait()
        numbers.append(number)

    at_once([ask] * crowd, 3 * crowd, in_step=True)
    assert numbers == sorted(numbers)
    assert len(numbers) == 3 * crowd


@pytest.mark.parametrize("in_step", [False, True])
def test_client_failure_raises_without_blocking_the_others(in_step: bool) -> None:
    def fail(number: int) -> None:
        raise ValueError(f"request {number}")

    with pytest.raises(ValueError, match="request 0"):
        at_once([lambda _: None, fail], 10, in_step=in_step)


def test_contender_is_set_against_the_kafka_engine() -> None:
    worker, engine = headed(side_by_side([RUN, ENGINE], ["exactly-once", "kafka-engine"]))
    assert worker["events/s"] == "200,000"
    assert worker["x"] == "2.00"
    assert worker["events/CPU s x"] == "2.00"  # 4 microseconds against 8
    assert worker["peak MiB"] == "130"
    assert engine["x"] == "1.00"
    assert engine["peak MiB"] == ""


def test_median_is_shown_with_its_extremes() -> None:
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


def test_rate_and_cost_begin_at_first_poll() -> None:
    first = Look(at=10.0, rows=1_000, client_seconds=5.0, clickhouse_seconds=7.0)
    timed = Look(at=10.5, rows=4_000)
    last = Look(at=19.0, rows=5_000, client_seconds=5.02, clickhouse_seconds=7.01)
    # 3,000 in half a second; 20 and 10 ms for 4,000, independent of the wait for the last ones.
    told = pace(first, timed, last)
    assert told.events_per_second == 6_000.0
    assert told.client_cpu_us == pytest.approx(5.0)
    assert told.clickhouse_cpu_us == pytest.approx(2.5)


def test_events_outside_of_full_batches_are_separate() -> None:
    shape = Shape(Backlog(100_000, 8), 10_000)
    assert shape.full_events(8) == 80_000
    assert shape.full_events(64) == 0
    assert Shape(Backlog(1_600_000, 8), 100_000).full_events(8) == 1_600_000


@pytest.mark.parametrize("axis", ["batch", "partitions", "size"])
def test_sweep_has_whole_batches_of_equal_events(axis: str) -> None:
    values = {
        "batch": (1_000, 10_000, 50_000, 100_000),
        "partitions": (4, 16, 64),
        "size": (200, 10_000),
    }
    shapes = swept(axis, values[axis], None, None)
    (events,) = {shape.backlog.events for shape in shapes}
    for shape in shapes:
        assert shape.full_events(shape.backlog.partitions) == events
        assert events >= 2 * shape.backlog.partitions * shape.batch_size
    assert len(set(shapes)) == len(values[axis])


def test_sweep_takes_the_events_that_it_is_given() -> None:
    assert [shape.backlog.events for shape in swept("partitions", (4, 64), 5_000, 100)] == [
        5_000
    ] * 2
    assert [shape.backlog.events for shape in swept("events", (10, 100), None, 5)] == [10, 100]


def test_even_events_fill_two_batches_per_partition() -> None:
    assert even_events([Shape(Backlog(0, 8), 50_000)]) == 800_000
    assert even_events([Shape(Backlog(0, 4), 10), Shape(Backlog(0, 6), 10)]) == 120


@pytest.mark.parametrize("size", [300, 10_000])
def test_events_are_of_the_size_asked_for(size: int) -> None:
    event = b'{"app_id":"a","timestamp":"2026-02-02T12:00:00.000Z","properties":{"a":1}}'
    (made,) = sized(iter([event]), size, random.Random(1))
    assert len(made) == size
    assert json.loads(made)["app_id"] == "a"
    assert set(json.loads(made)["properties"]) == {"fill"}


def test_extremes_are_the_dearest_against_the_cheapest() -> None:
    shapes = [Shape(Backlog(1_000, partitions), 1_000) for partitions in (4, 16, 64)]
    costs = (3.0, 2.0, 5.0)
    found = [
        (shape, replace(RUN, client_cpu_us=cost)) for shape, cost in zip(shapes, costs, strict=True)
    ]
    assert extremes("partitions", shapes, ["exactly-once"], found) == [
        "exactly-once, client: 5.00 µs an event at partitions 64 against 2.00 at 16: 2.50 x",
        "exactly-once, in all: 7.00 µs an event at partitions 64 against 4.00 at 16: 1.75 x",
    ]


def test_extremes_of_the_engine_have_no_client() -> None:
    shape = Shape(Backlog(1_000, 4), 1_000)
    (told,) = extremes("partitions", [shape], ["kafka-engine"], [(shape, ENGINE)])
    assert "in all" in told


def test_sweep_of_sizes_shows_cost_per_kilobyte() -> None:
    shape = Shape(Backlog(1_000, 8, 200), 1_000)
    found = [(shape, replace(RUN, event_bytes=200))]
    (line,) = headed(sweep_table("size", [shape], ["exactly-once"], found))
    assert line["µs a kB"] == "20.00"


def test_api_is_compared_at_equal_client_count() -> None:
    cells = [
        Cell("report", clients, way, 400, (90.0, 100.0, 120.0), p50 * clients, p99 * clients)
        for clients in (1, 4)
        for way, p50, p99 in zip(WAYS, (10.0, 11.0, 1.0, 5.0), (20.0, 30.0, 2.0, 10.0), strict=True)
    ]
    table = api_table(cells)
    assert [line[5] for line in lines(table)] == ["1.00", "1.10", "0.10", "0.50"] * 2
    assert [line[7] for line in lines(table)] == ["1.00", "1.50", "0.10", "0.50"] * 2
    assert {line[3] for line in lines(table)} == {"100 (90 to 120)"}


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


SHAPES = [Shape(Backlog(1_000, partitions), 1_000) for partitions in (4, 64)]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: bars(
            "a < b & c", "s", [BAR, replace(BAR, label="<two>", group="& more")], ("p", "q")
        ),
        lambda: side_by_side_svg([RUN, ENGINE], ["exactly-once", "kafka-engine"]),
        lambda: sweep_svg("partitions", [(shape, RUN) for shape in SHAPES], ["exactly-once"]),
        lambda: bars("nothing", "s", [replace(BAR, values=(0.0, 0.0))], ("p", "q")),
    ],
)
def test_picture_is_well_formed_and_within_bounds(draw: Callable[[], str]) -> None:
    root: Any = ET.fromstring(draw())  # noqa: S314  # drawn here
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in rects(draw()):
        assert 0 <= float(rect["x"]) <= float(rect["x"]) + float(rect["width"]) <= width
        assert 0 <= float(rect["y"]) <= float(rect["y"]) + float(rect["height"]) <= height


def test_bars_are_to_scale_and_ticks_beneath_them() -> None:
    drawn = [BAR, replace(BAR, values=(6.0, 0.0))]
    found = rects(bars("t", "s", drawn, ("p", "q")))
    lines = [float(rect["x"]) for rect in found if rect["width"] == "1.0"]
    one, of_one, two, of_two = (rect for rect in found if rect["height"] == "20")
    assert float(of_one["width"]) == pytest.approx(2 * float(one["width"]), rel=0.01)
    assert float(two["width"]) == pytest.approx(6 * float(one["width"]), rel=0.01)
    assert float(of_two["width"]) == 0
    assert len(lines) == len(ticks(6.0)) == 4
    assert lines[0] == float(two["x"])
    assert lines[-1] == pytest.approx(float(two["x"]) + float(two["width"]), abs=0.2)


@pytest.mark.parametrize(
    ("longest", "marks"),
    [
        (6.0, [0, 2, 4, 6]),
        (23.8, [0, 5, 10, 15, 20]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (526.6, [0, 100, 200, 300, 400, 500]),
    ],
)
def test_ticks_are_round_and_within(longest: float, marks: list[float]) -> None:
    assert ticks(longest) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plot", "plot.pdf"], "pictures are .svg or .png"),
        (["sweep", "size", "--plot", "plot"], "pictures are .svg or .png"),
        (["--rounds", "0"], "--rounds"),
        (["profile", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_command_rejects_invalid_options_before_the_start(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert told in done.output


def test_tables_fit_a_terminal() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(side_by_side([RUN, ENGINE], ["exactly-once", "kafka-engine"]))
    assert "…" not in console.export_text()
