"""Mutations of the corpus against the validation alone, as the default user without limits.

None returns a canary or changes anything. RAW_SQL_FUZZ_EXAMPLES=20000 runs more examples.
"""

import os
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from tests.support.asgi_calls import query
from tests.support.raw_sql import CANARY, Target, app_without, target
from tests.support.sql import corpus

EXAMPLES = int(os.environ.get("RAW_SQL_FUZZ_EXAMPLES", "300"))
_TOKEN = re.compile(r"\s+|\w+|'(?:[^'\\]|\\.)*'|`[^`]*`|.", re.DOTALL)
# Python(...) ends an embedded server; explosions are slow.
SEEDS = [
    statement.text
    for statement in corpus.hostile() + corpus.legitimate()
    if not statement.never_without and statement.group not in ("explosions", "waiting")
]
GLUE = [
    "'",
    '"',
    "`",
    "\n",
    "--",
    "/*",
    "*/",
    ";",
    ",",
    "(",
    ")",
    " UNION ALL ",
    "\\",
    "$$",
    "#",
    "\0",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


@pytest.fixture(scope="module")
def app(server: Target) -> Iterator[ASGIApp]:
    with app_without(server, "user", "limits", seconds=1.0) as opened:
        yield opened


@st.composite
def mutations(draw: st.DrawFn) -> str:
    tokens = _TOKEN.findall(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        other = _TOKEN.findall(draw(st.sampled_from(SEEDS)))
        position = draw(st.integers(0, len(tokens)))
        match draw(st.sampled_from(["glue", "splice", "drop", "swap", "nest"])):
            case "glue":
                tokens.insert(position, draw(st.sampled_from(GLUE)))
            case "splice":
                start = draw(st.integers(0, len(other)))
                tokens[position:position] = other[start : start + draw(st.integers(1, 8))]
            case "drop":
                del tokens[position : position + 1]
            case "swap":
                tokens[position : position + 1] = [draw(st.sampled_from(other))]
            case _:
                tokens = ["SELECT * FROM (", *tokens, ")"]
    return "".join(tokens)


def test_no_mutation_passes_the_validation(server: Target, app: ASGIApp) -> None:
    before = server.state()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations())
    def holds(text: str) -> None:
        sql = re.sub(r"\{(\w+)\}", lambda found: str(server.names.get(found[1], found[0])), text)
        answer = query(app, sql) if sql.strip() else None
        assert answer is None or CANARY not in answer.text.replace(sql, ""), sql
        assert answer is None or answer.status_code != 500, sql

    holds()
    assert server.state() == before
    assert server.can_merge()
