"""Every argument that ClickHouse reads as a time zone or a type is one that raw SQL restricts."""

import itertools
from collections.abc import Iterator

import pytest

from octane_analytics.api.raw_sql import functions, type_names
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import StatementRejected
from tests.support.asgi_calls import query
from tests.support.raw_sql import Target, app_without, target

ZONE = "file:/nonexistent/zone"
TIMES = ["toDateTime(0)", "'2020-01-01 00:00:00'", "toUInt64(1)", "'day'", "INTERVAL 1 DAY"]
VALUES = ["'{\"a\": 1}'", "1", "1::Dynamic", "'{\"a\": 1}'::JSON"]
MARKS = [(f"'{ZONE}'", TIMES), (rf"'DateTime(\'{ZONE}\')'", VALUES)]
UNBOUND = frozenset({"ignore", "indexhint"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("types")) as opened:
        yield opened


def loads_zone(connection: ClickHouse, sql: str) -> bool:
    try:
        connection.select(sql)
    except StatementRejected as error:
        return f"Cannot load time zone {ZONE}" in str(error)
    return False


def test_every_zone_argument_is_restricted(server: Target) -> None:
    allowed = functions.load()
    found, unrestricted = 0, []
    with ClickHouse(server.settings, client_name="tests") as connection:
        names = connection.select("SELECT name FROM system.functions WHERE NOT is_aggregate").rows
        for (name,) in names:
            if name.lower() in UNBOUND or name.lower() not in allowed.ordinary:
                continue
            for mark, pool in MARKS:
                for count in range(3):
                    calls = itertools.product(pool, repeat=count)
                    sql = (f"SELECT `{name}`({', '.join([*call, mark])})" for call in calls)
                    if not any(loads_zone(connection, statement) for statement in sql):
                        continue
                    found += 1
                    if count not in type_names.places(name, count + 1):
                        unrestricted.append((name, count))
    assert not unrestricted
    assert found > 100


@pytest.mark.parametrize(
    ("kind", "value"),
    [(f"DateTime('{ZONE}')", "2020-01-01 00:00:00"), (f"Array(DateTime('{ZONE}'))", [1])],
)
def test_parameter_type_with_zone_is_rejected(server: Target, kind: str, value: object) -> None:
    with app_without(server) as app:
        answer = query(app, f"SELECT {{a:{kind}}}", a=value)
    assert answer.status_code == 403, answer.text
    assert "known time zones" in answer.text


def test_parameter_is_accepted_as_zone(server: Target) -> None:
    with app_without(server) as app:
        sql = "SELECT toString(toDateTime(0, {zone:String})) AS time"
        answer = query(app, sql, zone="Europe/Berlin")
        refused = query(app, sql, zone=ZONE)
    assert answer.json()["rows"] == [{"time": "1970-01-01 01:00:00"}]
    assert refused.status_code == 403
