"""Exposition of a metrics directory that several processes share."""

import os
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from octane_analytics.telemetry import api_metrics, exposition, liveness, metrics_files
from octane_analytics.telemetry.inserted_counter import InsertedEventCounter
from octane_analytics.telemetry.observer import WorkerObserver
from octane_analytics.telemetry.process_metrics import ProcessMetrics
from octane_analytics.telemetry.worker_metrics import (
    WeightedHistogram,
    WorkerMetrics,
)


@pytest.fixture(autouse=True)
def _restore_value_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")


def _exposition(directory: Path) -> str:
    return exposition.exposition(directory).decode()


def _start_process(directory: Path, role: str, slot: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Act like a process that starts; return its lock's descriptor, open while it is alive."""
    locks: list[int] = []
    real = liveness.lock

    def lock(directory: Path, name: str) -> int:
        locks.append(real(directory, name))
        return locks[-1]

    monkeypatch.setattr(liveness, "lock", lock)
    metrics_files.open_directory(directory, metrics_files.ProcessName(role, slot))
    monkeypatch.setattr(liveness, "lock", real)
    return locks[0]


def test_counters_outlive_a_process_unlike_gauges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = _start_process(tmp_path, "worker", 0, monkeypatch)
    metrics = WorkerMetrics()
    metrics.events_consumed.inc(7)
    metrics.assigned_partitions.set(4)
    metrics.outage.labels("clickhouse").set(1)
    assert "analytics_assigned_partitions 4.0" in _exposition(tmp_path)
    assert metrics_files.readiness_problems(tmp_path, ["worker-0"]) == ["waiting for clickhouse"]
    os.close(lock)  # as the kernel does at the exit
    assert "analytics_assigned_partitions 4.0" not in _exposition(tmp_path)
    assert "analytics_events_consumed_total 7.0" in _exposition(tmp_path)
    assert metrics_files.readiness_problems(tmp_path, ["worker-0"]) == ["worker-0 is not running"]
    lock = _start_process(tmp_path, "worker", 0, monkeypatch)
    again = WorkerMetrics()
    again.events_consumed.inc(1)
    assert "analytics_events_consumed_total 8.0" in _exposition(tmp_path)
    assert metrics_files.readiness_problems(tmp_path, ["worker-0"]) == []
    os.close(lock)


def test_start_removes_files_of_its_role_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("worker", "api"):
        os.close(_start_process(tmp_path, role, 0, monkeypatch))
        WorkerMetrics().events_consumed.inc(5)
        InsertedEventCounter(tmp_path, f"{role}-0").count_batch({0: 3}, "a")
    metrics_files.remove_files(tmp_path, "worker")
    assert "analytics_events_consumed_total 5.0" in _exposition(tmp_path)
    assert not list(tmp_path.glob("*worker-0.db"))
    ancient = tmp_path / "counter_web-0.db"
    ancient.touch()
    os.utime(ancient, (1, 1))
    metrics_files.remove_files(tmp_path, "worker")
    assert not ancient.exists()


def test_inserted_events_start_at_zero(tmp_path: Path) -> None:
    assert "analytics_events_inserted_total 0.0" in _exposition(tmp_path)
    InsertedEventCounter(tmp_path, "worker-0").count_batch({0: 12}, "a")
    assert "analytics_events_inserted_total 12.0" in _exposition(tmp_path)


def test_file_removed_during_a_scrape_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(_start_process(tmp_path, "worker", 0, monkeypatch))
    WorkerMetrics().events_consumed.inc(5)
    gone = tmp_path / "counter_worker-9.db"
    gone.touch()
    real = liveness.alive

    def alive_after_removal(directory: Path) -> frozenset[str]:
        gone.unlink()
        return real(directory)

    monkeypatch.setattr(liveness, "alive", alive_after_removal)
    assert "analytics_events_consumed_total 5.0" in _exposition(tmp_path)


def test_exposition_equals_that_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = []
    for slot in range(3):
        locks.append(_start_process(tmp_path, "worker", slot, monkeypatch))
        metrics = WorkerMetrics()
        WorkerObserver(metrics, InsertedEventCounter(tmp_path, f"worker-{slot}"))
        metrics.events_consumed.inc(slot + 0.5)
        metrics.outage.labels("kafka").set(1)
        for reason in ('"quoted"', "back\\slash", "two\nlines", "ü", ""):
            metrics.events_rejected.labels(reason).inc(1e20)
        for stage in ("insert", "fetch"):
            metrics.stage_seconds.labels(stage).observe(0.05 * slot)
        ProcessMetrics().resident_bytes.labels(f"worker-{slot}").set(1 << 40)
    Counter("other_total", 'A "help" with \\ and\nlines.', registry=None).inc()
    Histogram("plain", "Without labels.", registry=None).observe(3)
    Histogram("split", "With two.", ["b", "a"], registry=None).labels("1", "2").observe(3)
    (tmp_path / "counter_worker-8.db").touch()
    (tmp_path / "counter_worker-9.db").write_bytes(bytes(1 << 16))  # files that are being created
    registry = CollectorRegistry()
    (tmp_path / "counter_worker-8.db").unlink()  # on which the library fails
    MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    registry.register(exposition.ComputedMetrics(tmp_path))
    expected = generate_latest(registry).decode()
    (tmp_path / "counter_worker-8.db").touch()
    shown = _exposition(tmp_path)
    assert sorted(shown.splitlines()) == sorted(expected.splitlines())
    families = list(text_string_to_metric_families(shown))
    assert len({family.name for family in families}) == len(families), (
        "the lines of a family are adjacent"
    )
    for descriptor in locks:
        os.close(descriptor)


def test_second_scrape_includes_added_and_replaced_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = exposition.Exposition(tmp_path)
    lock = _start_process(tmp_path, "worker", 0, monkeypatch)
    metrics = WorkerMetrics()
    metrics.events_consumed.inc(7)
    metrics.queue_bytes.set(3)
    assert "analytics_librdkafka_queue_bytes 3.0" in render().decode()
    assert 'reason="late"' not in render().decode()
    metrics.events_rejected.labels("late").inc()
    for number in range(200):  # more than the first page and the file's first size
        metrics.events_rejected.labels(f"{number}" * 100).inc()
    metrics.events_consumed.inc(1)
    text = render().decode()
    assert 'analytics_events_rejected_total{reason="late"} 1.0' in text
    assert text.count("analytics_events_rejected_total{") == 201
    assert "analytics_events_consumed_total 8.0" in text
    os.close(lock)
    assert "analytics_librdkafka_queue_bytes" not in render().decode()
    lock = _start_process(
        tmp_path, "worker", 0, monkeypatch
    )  # gauges of the new process are in a new file
    again = WorkerMetrics()
    again.assigned_partitions.set(4)
    again.queue_bytes.set(5)
    text = render().decode()
    assert "analytics_librdkafka_queue_bytes 5.0" in text
    assert "analytics_assigned_partitions 4.0" in text
    metrics_files.remove_files(tmp_path, "worker")
    assert "analytics_events_consumed_total" not in render().decode()
    render.close()
    os.close(lock)


def test_every_gauge_is_a_sum() -> None:
    """`multiprocess_reader` supports no other mode."""
    groups = [WorkerMetrics(None), ProcessMetrics(None), api_metrics.ApiMetrics(None)]
    gauges = [metric for group in groups for metric in vars(group).values()
              if isinstance(metric, Gauge)]  # fmt: skip
    assert len(gauges) >= 4
    assert {gauge._multiprocess_mode for gauge in gauges} == {"sum"}


def test_weighted_observation_equals_repeated_observations() -> None:
    one = WeightedHistogram("one", "", buckets=(1, 2, 5), registry=None)
    many = WeightedHistogram("many", "", buckets=(1, 2, 5), registry=None)
    timestamps = [93, 95, 97.9, 98, 98.5, 99, 99.5, 100, 104]
    one.observe_ages(100.0, timestamps, 3.0)
    for timestamp in timestamps * 3:
        many.observe(max(0.0, 100.0 - timestamp))
    (first,), (second,) = one.collect(), many.collect()
    weighted, repeated = (
        {sample.labels.get("le", sample.name[-4:]): sample.value for sample in family.samples[:6]}
        for family in (first, second)
    )
    assert weighted == pytest.approx(repeated)
    assert weighted["+Inf"] == 27


def test_sixteen_processes_are_rendered_in_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the CPU time of the fastest of five runs, which other processes do not influence."""
    locks = []
    for slot in range(14):
        locks.append(_start_process(tmp_path, "worker", slot, monkeypatch))
        WorkerObserver(WorkerMetrics(), InsertedEventCounter(tmp_path, f"worker-{slot}"))
        ProcessMetrics().resident_bytes.labels(f"worker-{slot}").set(1)
        InsertedEventCounter(tmp_path, f"worker-{slot}").count_batch({slot: 5}, "a")
    for slot in range(2):
        locks.append(_start_process(tmp_path, "api", slot, monkeypatch))
        metrics = api_metrics.ApiMetrics()
        for route in ("/report", "/report/{name}", "/reports", "/query", "/metrics", "/readyz"):
            metrics.request_seconds.labels(route).observe(1)
            for status in ("200", "400", "403", "503"):
                metrics.requests.labels(route, status).inc()
    cpu_seconds = []
    render = exposition.Exposition(tmp_path)
    for _ in range(5):
        started_at = time.process_time()
        text = render().decode()
        cpu_seconds.append(time.process_time() - started_at)
    render.close()
    for descriptor in locks:
        os.close(descriptor)
    assert "analytics_events_inserted_total 70.0" in text
    assert text.count("analytics_process_resident_bytes{") == 14
    assert min(cpu_seconds) < 0.05
