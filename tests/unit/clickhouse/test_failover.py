"""Order of the replicas after failures, and returns to the preferred one."""

import random

from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.clickhouse.failover import FailoverList
from octane_analytics.runtime.timing import Backoff
from tests.fakes.clock import FakeClock

ONE, TWO, THREE = ("ch1", 9000), ("ch2", 9000), ("ch3", 9000)


def failover(clock: FakeClock) -> FailoverList:
    pauses = Backoff(60.0, 900.0, random.Random(0))
    return FailoverList([ONE, TWO, THREE], clock.now, pauses)


def test_failures_try_each_server_in_turn() -> None:
    servers = failover(FakeClock())
    firsts = []
    for _ in range(4):
        firsts.append(servers.hosts[0])
        servers.fail_over()
    assert firsts == [ONE, TWO, THREE, ONE]


def test_preferred_server_is_kept_for_ever() -> None:
    clock = FakeClock()
    servers = failover(clock)
    for _ in range(100):
        clock.sleep(60.0)
        assert not servers.return_to_preferred(ONE)


def test_return_comes_after_a_pause() -> None:
    clock = FakeClock()
    servers = failover(clock)
    servers.fail_over()
    assert not servers.return_to_preferred(TWO)
    clock.sleep(29.0)
    assert not servers.return_to_preferred(TWO)
    clock.sleep(32.0)
    assert servers.return_to_preferred(TWO)
    assert servers.hosts == (ONE, TWO, THREE)


def test_failed_returns_become_rarer() -> None:
    clock = FakeClock()
    servers = failover(clock)
    returns = []
    for second in range(4_000):
        if servers.return_to_preferred(TWO):
            returns.append(second)
        clock.sleep(1.0)
    pauses = [after - before for before, after in zip([0, *returns], returns, strict=False)]
    assert all(pauses[n] < pauses[n + 2] for n in range(3))
    assert max(pauses) <= 901


def test_pauses_are_short_after_lasting_return() -> None:
    clock = FakeClock()
    servers = failover(clock)
    for _ in range(2_000):
        servers.return_to_preferred(TWO)
        clock.sleep(1.0)
    while not servers.return_to_preferred(TWO):
        clock.sleep(1.0)
    servers.return_to_preferred(ONE)
    clock.sleep(61.0)
    servers.return_to_preferred(ONE)
    servers.return_to_preferred(TWO)
    clock.sleep(60.0)
    assert servers.return_to_preferred(TWO)


@given(st.lists(st.booleans(), max_size=30))
def test_no_server_is_lost(steps: list[bool]) -> None:
    clock = FakeClock()
    servers = failover(clock)
    for does_fail in steps:
        if does_fail:
            servers.fail_over()
        else:
            servers.return_to_preferred(servers.hosts[0])
        clock.sleep(20.0)
        assert sorted(servers.hosts) == [ONE, TWO, THREE]
