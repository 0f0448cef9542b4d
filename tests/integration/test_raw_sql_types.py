"""Every argument that ClickHouse reads as a time zone or a type is one that raw SQL restricts."""

import itertools
from collections.abc import Iterable, Iterator

import pytest

from octane_analytics.api.raw_sql import functions, type_names
from tests.support.asgi_calls import query
from tests.support.raw_sql import Target, app_without, target
from tests.support.statements import Statements, statements

ZONE = "file:/nonexistent/zone"
TIMES = ["toDateTime(0)", "'2020-01-01 00:00:00'", "toUInt64(1)", "'day'", "INTERVAL 1 DAY"]
VALUES = ["'{\"a\": 1}'", "1", "1::Dynamic", "'{\"a\": 1}'::JSON"]
MARKS = [(f"'{ZONE}'", TIMES, 3), (rf"'DateTime(\'{ZONE}\')'", VALUES, 2)]
"""Text that is a zone, or a type with one; arguments before it, and below how many of these."""
UNBOUND = frozenset({"ignore", "indexhint"})
SHARES = 4
"""Parts of the functions, which run in parallel."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("types")) as opened:
        yield opened


@pytest.mark.parametrize("share", range(SHARES))
def test_every_zone_argument_is_restricted(server: Target, share: int) -> None:
    found, unrestricted = 0, []
    with statements(server.http_port) as connection:
        for names in allowed_functions(server)[share::SHARES]:
            for mark, pool, counts in MARKS:
                for count in range(counts):
                    if not loads_zone(
                        connection, names[0], itertools.product(pool, repeat=count), mark
                    ):
                        continue
                    found += 1
                    unrestricted += [
                        (name, count)
                        for name in names
                        if count not in type_names.places(name, count + 1)
                    ]
    assert not unrestricted
    assert found > 100 / SHARES


def allowed_functions(server: Target) -> list[list[str]]:
    """Return the allowed names of each function of the server: its own and its aliases."""
    allowed = functions.load().ordinary
    groups = server.select(
        "SELECT groupArray(name) FROM system.functions WHERE NOT is_aggregate "
        "GROUP BY if(alias_to = '', name, alias_to) AS function ORDER BY function"
    )
    kept = (
        [name for name in names if name.lower() in allowed - UNBOUND]
        for (names,) in groups
        if isinstance(names, list)
    )
    return [names for names in kept if names]


def loads_zone(
    connection: Statements, name: str, calls: Iterable[tuple[str, ...]], mark: str
) -> bool:
    """Return whether one of the calls, with the mark as the last argument, loads the zone."""
    for call in calls:
        answer = connection.answer(f"SELECT `{name}`({', '.join([*call, mark])})")
        if answer.is_wrong_count:
            return False
        if any(f"Cannot load time zone {ZONE}" in line for line in answer.lines):
            return True
    return False


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
