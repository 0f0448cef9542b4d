import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octane_analytics.api.auth.token_file import read
from octane_analytics.api.filters import from_text, validated
from octane_analytics.cli.commands.token import token
from octane_analytics.errors import ConfigError

Run = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("API_TOKENS_FILE", str(path))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(token, arguments)

    return run


def test_new_prints_token_and_stores_only_its_hash(run: Run, path: Path) -> None:
    done = run(
        "new", "dash", "--parameter", "app_id=openstream", "--rate", "20/s", "--expires", "90d"
    )
    assert done.exit_code == 0
    (created,) = done.stdout.splitlines()
    assert created not in path.read_text()
    assert created not in done.stderr
    stored = read(path).find(created)
    assert stored is not None
    assert (stored.name, stored.parameters) == ("dash", {"app_id": "openstream"})


def test_list_shows_no_hash(run: Run, path: Path) -> None:
    run("new", "dash", "--concurrency", "3")
    run("new", "analyst", "--scope", "query", "--scope", "report")
    output = run("list").stdout
    assert output.splitlines() == [
        "dash  scopes=report  concurrency=3",
        "analyst  scopes=report,query",
    ]
    listed = json.loads(run("list", "--json").stdout)
    assert [each["name"] for each in listed] == ["dash", "analyst"]
    assert "sha256" not in output + json.dumps(listed)


def test_new_stores_fixed_filters(run: Run, path: Path) -> None:
    texts = ("tenant:eq:acme", "device:in:tv,a\\,b", "watch_time:gt:5.0", "view_id:exists:true")
    done = run("new", "acme", *(each for text in texts for each in ("--filter", text)))
    assert done.exit_code == 0
    stored = read(path).find(done.stdout.strip())
    assert stored is not None
    assert stored.filters == validated(list(map(from_text, texts)))
    assert run("list").stdout == f"acme  scopes=report  filters={' '.join(texts)}\n"


def test_revoked_token_is_removed(run: Run, path: Path) -> None:
    created = run("new", "dash").stdout.strip()
    assert run("revoke", "dash").exit_code == 0
    assert read(path).find(created) is None
    assert isinstance(run("revoke", "dash").exception, ConfigError)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a b"], "a name is up to 64"),
        (["x" * 65], "a name is up to 64"),
        (["x", "--rate", "fast"], "such as 20/s"),
        (["x", "--burst", "5"], "a burst needs a rate"),
        (["x", "--scope", "admin"], "'admin'"),
        (["x", "--scope", "query", "--parameter", "app_id=a"], "cannot have raw SQL"),
        (["x", "--scope", "query", "--filter", "tenant:eq:a"], "cannot have raw SQL"),
        (["x", "--filter", "tenant"], "must be PROPERTY:OP:VALUE"),
        (["x", "--filter", "tenant:gt:nan"], "gt needs a number"),
        (["x", "--filter", "tenant:gt:1e999"], "a number must be finite"),
        (["x", "--parameter", "app_id"], "write NAME=VALUE, such as app_id=openstream"),
        (["x", "--parameter", "a=1", "--parameter", "a=2"], "given twice"),
        (["x", "--expires", "soon"], "write a duration or a time such as"),
        (["x", "--expires", "2027-01-01"], "write a duration or a time such as"),
        (["x", "--expires", "٩d"], "write a duration or a time such as"),
        (["x", "--expires", "2020-01-01T00:00:00Z"], "is in the past"),
    ],
)
def test_invalid_arguments_of_new_are_usage_errors(
    run: Run, path: Path, arguments: list[str], expected: str
) -> None:
    done = run("new", *arguments)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert not path.exists()


def test_token_without_a_file_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.delenv("API_TOKENS_FILE")
    assert "--file" in str(run("list").exception)
    assert run("new", "dash", "--file", str(path)).exit_code == 0
    assert os.path.exists(path)
