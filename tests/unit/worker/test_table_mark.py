"""Mark of a table: which settings and servers give which one."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from octane_analytics.clickhouse.replica_tables import server_identity
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.settings.sections import Settings
from octane_analytics.worker.table_mark import cached_table_mark, read_table_mark

NO_UUID = "00000000-0000-0000-0000-000000000000"
NOWHERE: dict[str, Any] = {"host": "127.0.0.1", "port": 1}


def settings(topic: str = "octane.events", **clickhouse: Any) -> Settings:
    return Settings(
        kafka=KafkaSettings(topic=topic), clickhouse=ClickHouseSettings(**NOWHERE | clickhouse)
    )


@dataclass
class Server:
    """Server that states what a select of it returns, by a word of the query."""

    answers: dict[str, list[tuple[str, ...]]]
    table = TableName("default", "ai_analytics_events")

    def select(self, query: str, named: object = None) -> Any:
        (rows,) = [rows for word, rows in self.answers.items() if word in query]
        return SimpleNamespace(rows=rows)


def test_unreachable_server_leaves_names_only() -> None:
    mark = read_table_mark(settings())
    assert mark.server == ""
    assert cached_table_mark(settings())() == mark


@pytest.mark.parametrize(
    "other", [{"database": "other"}, {"table": "other"}, {"database": "default\0x", "table": "y"}]
)
def test_names_of_another_table_differ(other: dict[str, str]) -> None:
    assert read_table_mark(settings()).is_other_table(read_table_mark(settings(**other)))
    other_topic = read_table_mark(settings("other.events", **other))
    assert not read_table_mark(settings()).is_other_table(other_topic)


def test_shards_have_no_server_part() -> None:
    sharded = read_table_mark(settings(host="127.0.0.1:1;127.0.0.1:2", port=1))
    assert sharded == read_table_mark(settings())


@pytest.mark.parametrize(
    ("answers", "identity"),
    [
        ({"system.tables": []}, ""),
        ({"system.tables": [("MergeTree",)], "serverUUID": [("1-2-3",)]}, "1-2-3"),
        ({"system.tables": [("MergeTree",)], "serverUUID": [(NO_UUID,)]}, ""),
        (
            {"system.tables": [("ReplicatedMergeTree",)], "system.replicas": [("/a/b", "r1")]},
            "/a/b",
        ),
        ({"system.tables": [("ReplicatedMergeTree",)], "system.replicas": []}, ""),
    ],
)
def test_server_states_its_identity(
    answers: dict[str, list[tuple[str, ...]]], identity: str
) -> None:
    assert server_identity(Server(answers)) == identity  # type: ignore[arg-type]
