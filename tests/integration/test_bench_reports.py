"""`bin/bench reports` on a real ClickHouse: its ledgers, a small run, and its end by Ctrl-C."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from octane_analytics.api.reports.parameters import bind
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.generator import EventClock, Session, generate
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.command import wait_until
from tests.support.ports import free_port
from tests.tools.bench.command import main
from tests.tools.bench.reports import by_hand, ledgers, questions, rollups
from tests.tools.bench.reports.ledger_events import EVENTS_PER_SESSION, Ledger, select_events

ROOT = Path(__file__).resolve().parents[2]
LEDGER = Ledger(60_000, datetime(2026, 3, 1, 12, 34, tzinfo=UTC), seed=7)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse")) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouse(settings, client_name="test") as connection:
            yield connection


def select(clickhouse: ClickHouse, columns: str, group: str = "") -> list[tuple[Any, ...]]:
    events = select_events(LEDGER, 0, LEDGER.sessions)
    return clickhouse.select(f"SELECT {columns} FROM ({events}) {group}").rows


def fingerprint(clickhouse: ClickHouse, *slices: tuple[int, int], seed: int = LEDGER.seed) -> int:
    """Sum of the hashes of all rows, which does not depend on their order."""
    ledger = replace(LEDGER, seed=seed)
    return sum(
        int(
            clickhouse.select(
                f"SELECT sum(cityHash64(*)) FROM ({select_events(ledger, first, end)})",
                settings={"max_block_size": 1 + end % 100},
            ).rows[0][0]
        )
        for first, end in slices
    ) % (1 << 64)


def test_ledger_is_the_same_in_any_slices(clickhouse: ClickHouse) -> None:
    end = LEDGER.sessions
    whole = fingerprint(clickhouse, (0, end))
    assert whole == fingerprint(clickhouse, (0, 7), (7, end // 2), (end // 2, end))
    assert whole != fingerprint(clickhouse, (0, end), seed=LEDGER.seed + 1)


def test_ledger_has_its_size_and_range(clickhouse: ClickHouse) -> None:
    (count, ids, first, last, users, days), *_ = select(
        clickhouse,
        "count(), uniqExact(JSONExtractString(properties, 'event_id')), min(timestamp), "
        "max(timestamp), uniqExact(user_id), uniqExact(toDate(timestamp))",
    )
    assert count == ids == pytest.approx(LEDGER.events, rel=0.03)
    assert LEDGER.begin <= first.replace(tzinfo=UTC) < last.replace(tzinfo=UTC) < LEDGER.until
    assert (users, days) == (LEDGER.users, LEDGER.days + 1)


def test_ledger_has_the_properties_of_generated_events(clickhouse: ClickHouse) -> None:
    generated = set()
    for line in generate(LEDGER.events, seed=7, until=LEDGER.until):
        event = json.loads(line)
        generated |= typed(event["event_name"], event["properties"])
    found = set()
    for name, properties in select(clickhouse, "event_name, properties"):
        found |= typed(name, json.loads(properties))
    assert found == generated


def typed(event_name: str, properties: dict[str, Any]) -> set[tuple[str, str, type]]:
    return {(event_name, name, type(value)) for name, value in properties.items()}


def test_ledger_has_the_counts_and_sizes_of_sessions(clickhouse: ClickHouse) -> None:
    draw = random.Random(7).random
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    sessions = 8_000
    for _ in range(sessions):
        session = Session(draw, EventClock(int(draw() * 86_400)))
        for name, own in session.steps:
            counts[name] += 1
            sizes[name] += len(f'{{"event_id":"{0:022}",{own}{session.tail[:-1]}')
    found = select(
        clickhouse, "event_name, count(), sum(length(properties))", "GROUP BY event_name"
    )
    assert {name for name, *_ in found} == set(counts)
    # Sessions at the ends of the range are counted by their part in it.
    ledger_sessions = LEDGER.events / EVENTS_PER_SESSION
    for name, count, size in found:
        per_session = counts[name] / sessions
        assert count / ledger_sessions == pytest.approx(per_session, rel=0.1), name
        assert size / count == pytest.approx(sizes[name] / counts[name], rel=0.01), name
    total, total_bytes = (sum(each[column] for each in found) for column in (1, 2))
    assert total / ledger_sessions == pytest.approx(counts.total() / sessions, rel=0.03)
    assert total_bytes / total == pytest.approx(sizes.total() / counts.total(), rel=0.01)


def test_every_report_finds_rows_in_a_ledger(clickhouse: ClickHouse) -> None:
    ledgers.create(clickhouse, is_merged=True)
    ledgers.fill(clickhouse, LEDGER, [0], LEDGER.sessions)
    for name, template in questions.reports().items():
        given = questions.parameters(template, questions.RANGES["90d"], LEDGER)
        table = {"database": clickhouse.table.database, "table": clickhouse.table.table}
        bound = bind(template, given, datetime.now(UTC))
        found = clickhouse.select(
            template.statement(bound.effective, bound.range),
            {**bound.values, **table},
            settings=template.settings(bound.range),
        )
        assert found.rows, name


def add_small_rollup(settings: ClickHouseSettings) -> None:
    """Stand in for a `schema apply` without --rollups."""
    with ClickHouse(settings, client_name="test") as clickhouse:
        clickhouse.execute(
            f"ALTER TABLE {clickhouse.table} ADD PROJECTION r_app "
            "(SELECT app_id, count() GROUP BY app_id)"
        )
        clickhouse.execute(
            f"ALTER TABLE {clickhouse.table} MATERIALIZE PROJECTION r_app SETTINGS mutations_sync = 2"
        )


def test_run_measures_every_way_and_keeps_ledgers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rollups.are_available():
        monkeypatch.setattr(rollups, "are_available", lambda: True)
        monkeypatch.setattr(rollups, "apply", add_small_rollup)
    file, drawing, directory = (tmp_path / name for name in ("run.json", "run.svg", "ledgers"))
    arguments = [
        *("reports", "--events", "20000", "--parts", "1", "--parts", "20", "--rounds", "1"),
        *("--directory", str(directory), "--range", "7d", "--range", "90d"),
        *("--report", "overview_stats", "--report", "top_content", "--report", "funnel"),
        *("--insert-rows", "1000", "--insert-events", "3000", "--clients", "2", "--requests", "2"),
        *("--port", str(free_port()), "--json", str(file), "--plot", str(drawing)),
    ]
    first, second = (
        CliRunner().invoke(main, [*arguments, *more], catch_exceptions=False)
        for more in ([], ["--build-only"])
    )
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    assert "building raw_20000_1" in first.output
    assert "building" not in second.output
    written = json.loads(file.read_text())
    built = {(each["way"], each["parts"]): each for each in written["built"]}
    assert len({each["rows"] for each in built.values()}) == 1
    # The months' borders cut some inserts in two.
    assert all(20 <= built[way, 20]["parts_on_disk"] <= 24 for way in ("raw", "rollups"))
    assert built["raw", 1]["parts_on_disk"] <= 4
    assert built["rollups", 1]["rollups"]
    assert not built["raw", 1]["rollups"]
    cells = {
        (cell["report"], cell["span"], cell["way"], cell["parts"]): cell
        for cell in written["cells"]
    }
    # Queries by hand and views: two reports, over merged ledgers only.
    assert len(cells) == 3 * 2 * 2 * 2 + 2 * 2 * 2
    assert all(len(cell["warm"]) == len(cell["cold"]) == 1 for cell in cells.values())
    assert all(cell["read_rows"] and cell["peak_bytes"] for cell in cells.values())
    # The range is the whole ledger: the same total, however it is counted.
    totals = {
        cell["first_value"]
        for (report, span, *_), cell in cells.items()
        if (report, span) == ("overview_stats", "90d")
    }
    assert totals == {str(built["raw", 1]["rows"])}
    assert {cost["way"] for cost in written["inserts"]} == {"raw", "rollups", "view"}
    assert all(cell["per_second"] > 0 for cell in written["api"])
    assert len(written["api"]) == 3 * 2 * 2 * 2
    assert drawing.read_text().startswith("<svg")


def test_shards_have_the_events_of_one_server(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    arguments = [
        *("reports", "--events", "10000", "--rounds", "1", "--range", "90d", "--shards", "2"),
        *("--report", "overview_stats", "--insert-rows", "0", "--clients", "0"),
        *("--directory", str(tmp_path / "ledgers"), "--json", str(file)),
    ]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written = json.loads(file.read_text())
    rows = {each["way"]: each["rows"] for each in written["built"]}
    totals = {cell["way"]: cell["first_value"] for cell in written["cells"]}
    assert set(rows) == {"raw", "rollups", "sharded"}
    assert set(rows.values()) == set(map(int, totals.values()))


def test_query_over_the_time_limit_ends_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "SELECT count() FROM numbers(40) WHERE NOT ignore(sleepEachRow(0.05))"
    given = replace(by_hand.ALTERNATIVES["top_content"], query=slow)
    monkeypatch.setitem(by_hand.ALTERNATIVES, "top_content", given)
    file = tmp_path / "run.json"
    bench = ["reports", "--events", "1000", "--no-rollups", "--report", "top_content"]
    bench += ["--range", "24h", "--timeout", "1", "--insert-rows", "0", "--clients", "0"]
    done = CliRunner().invoke(main, [*bench, "--json", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cells = {cell["way"]: cell for cell in json.loads(file.read_text())["cells"]}
    assert (cells["by hand"]["error"], cells["by hand"]["cold"]) == ("over 1 s", [])
    assert all(len(cells[way]["warm"]) == 3 for way in ("raw", "view"))
    assert "over 1 s" in done.output


def test_other_seed_or_days_reject_the_directory(tmp_path: Path) -> None:
    (tmp_path / "ledgers.json").write_text(
        json.dumps({"until": LEDGER.until.isoformat(), "days": 30, "seed": 1, "tables": []})
    )
    done = CliRunner().invoke(main, ["reports", "--build-only", "--directory", str(tmp_path)])
    assert done.exit_code == 1
    assert "another --directory" in done.output


def test_interrupt_leaves_no_process_running(tmp_path: Path) -> None:
    directory = tmp_path / "ledgers"
    command = [sys.executable, "-m", "tests.tools.bench.command", "reports", "--build-only"]
    command += ["--events", "50000000", "--directory", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        while "building" not in (line := bench.stderr.readline()):
            assert line, "ended before it built anything"
        assert processes_of(directory)
        bench.send_signal(signal.SIGINT)
        bench.communicate(timeout=60)
    assert bench.returncode == 1
    wait_until(lambda: not processes_of(directory))


def processes_of(directory: Path) -> list[str]:
    """Processes whose command line names the directory, except this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(directory) in (process / "cmdline").read_text() and process.name != str(
                os.getpid()
            ):
                found.append(process.name)
    return found
