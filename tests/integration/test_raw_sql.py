"""The corpus of statements against the full stack, then with one fence or two left out."""

import time
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp

from octane_analytics.api.raw_sql import allowlists, functions
from tests.support.asgi_calls import query
from tests.support.raw_sql import CANARY, Target, app_without, target
from tests.support.sql import corpus
from tests.support.sql.corpus import FENCES

HOSTILE, LEGITIMATE = corpus.hostile(), corpus.legitimate()
EXPLOSIONS = [statement for statement in HOSTILE if statement.group == "explosions"]
BY_GROUP = {
    group: [statement for statement in HOSTILE if statement.group == group]
    for group in dict.fromkeys(statement.group for statement in HOSTILE)
    if group != "explosions"  # they take their time, and have a test of their own
}
_REFUSALS = {400, 403, 422, 504}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("raw_sql")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(at: Target) -> Iterator[ASGIApp]:
    with app_without(at, seconds=1.0) as opened:
        yield opened


def test_corpus_is_as_large_as_it_should_be() -> None:
    assert len({statement.text for statement in HOSTILE}) >= 150
    assert len({statement.text for statement in LEGITIMATE}) >= 150
    assert all(statement.claimed <= set(FENCES) and statement.claimed for statement in HOSTILE)


@pytest.mark.parametrize("group", BY_GROUP)
def test_hostile_statements_are_refused(at: Target, app: ASGIApp, group: str) -> None:
    before = at.state()
    wrong = []
    for statement in BY_GROUP[group]:
        sql = statement.named(at.names)
        answer = query(app, sql)
        if answer.status_code not in statement.statuses or CANARY in answer.text:
            wrong.append((sql, answer.status_code, answer.text[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    assert at.state() == before
    assert at.can_merge()


@pytest.mark.parametrize("user", ["octane_query", "default"])
def test_legitimate_statements_are_answered(at: Target, user: str) -> None:
    wrong = []
    with app_without(at, *(["user"] if user == "default" else [])) as app:
        for statement in LEGITIMATE:
            sql = statement.named(at.names)
            answer = query(app, sql)
            if answer.status_code != 200:
                wrong.append((sql, answer.status_code, answer.text[:300]))
    assert not wrong, "\n".join(map(str, wrong))


def stops_what_is_claimed(at: Target, without: tuple[str, ...]) -> list[object]:
    """Statements that at least one of the fences left claims to stop, and that got through."""
    left = set(FENCES) - set(without)
    wrong: list[object] = []
    before = at.state()
    with app_without(at, *without, seconds=0.3) as app:
        for statement in HOSTILE:
            if not statement.claimed & left or statement.never_without & set(without):
                continue
            if statement.group == "explosions" and len(left) > 1:
                continue  # they take their time, and one fence claims them
            sql = statement.named(at.names)
            answer = query(app, sql)
            if answer.status_code not in _REFUSALS or CANARY in answer.text.replace(sql, ""):
                wrong.append((statement.group, sql, answer.status_code, answer.text[:200]))
    if at.state() != before:
        wrong.append(("state", before, at.state()))
    return wrong


@pytest.mark.parametrize("without", FENCES)
def test_each_fence_left_out_the_other_two_stop_what_they_claim(at: Target, without: str) -> None:
    wrong = stops_what_is_claimed(at, (without,))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("alone", FENCES)
def test_each_fence_alone_stops_what_it_claims(at: Target, alone: str) -> None:
    wrong = stops_what_is_claimed(at, tuple(fence for fence in FENCES if fence != alone))
    assert not wrong, "\n".join(map(str, wrong))


def test_explosion_ends_within_its_limits(at: Target) -> None:
    before = at.state()
    with app_without(at, seconds=0.5) as app:
        for statement in EXPLOSIONS:
            started = time.monotonic()
            answer = query(app, statement.text)
            assert answer.status_code in statement.statuses, (statement.text, answer.text[:200])
            assert time.monotonic() - started < 10
    assert at.state() == before


def test_answer_of_constants_is_bounded_though_clickhouse_counts_them_once(app: ASGIApp) -> None:
    told = query(app, "SELECT repeat('x', 100000) AS x FROM numbers(2000)")
    assert told.status_code == 422
    assert told.json()["error"]["code"] == "result_too_large"


def test_limit_that_the_statement_sets_itself_cuts_no_less(app: ASGIApp) -> None:
    told = query(
        app, "SELECT number FROM numbers(9000) UNION ALL SELECT 1 SETTINGS limit = 0"
    ).json()
    assert (told["row_count"], told["truncated"]) == (2000, True)


def test_functions_that_take_functions_are_known(at: Target) -> None:
    found = at.ask(
        "SELECT name FROM system.functions WHERE higher_order OR alias_to IN "
        "(SELECT name FROM system.functions WHERE higher_order)"
    )
    assert {str(name).lower() for (name,) in found} <= allowlists.HIGHER_ORDER


def test_no_allowed_function_reads_more_than_its_arguments(at: Target) -> None:
    """Those of the running server that it lists as of a kind that does."""
    listed = functions.load()
    allowlists = ("Dictionary", "Embedded Dictionary", "Introspection", "AI", "Machine Learning")
    found = at.ask(
        f"SELECT name FROM system.functions WHERE categories IN {allowlists} AND NOT is_aggregate "
        "UNION ALL SELECT name FROM system.functions WHERE alias_to IN "
        f"(SELECT name FROM system.functions WHERE categories IN {allowlists} AND NOT is_aggregate)"
    )
    assert len(found) > 50
    assert [name for (name,) in found if listed.allow(str(name))] == []
