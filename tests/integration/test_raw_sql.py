"""The corpus of statements against the whole service, then with one or two defences disabled."""

import time
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp

from octane_analytics.api.raw_sql import allowlists, functions
from tests.support.asgi_calls import query
from tests.support.raw_sql import CANARY, Target, app_without, target
from tests.support.sql import corpus
from tests.support.sql.corpus import DEFENCES

HOSTILE, LEGITIMATE = corpus.hostile(), corpus.legitimate()
EXPLOSIONS = [statement for statement in HOSTILE if statement.group == "explosions"]
BY_GROUP = {
    group: [statement for statement in HOSTILE if statement.group == group]
    for group in dict.fromkeys(statement.group for statement in HOSTILE)
    if group != "explosions"  # slow; tested separately
}
_REJECTED = {400, 403, 422, 504}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("raw_sql")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    with app_without(server, seconds=1.0) as opened:
        yield opened


def test_corpus_has_enough_statements() -> None:
    assert len({statement.text for statement in HOSTILE}) >= 150
    assert len({statement.text for statement in LEGITIMATE}) >= 150
    assert all(statement.claimed <= set(DEFENCES) and statement.claimed for statement in HOSTILE)


@pytest.mark.parametrize("group", BY_GROUP)
def test_hostile_statements_are_rejected(server: Target, app: ASGIApp, group: str) -> None:
    before = server.state()
    wrong = []
    for statement in BY_GROUP[group]:
        sql = statement.filled(server.names)
        answer = query(app, sql)
        if answer.status_code not in statement.statuses or CANARY in answer.text:
            wrong.append((sql, answer.status_code, answer.text[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    assert server.state() == before
    assert server.can_merge()


@pytest.mark.parametrize("user", ["octane_query", "default"])
def test_legitimate_statements_are_answered(server: Target, user: str) -> None:
    wrong = []
    with app_without(server, *(["user"] if user == "default" else [])) as app:
        for statement in LEGITIMATE:
            sql = statement.filled(server.names)
            answer = query(app, sql)
            if answer.status_code != 200:
                wrong.append((sql, answer.status_code, answer.text[:300]))
    assert not wrong, "\n".join(map(str, wrong))


def find_unstopped(server: Target, without: tuple[str, ...]) -> list[object]:
    """Return the statements that an enabled defence claims to stop, but that succeeded."""
    enabled = set(DEFENCES) - set(without)
    wrong: list[object] = []
    before = server.state()
    with app_without(server, *without, seconds=0.3) as app:
        for statement in HOSTILE:
            if not statement.claimed & enabled or statement.never_without & set(without):
                continue
            if statement.group == "explosions" and len(enabled) > 1:
                continue  # slow, and claimed by one defence only
            sql = statement.filled(server.names)
            answer = query(app, sql)
            if answer.status_code not in _REJECTED or CANARY in answer.text.replace(sql, ""):
                wrong.append((statement.group, sql, answer.status_code, answer.text[:200]))
    if server.state() != before:
        wrong.append(("state", before, server.state()))
    return wrong


@pytest.mark.parametrize("without", DEFENCES)
def test_two_defences_stop_what_they_claim(server: Target, without: str) -> None:
    wrong = find_unstopped(server, (without,))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("alone", DEFENCES)
def test_single_defence_stops_what_it_claims(server: Target, alone: str) -> None:
    wrong = find_unstopped(server, tuple(defence for defence in DEFENCES if defence != alone))
    assert not wrong, "\n".join(map(str, wrong))


def test_explosion_ends_within_its_limits(server: Target) -> None:
    before = server.state()
    with app_without(server, seconds=0.5) as app:
        for statement in EXPLOSIONS:
            started = time.monotonic()
            answer = query(app, statement.text)
            assert answer.status_code in statement.statuses, (statement.text, answer.text[:200])
            assert time.monotonic() - started < 10
    assert server.state() == before


def test_size_of_constant_columns_is_bounded(app: ASGIApp) -> None:
    answer = query(app, "SELECT repeat('x', 100000) AS x FROM numbers(2000)")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "result_too_large"


def test_limit_setting_of_statement_lifts_nothing(app: ASGIApp) -> None:
    body = query(
        app, "SELECT number FROM numbers(9000) UNION ALL SELECT 1 SETTINGS limit = 0"
    ).json()
    assert (body["row_count"], body["truncated"]) == (2000, True)


def test_higher_order_functions_are_listed(server: Target) -> None:
    found = server.select(
        "SELECT name FROM system.functions WHERE higher_order OR alias_to IN "
        "(SELECT name FROM system.functions WHERE higher_order)"
    )
    assert {str(name).lower() for (name,) in found} <= allowlists.HIGHER_ORDER


def test_allowed_functions_read_only_their_arguments(server: Target) -> None:
    """Check the categories that the running server lists."""
    listed = functions.load()
    categories = ("Dictionary", "Embedded Dictionary", "Introspection", "AI", "Machine Learning")
    found = server.select(
        f"SELECT name FROM system.functions WHERE categories IN {categories} AND NOT is_aggregate "
        "UNION ALL SELECT name FROM system.functions WHERE alias_to IN "
        f"(SELECT name FROM system.functions WHERE categories IN {categories} AND NOT is_aggregate)"
    )
    assert len(found) > 50
    assert [name for (name,) in found if listed.allow(str(name))] == []
