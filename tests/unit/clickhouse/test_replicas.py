"""Comparison of servers: which differences are found, and which ones are refused."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.replicas import (
    DistributedTable,
    Expectation,
    ReplicaState,
    ServerFacts,
    cluster_findings,
    cluster_path_findings,
    macro_findings,
    unlisted_findings,
)
from octane_analytics.clickhouse.schema import LiveColumn, LiveTable, TableName

TABLE, ALL = TableName("d", "events"), TableName("d", "events_all")
LIVE = LiveTable(
    "ReplicatedMergeTree",
    schema.SORTING_KEY,
    schema.PARTITION_KEY,
    schema.SHOWN_TTL,
    10_000,
    tuple(LiveColumn(c.name, c.type, schema.SHOWN_CODECS[c.codec]) for c in schema.COLUMNS),
    86_400,
)
TYPES = {column.name: column.type for column in schema.COLUMNS}
DISTRIBUTED, SKIPS = "Distributed('octane', 'd', 'events')", "skip_unavailable_shards"
EXPECTED = Expectation(TABLE, 2, ALL, "octane", hosts={1: 2, 2: 2})


def server(shard: int, name: str, **changes: object) -> ServerFacts:
    facts = ServerFacts(
        f"ch{shard}{name}:9000",
        shard,
        live=LIVE,
        replica=ReplicaState(f"/t/{shard}", name, is_readonly=False, delay_seconds=0, replicas=2),
        macros={"shard": str(shard), "replica": name},
        rollups=frozenset({"octane_totals_01234567"}),
        distributed=DistributedTable("Distributed('octane', 'd', 'events')", TYPES),
        cluster_shards=2,
        cluster_paths=frozenset({"/t/1", "/t/2"}),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def cluster(**changes: object) -> list[ServerFacts]:
    """Two shards of two; the changes are those of the last replica."""
    return [server(1, "a"), server(1, "b"), server(2, "a"), server(2, "b", **changes)]


def texts(servers: Sequence[ServerFacts], expected: Expectation = EXPECTED) -> list[str]:
    return [finding.text for finding in cluster_findings(servers, expected)]


def test_replicas_with_different_views_are_refused() -> None:
    found = list(cluster_findings(cluster(views=frozenset({"d.v"})), EXPECTED))
    assert [finding.is_refusal for finding in found] == [True]
    assert "(ch2a:9000: none; ch2b:9000: d.v)" in found[0].text
    # Shards may differ: each batch is in one of them.
    both = {"views": frozenset({"d.v"})}
    assert texts([server(1, "a"), server(2, "a", **both), server(2, "b", **both)]) == []


def state(**changes: object) -> ReplicaState:
    base = ReplicaState("/t/2", "b", is_readonly=False, delay_seconds=0, replicas=2)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_equal_servers_have_no_findings() -> None:
    assert texts(cluster()) == []
    assert list(cluster_path_findings(cluster())) == []
    assert list(macro_findings(cluster())) == []


@pytest.mark.parametrize(
    ("changes", "words", "is_refusal"),
    [
        ({"replica": state(path="/t/3")}, "not replicas of one table", True),
        ({"replica": state(path="/t/1")}, "are replicas of one table", True),
        ({"replica": state(is_readonly=True)}, "ch2b:9000 is a read-only replica", False),
        ({"replica": state(delay_seconds=61)}, "ch2b:9000 lags its shard by 61 s", False),
        ({"replica": state(replicas=1)}, "", False),
        ({"live": replace(LIVE, window=50)}, "ch2b:9000: 50 inserts", False),
        ({"live": replace(LIVE, window_seconds=60)}, "10,000 inserts and 60 s", False),
        ({"live": replace(LIVE, columns=LIVE.columns[:4])}, "column types differ", False),
        ({"rollups": frozenset()}, "ch2b:9000: none", False),
        ({"has_rollup_settings": False}, "ch2b:9000 has rollups without", False),
        ({"distributed": None}, "ch2b:9000 does not have d.events_all", True),
        ({"cluster_shards": 1}, "cluster octane has 1 shards", True),
        ({"cluster_shards": 0}, "cluster octane does not exist", True),
        (
            {"distributed": DistributedTable("Distributed('octane', 'd', 'events_old')", TYPES)},
            "is not Distributed('octane', 'd', 'events')",
            True,
        ),
        (
            {"distributed": DistributedTable("Distributed('octane', 'd', 'events', rand())", {})},
            "has other columns than d.events (timestamp",
            False,
        ),
        (
            {"distributed": DistributedTable(f"{DISTRIBUTED} SETTINGS {SKIPS} = 1", TYPES)},
            "would omit the rows of a shard that is away",
            True,
        ),
        (
            {"distributed": DistributedTable(f"{DISTRIBUTED} SETTINGS {SKIPS} = 0", TYPES)},
            "",
            False,
        ),
        ({"time_zone": "Asia/Kathmandu"}, "ch2b:9000: Asia/Kathmandu; months begin", False),
        ({"replica": state(name="a")}, "ch2a:9000 and ch2b:9000 are one server, replica a", True),
    ],
)
def test_difference_of_one_server_is_found(
    changes: dict[str, object], words: str, is_refusal: bool
) -> None:
    found = [
        finding
        for finding in cluster_findings(cluster(**changes), EXPECTED)
        if words in finding.text
    ]
    if not words:
        assert found == []
        return
    assert found
    assert any(finding.is_refusal for finding in found) == is_refusal


def test_shard_of_read_only_replicas_is_refused() -> None:
    stuck = replace(state(), is_readonly=True, error="no session")
    servers = [
        replace(each, replica=replace(stuck, path=f"/t/{each.shard}", name=each.address))
        for each in cluster()
    ]
    found = list(cluster_findings(servers, EXPECTED))
    assert len(found) == 4
    assert all(finding.is_refusal for finding in found)
    assert "no session" in found[0].text


def test_replicas_that_are_not_listed_are_reported() -> None:
    servers = [
        replace(each, replica=replace(each.replica, replicas=3))
        for each in cluster()
        if each.replica is not None
    ]
    assert sum("lists 2" in text for text in texts(servers)) == 2
    # A single address may be that of a load balancer.
    assert texts(servers, replace(EXPECTED, hosts={1: 1, 2: 1})) == []


def test_one_listed_shard_of_several_is_refused() -> None:
    expected = replace(EXPECTED, shards=1, hosts={1: 2})
    first = [server(1, "a", cluster_shards=1), server(1, "b", cluster_shards=0)]
    assert list(unlisted_findings(first, expected)) == []
    (finding,) = unlisted_findings([server(1, "a"), first[1]], expected)
    assert finding.is_refusal
    assert "CLICKHOUSE_HOST lists one of them" in finding.text


def test_quorum_is_compared_with_the_replicas() -> None:
    assert texts(cluster(), replace(EXPECTED, insert_quorum=2)) == []
    assert len(texts(cluster(), replace(EXPECTED, insert_quorum=3))) == 4


def test_cluster_of_other_tables_is_refused() -> None:
    found = list(cluster_path_findings(cluster(cluster_paths=frozenset({"/t/1", "/t/9"}))))
    assert len(found) == 1
    assert "ch2b:9000: its cluster reads /t/9 and does not read /t/2" in found[0].text
    assert found[0].is_refusal


@pytest.mark.parametrize(
    ("macros", "words"),
    [
        ({"shard": "1", "replica": "x"}, "both have the macro shard = 1"),
        ({"shard": "3", "replica": "b"}, "different macros shard"),
        ({"shard": "2", "replica": "a"}, "both have the macro replica = a"),
        ({"replica": "b"}, "has no macro shard"),
        ({}, "has no macro shard and replica"),
    ],
)
def test_macros_that_would_mix_tables_are_refused(macros: dict[str, str], words: str) -> None:
    found = list(macro_findings(cluster(macros=macros)))
    assert any(words in finding.text and finding.is_refusal for finding in found)


def test_unreadable_macros_are_not_judged() -> None:
    assert list(macro_findings(cluster(macros=None))) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["/t/1", "/t/2", "/t/3"])),
        min_size=1,
        max_size=8,
    )
)
def test_paths_are_accepted_exactly_if_they_partition(layout: list[tuple[int, str]]) -> None:
    servers = [
        server(shard, str(number), replica=state(path=path))
        for number, (shard, path) in enumerate(layout)
    ]
    of_shard = {shard: {path for other, path in layout if other == shard} for shard, _ in layout}
    is_partition = all(len(paths) == 1 for paths in of_shard.values()) and len(
        {frozenset(paths) for paths in of_shard.values()}
    ) == len(of_shard)
    refused = any("of one table" in text for text in texts(servers))
    assert refused != is_partition


@given(st.permutations(cluster(rollups=frozenset(), macros={"shard": "1", "replica": "b"})))
def test_order_of_servers_does_not_change_findings(servers: list[ServerFacts]) -> None:
    assert len(texts(servers)) == len(texts(sorted(servers, key=lambda each: each.address)))


@pytest.mark.parametrize("name", ["events", "ev'ents", "a\\b", "x y"])
def test_distributed_arguments_are_quoted(name: str) -> None:
    statement = schema.create_distributed_table(ALL, TableName("d", name), "o'c")
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    assert f"Distributed('o\\'c', 'd', '{quoted}')" in statement
