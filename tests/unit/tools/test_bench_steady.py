"""Tables and remarks of the benchmark at steady rates."""

from dataclasses import replace

from tests.support.table_cells import headed
from tests.tools.bench.steady import grouped, rate_remarks, steady_svg, steady_table
from tests.tools.bench.steady_run import SteadyLoad, SteadyRun

LOAD = SteadyLoad(rate=1_000, partitions=32, processes=2, seconds=7)
RUN = SteadyRun(
    contender="exactly-once",
    load=LOAD,
    sent_per_second=1_000.0,
    is_rate_held=True,
    elapsed_seconds=12.5,
    client_cpu_seconds=0.5,
    clickhouse_cpu_seconds=0.5,
    inserts=100,
)
ENGINE = replace(
    RUN, contender="kafka-engine", client_cpu_seconds=0.0, clickhouse_cpu_seconds=0.4, inserts=4
)


def test_costs_count_every_event_that_was_sent() -> None:
    assert RUN.events == 10_000
    assert (RUN.client_cpu_us, RUN.clickhouse_cpu_us, RUN.cpu_us) == (50.0, 50.0, 100.0)
    assert RUN.cpu_share == 0.08
    assert (RUN.inserts_per_second, RUN.rows_per_insert) == (8.0, 100.0)


def test_table_compares_contenders_under_the_same_load() -> None:
    other = replace(LOAD, rate=50_000)
    table = steady_table([RUN, ENGINE, replace(RUN, load=other)])
    lines = headed(table)
    assert [line["events/CPU s x"] for line in lines] == ["0.40", "1.00", ""]
    assert [line["rows an insert"] for line in lines] == ["100", "2,500", "5,000"]


def test_rounds_of_one_load_share_a_line() -> None:
    runs = [RUN, replace(RUN, client_cpu_seconds=1.5), replace(RUN, client_cpu_seconds=1.0)]
    assert len(grouped(runs)) == 1
    (line,) = headed(steady_table(runs))
    assert line["client µs"] == "100.0 (50.0 to 150.0)"


def test_rate_that_was_not_held_is_remarked() -> None:
    assert rate_remarks([RUN, ENGINE]) == []
    (remark,) = rate_remarks([RUN, replace(RUN, is_rate_held=False, sent_per_second=812.0)])
    assert "not held in 1 of 2 runs (812/s at the least)" in remark


def test_picture_has_a_bar_for_each_contender() -> None:
    svg = steady_svg([RUN, ENGINE])
    assert "exactly-once" in svg
    assert "kafka-engine" in svg
    assert "1,000 events/s, 32 partitions, x2" in svg
