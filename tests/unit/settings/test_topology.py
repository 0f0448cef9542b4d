"""Shards and replicas as the settings describe them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.errors import ConfigError
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import load
from octane_analytics.settings.topology import Address, Shard, authority, parse

TWO = {"CLICKHOUSE_HOST": "ch1a,ch1b;ch2a:9001,ch2b", "CLICKHOUSE_CLUSTER": "octane"}
ports = st.integers(1, 65535)
names = st.from_regex(r"[a-z0-9_]([a-z0-9._-]{0,20}[a-z0-9_])?", fullmatch=True)
addresses = st.tuples(names | st.ip_addresses().map(str), ports)
shard_lists = st.lists(st.lists(addresses, min_size=1, max_size=4), min_size=1, max_size=5).filter(
    lambda shards: sum(map(len, shards)) == len({address for shard in shards for address in shard})
)
blanks = st.sampled_from(["", " ", "  "])


def error_of(**environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load(TWO | environ)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_semicolons_separate_shards_and_commas_replicas() -> None:
    shards = load(TWO).settings.clickhouse.topology().shards
    assert shards == (
        Shard(1, (("ch1a", 9000), ("ch1b", 9000))),
        Shard(2, (("ch2a", 9001), ("ch2b", 9000))),
    )


@given(shard_lists, st.data())
def test_any_list_of_servers_is_parsed_as_written(
    shards: list[list[Address]], data: st.DataObject
) -> None:
    text = ";".join(
        ",".join(
            data.draw(blanks) + authority(*address) + data.draw(blanks) for address in addresses
        )
        for addresses in shards
    )
    topology = parse(text, 9000)
    assert [list(shard.hosts) for shard in topology.shards] == shards
    assert topology.hosts == tuple(address for shard in shards for address in shard)
    assert topology.is_sharded == (len(shards) > 1)


@given(st.text(alphabet="ch1:;,[] 90", max_size=20))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    message = ""
    try:
        topology = parse(text, 9000)
    except ConfigError as error:
        message = str(error)
    else:
        assert all(shard.hosts for shard in topology.shards)
    assert message.startswith("CLICKHOUSE_HOST: ") or not message
    assert "\n" not in message


@given(shard_lists)
def test_settings_of_each_shard_have_its_replicas(shards: list[list[Address]]) -> None:
    text = ";".join(",".join(authority(*address) for address in shard) for shard in shards)
    settings = ClickHouseSettings(host=text, shard_weights=tuple(range(1, len(shards) + 1)))
    each = settings.of_each_shard()
    assert [one.hosts() for one in each] == shards
    for one in each:
        assert one.read_table == one.table
        assert not one.topology().is_sharded


def test_single_shard_keeps_its_settings_unchanged() -> None:
    settings = load({"CLICKHOUSE_HOST": "ch1,ch2"}).settings.clickhouse
    assert settings.of_each_shard() == (settings,)
    assert settings.hosts() == [("ch1", 9000), ("ch2", 9000)]
    assert settings.read_table == "ai_analytics_events"


@pytest.mark.parametrize(
    ("host", "shard"), [("a;", 2), (";a", 1), ("a;;b", 2), (";", 1), ("a; ;b", 2)]
)
def test_shard_without_servers_is_refused_by_number(host: str, shard: int) -> None:
    message = error_of(CLICKHOUSE_HOST=host)
    assert f"shard {shard} has no servers" in message
    assert "ch1a,ch1b;ch2a,ch2b" in message


@pytest.mark.parametrize("host", ["a;a", "a,b;c,B:9000", "[::1];b,[::1]:9000"])
def test_server_of_two_shards_is_refused(host: str) -> None:
    assert "is in shards 1 and 2" in error_of(CLICKHOUSE_HOST=host)


def test_several_shards_require_the_cluster() -> None:
    message = error_of(CLICKHOUSE_CLUSTER="")
    assert "2 shards" in message
    assert "CLICKHOUSE_CLUSTER" in message
    assert load(TWO).settings.clickhouse.cluster == "octane"


def test_http_port_is_refused_in_any_shard() -> None:
    assert "HTTP port" in error_of(CLICKHOUSE_HOST="ch1;ch2:8123")


@pytest.mark.parametrize(
    ("given_name", "table"), [("", "ai_analytics_events_all"), ("ledger_of_all", "ledger_of_all")]
)
def test_several_shards_are_read_through_distributed_table(given_name: str, table: str) -> None:
    environ = TWO | {"CLICKHOUSE_DISTRIBUTED_TABLE": given_name}
    assert load(environ).settings.clickhouse.read_table == table


def test_distributed_table_needs_a_name_of_its_own() -> None:
    message = error_of(CLICKHOUSE_DISTRIBUTED_TABLE="ai_analytics_events")
    assert "needs a name of its own" in message
    assert "CLICKHOUSE_DATABASE" in error_of(CLICKHOUSE_DISTRIBUTED_TABLE="default.all")


def test_weights_are_those_of_the_shards() -> None:
    settings = load(TWO | {"CLICKHOUSE_SHARD_WEIGHTS": "0, 3"}).settings.clickhouse
    assert [shard.weight for shard in settings.topology().shards] == [0, 3]
    assert [one.topology().shards[0].weight for one in settings.of_each_shard()] == [1, 1]


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("1", "has 1 weights"),
        ("1,2,3", "has 3 weights"),
        ("0,0", "no shard would receive batches"),
        ("1,-1", "must be from 0 to 1000"),
        ("1,", "must be a whole number"),
        ("1,x", "must be a whole number"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: str, text: str) -> None:
    message = error_of(CLICKHOUSE_SHARD_WEIGHTS=weights)
    assert message.startswith("CLICKHOUSE_SHARD_WEIGHTS")
    assert text in message


def test_insert_quorum_is_off_by_default() -> None:
    assert ClickHouseSettings().insert_quorum == 0
    assert load(TWO | {"CLICKHOUSE_INSERT_QUORUM": "2"}).settings.clickhouse.insert_quorum == 2
    assert "must be from 0 to 100" in error_of(CLICKHOUSE_INSERT_QUORUM="-1")


def test_settings_of_several_shards_are_not_one_shard() -> None:
    settings = load(TWO).settings.clickhouse
    with pytest.raises(ConfigError, match="lists 2 shards"):
        settings.require_one_shard()
    for one in settings.of_each_shard():
        one.require_one_shard()


def test_compression_is_judged_over_all_shards() -> None:
    settings = ClickHouseSettings(host="127.0.0.1;[::1]")
    assert settings.compression_method() == "none"
    assert replace(settings, host="127.0.0.1;ch2").compression_method() == "lz4"
