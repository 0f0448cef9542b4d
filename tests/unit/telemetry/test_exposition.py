"""What is shown of a directory that many processes share."""

import os
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from octane_analytics.telemetry import api_metrics, exposition, liveness, shared_directory
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.observer import WorkerObserver
from octane_analytics.telemetry.worker_metrics import (
    ProcessMetrics,
    WeightedHistogram,
    WorkerMetrics,
)


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")


def _text(directory: Path) -> str:
    return exposition.exposition(directory).decode()


def _process(directory: Path, role: str, slot: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """As a process that starts; answers what it holds as long as it lives."""
    held: list[int] = []
    real = liveness.lock

    def hold(directory: Path, name: str) -> int:
        held.append(real(directory, name))
        return held[-1]

    monkeypatch.setattr(liveness, "lock", hold)
    shared_directory.open_directory(directory, shared_directory.ProcessName(role, slot))
    monkeypatch.setattr(liveness, "lock", real)
    return held[0]


def test_counters_outlive_a_process_and_gauges_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _process(tmp_path, "worker", 0, monkeypatch)
    counted = WorkerMetrics()
    counted.events_consumed.inc(7)
    counted.assigned_partitions.set(4)
    counted.outage.labels("clickhouse").set(1)
    assert "analytics_assigned_partitions 4.0" in _text(tmp_path)
    assert shared_directory.unready(tmp_path, ["worker-0"]) == ["waiting for clickhouse"]
    os.close(held)  # as its end would
    assert "analytics_assigned_partitions 4.0" not in _text(tmp_path)
    assert "analytics_events_consumed_total 7.0" in _text(tmp_path)
    assert shared_directory.unready(tmp_path, ["worker-0"]) == ["worker-0 is not running"]
    held = _process(tmp_path, "worker", 0, monkeypatch)
    again = WorkerMetrics()
    again.events_consumed.inc(1)
    assert "analytics_events_consumed_total 8.0" in _text(tmp_path)
    assert shared_directory.unready(tmp_path, ["worker-0"]) == []
    os.close(held)


def test_a_new_boot_removes_its_own_role_s_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("worker", "api"):
        os.close(_process(tmp_path, role, 0, monkeypatch))
        WorkerMetrics().events_consumed.inc(5)
        InsertedEventCounter(tmp_path, f"{role}-0").count(0, 3, "a")
    shared_directory.remove_files(tmp_path, "worker")
    assert "analytics_events_consumed_total 5.0" in _text(tmp_path)
    assert not list(tmp_path.glob("*worker-0.db"))
    ancient = tmp_path / "counter_web-0.db"
    ancient.touch()
    os.utime(ancient, (1, 1))
    shared_directory.remove_files(tmp_path, "worker")
    assert not ancient.exists()


def test_inserted_events_are_shown_before_there_are_any(tmp_path: Path) -> None:
    assert "analytics_events_inserted_total 0.0" in _text(tmp_path)
    InsertedEventCounter(tmp_path, "worker-0").count(0, 12, "a")
    assert "analytics_events_inserted_total 12.0" in _text(tmp_path)


def test_a_file_that_goes_away_under_a_scrape_fails_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(_process(tmp_path, "worker", 0, monkeypatch))
    WorkerMetrics().events_consumed.inc(5)
    gone = tmp_path / "counter_worker-9.db"
    gone.touch()
    real = liveness.alive

    def present(directory: Path) -> frozenset[str]:
        gone.unlink()
        return real(directory)

    monkeypatch.setattr(liveness, "alive", present)
    assert "analytics_events_consumed_total 5.0" in _text(tmp_path)


def test_what_is_shown_is_what_the_library_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    for slot in range(3):
        held.append(_process(tmp_path, "worker", slot, monkeypatch))
        counted = WorkerMetrics()
        WorkerObserver(counted, InsertedEventCounter(tmp_path, f"worker-{slot}"))
        counted.events_consumed.inc(slot + 0.5)
        counted.outage.labels("kafka").set(1)
        for reason in ('"quoted"', "back\\slash", "two\nlines", "ü", ""):
            counted.events_rejected.labels(reason).inc(1e20)
        for stage in ("insert", "fetch"):
            counted.stage_seconds.labels(stage).observe(0.05 * slot)
        ProcessMetrics().resident_bytes.labels(f"worker-{slot}").set(1 << 40)
    Counter("other_total", 'A "help" with \\ and\nlines.', registry=None).inc()
    Histogram("plain", "Without labels.", registry=None).observe(3)
    Histogram("split", "With two.", ["b", "a"], registry=None).labels("1", "2").observe(3)
    (tmp_path / "counter_worker-8.db").touch()
    (tmp_path / "counter_worker-9.db").write_bytes(bytes(1 << 16))  # they are being made
    registry = CollectorRegistry()
    (tmp_path / "counter_worker-8.db").unlink()  # at which the library fails
    MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    registry.register(exposition.ComputedMetrics(tmp_path))
    expected = generate_latest(registry).decode()
    (tmp_path / "counter_worker-8.db").touch()
    shown = _text(tmp_path)
    assert sorted(shown.splitlines()) == sorted(expected.splitlines())
    families = list(text_string_to_metric_families(shown))
    assert len({family.name for family in families}) == len(families), "each family is in one piece"
    for descriptor in held:
        os.close(descriptor)


def test_what_is_added_and_replaced_between_two_looks_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = exposition.Exposition(tmp_path)
    held = _process(tmp_path, "worker", 0, monkeypatch)
    counted = WorkerMetrics()
    counted.events_consumed.inc(7)
    counted.queue_bytes.set(3)
    assert "analytics_librdkafka_queue_bytes 3.0" in shown().decode()
    assert 'reason="late"' not in shown().decode()
    counted.events_rejected.labels("late").inc()
    for number in range(200):  # beyond the first page, and the file's first size
        counted.events_rejected.labels(f"{number}" * 100).inc()
    counted.events_consumed.inc(1)
    text = shown().decode()
    assert 'analytics_events_rejected_total{reason="late"} 1.0' in text
    assert text.count("analytics_events_rejected_total{") == 201
    assert "analytics_events_consumed_total 8.0" in text
    os.close(held)
    assert "analytics_librdkafka_queue_bytes" not in shown().decode()
    held = _process(tmp_path, "worker", 0, monkeypatch)  # its gauges are in a new file
    again = WorkerMetrics()
    again.assigned_partitions.set(4)
    again.queue_bytes.set(5)
    text = shown().decode()
    assert "analytics_librdkafka_queue_bytes 5.0" in text
    assert "analytics_assigned_partitions 4.0" in text
    shared_directory.remove_files(tmp_path, "worker")
    assert "analytics_events_consumed_total" not in shown().decode()
    shown.close()
    os.close(held)


def test_every_gauge_is_a_sum() -> None:
    """`sums` knows no other mode."""
    made = [WorkerMetrics(None), ProcessMetrics(None), api_metrics.ApiMetrics(None)]
    gauges = [metric for group in made for metric in vars(group).values()
              if isinstance(metric, Gauge)]  # fmt: skip
    assert len(gauges) >= 4
    assert {gauge._multiprocess_mode for gauge in gauges} == {"sum"}


def test_ages_in_one_call_are_as_many_in_many() -> None:
    one = WeightedHistogram("one", "", buckets=(1, 2, 5), registry=None)
    many = WeightedHistogram("many", "", buckets=(1, 2, 5), registry=None)
    moments = [93, 95, 97.9, 98, 98.5, 99, 99.5, 100, 104]
    one.observe_ages(100.0, moments, 3.0)
    for moment in moments * 3:
        many.observe(max(0.0, 100.0 - moment))
    (first,), (second,) = one.collect(), many.collect()
    seen_by_one, seen_by_many = (
        {sample.labels.get("le", sample.name[-4:]): sample.value for sample in family.samples[:6]}
        for family in (first, second)
    )
    assert seen_by_one == pytest.approx(seen_by_many)
    assert seen_by_one["+Inf"] == 27


def test_sixteen_processes_are_shown_in_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted is CPU, and of the best of some, so that it is nobody else's."""
    held = []
    for slot in range(14):
        held.append(_process(tmp_path, "worker", slot, monkeypatch))
        WorkerObserver(WorkerMetrics(), InsertedEventCounter(tmp_path, f"worker-{slot}"))
        ProcessMetrics().resident_bytes.labels(f"worker-{slot}").set(1)
        InsertedEventCounter(tmp_path, f"worker-{slot}").count(slot, 5, "a")
    for slot in range(2):
        held.append(_process(tmp_path, "api", slot, monkeypatch))
        counted = api_metrics.ApiMetrics()
        for route in ("/report", "/report/{name}", "/reports", "/query", "/metrics", "/readyz"):
            counted.request_seconds.labels(route).observe(1)
            for status in ("200", "400", "403", "503"):
                counted.requests.labels(route, status).inc()
    took = []
    shown = exposition.Exposition(tmp_path)
    for _ in range(5):
        began = time.process_time()
        text = shown().decode()
        took.append(time.process_time() - began)
    shown.close()
    for descriptor in held:
        os.close(descriptor)
    assert "analytics_events_inserted_total 70.0" in text
    assert text.count("analytics_process_resident_bytes{") == 14
    assert min(took) < 0.05
