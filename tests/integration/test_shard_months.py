"""Months of a rebuild over two shards: every row stays in its shard, and the shards equal the log."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octane_analytics.cli.replay import setup
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_shard_months import ShardMonths
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.errors import ConfigError
from octane_analytics.replay.interfaces import Staged
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings

NOW = int(time.time())
USERS = "abcdef"
Rows = Counter[str]


class Shards:
    """Two servers, each with the table; the first has the staging tables too."""

    def __init__(self, engines: Sequence[EmbeddedClickHouse]) -> None:
        addresses = [f"{engine.host}:{engine.tcp_port}" for engine in engines]
        self.settings = ClickHouseSettings(
            host=";".join(addresses), cluster="octane", shard_weights=(1, 1)
        )
        self.sinks = [
            ClickHouseSink(own, client_name="tests") for own in self.settings.of_each_shard()
        ]
        for sink in self.sinks:
            sink.execute(schema.create_table(sink.table))

    def store(self, number: int, users: str) -> None:
        sink = self.sinks[number]
        sink.execute(f"TRUNCATE TABLE {sink.table}")
        if users:
            sink.insert_block(columns(users), None, None)

    def stored(self) -> list[Rows]:
        return [
            Counter(str(user) for (user,) in sink.select(f"SELECT user_id FROM {sink.table}").rows)
            for sink in self.sinks
        ]

    def staged(self, log: str, partitions: int = 1) -> ReplayStaging:
        """Return the staging tables of a log whose partitions take turns."""
        live = self.sinks[0].describe()
        assert live is not None
        staging = ReplayStaging(self.sinks[0], "id", live)
        staging.create("owner")
        count = len(log)
        staged = Staged(
            partitions=[number % partitions for number in range(count)],
            offsets=[number // partitions for number in range(count)],
            is_wanted=[1] * count,
        )
        for column, values in zip(staged.columns, columns(log), strict=True):
            column.extend(v if isinstance(v, int) else str(v).encode() for v in values)
        staging.stage(staged)
        return staging


def columns(users: str) -> list[list[object]]:
    rows = len(users)
    return [[NOW] * rows, ["app"] * rows, ["e"] * rows, list(users), ["{}"] * rows]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    with ExitStack() as stack:
        engines = [
            stack.enter_context(EmbeddedClickHouse(tmp_path_factory.mktemp(name)))
            for name in ("first", "second")
        ]
        found = Shards(engines)
        for sink in found.sinks:
            stack.enter_context(sink)
        yield found


LOG = st.text(USERS, min_size=1, max_size=12)
STORED = st.text(USERS, max_size=8)


@settings(max_examples=5, deadline=None)
@given(LOG, STORED, STORED, st.booleans(), st.integers(1, 3))
@example(log="ab", first="ab", second="", is_repeated=True, partitions=1)
@example(log="ab", first="", second="ccc", is_repeated=False, partitions=2)
@example(log="abc", first="", second="ac", is_repeated=True, partitions=1)
@example(log="aab", first="aa", second="aab", is_repeated=True, partitions=2)
@example(log="abcdef", first="af", second="be", is_repeated=True, partitions=1)
def test_rebuilt_shards_equal_log_and_keep_rows(
    shards: Shards, log: str, first: str, second: str, is_repeated: bool, partitions: int
) -> None:
    """A repetition may come after one of the shards was replaced. Lost rows between two batches may
    get into either shard; together the shards have each of them once."""
    for number, users in enumerate((first, second)):
        shards.store(number, users)
    staging = shards.staged(log, partitions)
    month, limits = staging.months()[0], dict.fromkeys(range(partitions), len(log))
    with ShardMonths(staging, shards.settings, client_name="tests") as months:
        assert months.build(month, limits) == len(log)
        months.replace(month)
        found = shards.stored()
        if is_repeated:
            shards.store(1, second)
            assert months.build(month, limits) == len(log)
            months.replace(month)
            assert shards.stored() == found
        months.drop()
    staging.drop()
    wanted = Counter(log)
    assert found[0] + found[1] == wanted
    assert found[0] >= Counter(first) & wanted
    assert found[1] >= Counter(second) & (wanted - Counter(first))


def test_lost_row_goes_to_its_neighbours(shards: Shards) -> None:
    shards.store(0, "ab")
    shards.store(1, "ef")
    staging = shards.staged("acbdef")
    month = staging.months()[0]
    with ShardMonths(staging, shards.settings, client_name="tests") as months:
        months.build(month, {0: 6})
        months.replace(month)
        months.drop()
    staging.drop()
    assert shards.stored() == [Counter("abcd"), Counter("ef")]


def test_rebuild_over_two_time_zones_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month begins at another time on each, and rows near its end would be left as they are."""
    with EmbeddedClickHouse(tmp_path / "near") as near:
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")
        with EmbeddedClickHouse(tmp_path / "far") as far:
            listed = [f"{server.host}:{server.tcp_port}" for server in (near, far)]
            one, several = ClickHouseSettings(host=listed[1]), ";".join(listed)
            setup.require_one_time_zone(one)
            with pytest.raises(ConfigError, match=f"{listed[1]}: Pacific/Kiritimati"):
                setup.require_one_time_zone(ClickHouseSettings(host=several, cluster="octane"))
        setup.require_one_time_zone(ClickHouseSettings(host=several, cluster="octane"))
