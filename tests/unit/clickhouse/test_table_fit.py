"""Table check shared by worker and replay."""

from dataclasses import replace

import pytest

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.schema import LiveColumn, LiveTable, TableName
from octane_analytics.clickhouse.table_fit import require_fit, table_fit
from octane_analytics.errors import ConfigError, NeedsOperator

NAME = TableName("default", "ai_analytics_events")
LIVE = LiveTable(
    "MergeTree",
    schema.SORTING_KEY,
    schema.PARTITION_KEY,
    schema.SHOWN_TTL,
    10_000,
    tuple(LiveColumn(c.name, c.type, schema.SHOWN_CODECS[c.codec]) for c in schema.COLUMNS),
)


def test_expected_table_fits() -> None:
    assert require_fit(NAME, LIVE, window_user="exactly-once") is LIVE


def test_missing_table_needs_operator() -> None:
    with pytest.raises(NeedsOperator, match="does not exist"):
        require_fit(NAME, None, window_user=None)


def test_table_with_unfit_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks timestamp"):
        require_fit(NAME, replace(LIVE, columns=LIVE.columns[1:]), window_user=None)


def test_table_without_required_window_is_refused() -> None:
    live = replace(LIVE, window=0)
    assert require_fit(NAME, live, window_user=None) is live
    with pytest.raises(ConfigError, match=r"which exactly-once depends on: run .*; a hint"):
        require_fit(NAME, live, window_user="exactly-once", window_hint="; a hint")


def test_accepted_deviations_are_differences() -> None:
    fit = table_fit(NAME, replace(LIVE, ttl="", engine="Log"), window_user="exactly-once")
    assert fit.refusals == ()
    assert [text.split(" is ")[0] for text in fit.differences] == ["engine", "TTL"]


def test_refused_column_is_not_a_difference_too() -> None:
    columns = (*LIVE.columns[:-1], replace(LIVE.columns[-1], type="JSON"))
    fit = table_fit(NAME, replace(LIVE, columns=columns), window_user="exactly-once")
    assert "has properties as JSON" in "".join(fit.refusals)
    assert fit.differences == ()


def test_several_servers_of_plain_table_are_refused() -> None:
    fit = table_fit(NAME, LIVE, window_user="exactly-once", servers=2)
    assert "replicas of one table" in "".join(fit.refusals)
    assert table_fit(NAME, LIVE, window_user=None, servers=2).refusals == ()
    replicated = replace(LIVE, engine="ReplicatedMergeTree")
    assert table_fit(NAME, replicated, window_user="exactly-once", servers=2).refusals == ()


@pytest.mark.parametrize(
    "ttl", ["timestamp + toIntervalDay(1) GROUP BY app_id", "arrived + toIntervalDay(90)"]
)
def test_uncountable_ttl_is_a_difference(ttl: str) -> None:
    columns = (*LIVE.columns, LiveColumn("arrived", "DateTime", ""))
    live = replace(LIVE, ttl=ttl, columns=columns)
    fit = table_fit(NAME, live, window_user="exactly-once")
    assert fit.refusals == ()
    assert "depends on its token alone" in fit.differences[-1]
