import json
import re
from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.commands.status_hosts import GroupReader, parse_hosts, status_lines
from octane_analytics.errors import Unavailable
from octane_analytics.telemetry.group_status import GroupStatus, HostStatus
from octane_analytics.telemetry.host_metrics import HostMetrics, Lag
from tests.support.command import call

NOW = 1_000_000.0
METRICS = HostMetrics(
    version="2.0",
    is_ready=True,
    workers=8,
    partitions=2,
    inserted=1000,
    dead_letters=1,
    restarts=0,
    batches_waiting=0,
    waiting={},
    lag=Lag({0: 40, 1: 60, 2: 0, 3: 0}, 0, 2.0, NOW - 1),
)


def group(*hosts: HostMetrics | None) -> GroupStatus:
    return GroupStatus(
        [
            HostStatus(f"vm{number}:8000", metrics, "" if metrics else "connection refused")
            for number, metrics in enumerate(hosts, 1)
        ],
        NOW,
    )


def with_lag(messages: dict[int, int], measured_at: float) -> HostMetrics:
    return replace(METRICS, lag=Lag(messages, 0, 9.0, measured_at))


def test_counts_add_up_and_lag_counts_once() -> None:
    found = group(METRICS, METRICS).as_json()
    assert found["is_healthy"]
    assert found["total"]["inserted"] == 2000
    assert found["total"]["partitions"] == 4
    assert found["total"]["lag"] == 100
    assert found["notes"] == []


def test_lag_is_the_latest_measurement() -> None:
    old = with_lag({0: 9_000, 1: 0, 2: 0, 3: 0}, NOW - 60)
    assert group(old, METRICS).as_json()["total"]["lag"] == 100


def test_old_lag_is_unknown() -> None:
    found = group(with_lag({0: 9_000}, NOW - 121))
    assert found.as_json()["total"]["lag"] is None
    assert "lag unknown" in next(status_lines(found))


def test_silent_host_is_a_row() -> None:
    found = group(METRICS, None)
    lines = list(map(click.unstyle, status_lines(found)))
    text = " ".join(lines)
    assert "1 of 2 hosts answer" in text
    assert "not healthy" in text
    assert "2 of 4 partitions are not owned by a worker" in text
    assert re.fullmatch(r"vm2:8000( +-)+ +no answer: connection refused", lines[-1])


def test_outage_is_the_state_of_its_host() -> None:
    found = group(replace(METRICS, is_ready=False, waiting={"clickhouse": 3}))
    assert not found.is_healthy
    assert click.unstyle(list(status_lines(found))[-1]).endswith("workers wait: 3 for clickhouse")


def test_disagreement_of_hosts_is_noted() -> None:
    assert group(METRICS, replace(METRICS, version="2.1")).notes() == [
        "hosts run different versions: 2.0 on vm1:8000; 2.1 on vm2:8000"
    ]
    newer = replace(METRICS, version="2.1", partitions=0)
    assert group(*[newer] * 4, METRICS, METRICS).notes() == [
        "hosts run different versions: 2.0 on vm5:8000, vm6:8000; 2.1 on 4 hosts"
    ]
    (note,) = group(METRICS, replace(METRICS, partitions=7)).notes()
    assert note.startswith("hosts own 9 of 4 partitions")
    (note,) = group(METRICS, with_lag({0: 1}, NOW)).notes()
    assert note.startswith("hosts report different partitions")


_COUNT = st.integers(0, 10**15)


@given(
    st.lists(
        st.none()
        | st.builds(
            replace,
            st.just(METRICS),
            version=st.sampled_from(["2.0", "1" * 32]),
            workers=st.integers(0, 999),
            partitions=st.integers(0, 99_999),
            inserted=_COUNT,
            dead_letters=_COUNT,
            restarts=_COUNT,
            waiting=st.dictionaries(st.sampled_from(["clickhouse", "kafka"]), _COUNT),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 253),
)
def test_table_fits_eighty_columns(hosts: list[HostMetrics | None], length: int) -> None:
    named = [
        replace(host, name="h" * length, events_per_second=1e9) for host in group(*hosts).hosts
    ]
    for block in status_lines(GroupStatus(named, NOW)):
        for line in block.split("\n"):
            assert len(click.unstyle(line)) <= 80, line


def test_rate_is_between_two_readings() -> None:
    seconds = iter([10.0, 20.0, 30.0])
    inserted = iter([1000, 1500, 300])
    reader = GroupReader(
        [("vm1", 8000)],
        lambda host, port, timeout: replace(METRICS, inserted=next(inserted)),
        lambda: next(seconds),
    )
    assert reader.read().events_per_second is None
    assert reader.read().events_per_second == 50.0
    assert reader.read().events_per_second is None  # the service was restarted


def test_reader_keeps_the_order_of_hosts() -> None:
    def read(host: str, port: int, seconds: float) -> HostMetrics:
        if host == "b":
            raise Unavailable("connection refused")
        return METRICS

    found = GroupReader([("a", 1), ("b", 2), ("::1", 3)], read).read()
    assert [host.name for host in found.hosts] == ["a:1", "b:2", "[::1]:3"]
    assert [host.is_healthy for host in found.hosts] == [True, False, True]


def test_hosts_take_the_default_port() -> None:
    assert parse_hosts("vm1, vm2:9 ,[::1]", 8000) == [("vm1", 8000), ("vm2", 9), ("::1", 8000)]


@pytest.mark.parametrize(
    ("hosts", "port", "reason"),
    [
        ("", 8000, "'' is not a host"),
        ("a,,b", 8000, "'' is not a host"),
        ("http://a/", 8000, "'http://a/' is not a host"),
        ("a:99999", 8000, "is not a host"),
        ("a,a:8000", 8000, "a:8000 is listed twice"),
        ("a", 0, "'a' needs a port, because METRICS_PORT is 0"),
        (",".join(f"a{number}" for number in range(1001)), 8000, "at most 1000"),
    ],
)
def test_invalid_hosts_are_refused(hosts: str, port: int, reason: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse_hosts(hosts, port)
    assert reason in caught.value.message


def test_command_reports_that_none_answers() -> None:
    done = call("status", "--hosts", "127.0.0.1:1,127.0.0.1:2", "--json")
    assert done.returncode == 69
    found = json.loads(done.stdout)
    assert [host["is_answering"] for host in found["hosts"]] == [False, False]
    assert found["total"]["lag"] is None


def test_command_refuses_an_invalid_list() -> None:
    done = call("status", "--hosts", "a;b")
    assert done.returncode == 2
    assert "'a;b' is not a host or host:port" in done.stderr
