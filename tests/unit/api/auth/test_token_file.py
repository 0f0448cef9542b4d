"""The format of the token file, the errors of invalid ones, and reloads."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from octane_analytics.api.auth.token_file import TokenFile, parse, read
from octane_analytics.api.auth.tokens import TokenRate, digest_of
from octane_analytics.api.filters import Filter
from octane_analytics.errors import ConfigError

PATH = Path("tokens.toml")
HASH = f"sha256:{digest_of('secret').hex()}"
OTHER = f"sha256:{digest_of('other').hex()}"


def entry(name: str = "dash", *lines: str, digest: str = HASH) -> str:
    return "\n".join([f"[tokens.{name}]", f'hash = "{digest}"', *lines, ""])


REPORT = 'scopes = ["report"]'


def test_token_is_found_only_by_exact_text() -> None:
    tokens = parse(entry("dash", REPORT), PATH)
    found = tokens.find("secret")
    assert found is not None
    assert (found.name, set(found.scopes)) == ("dash", {"report"})
    assert tokens.find("Secret") is None
    assert tokens.find(HASH) is None
    assert tokens.find("") is None
    assert tokens.find("\udcff") is None


def test_every_field_is_read() -> None:
    (token,) = parse(
        entry(
            "dash",
            'scopes = ["report", "metrics"]',
            'parameters = { app_id = "openstream", limit = 5 }',
            'rate = "600/min"',
            "burst = 30",
            "concurrency = 4",
            "created = 2026-01-01T00:00:00Z",
            "expires = 2027-01-01T00:00:00Z",
        ),
        PATH,
    ).listed
    assert token.parameters == {"app_id": "openstream", "limit": 5}
    assert (token.rate, token.concurrency) == (TokenRate(10, 30), 4)
    assert not token.is_expired(datetime(2026, 12, 31, tzinfo=UTC))
    assert token.is_expired(datetime(2027, 1, 1, tzinfo=UTC))


def test_fixed_parameters_exclude_raw_sql() -> None:
    text = entry("dash", 'scopes = ["report", "query"]', 'parameters = { app_id = "openstream" }')
    (token,) = parse(text, PATH).listed
    assert token.scopes == {"report"}


def test_fixed_filters_exclude_raw_sql() -> None:
    line = 'filters = [{ property = "tenant", op = "in", value = ["a", 5] }]'
    (token,) = parse(entry("dash", 'scopes = ["report", "query"]', line), PATH).listed
    assert token.scopes == {"report"}
    assert token.filters == (Filter("tenant", "in", ["a", "5"]),)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (entry("dash", REPORT, 'filters = [{ property = "a" }]'), 4, "needs a string"),
        (entry("dash", REPORT, 'filters = [{ property = "a", op = "is" }]'), 4, "Invalid enum"),
        (entry("dash", REPORT, 'filters = [{ column = "a" }]'), 4, "column"),
        ("[tokens.a\n", 1, "Expected"),
        (entry("dash", REPORT) + entry("dash", REPORT), 4, "Cannot declare"),
        ("# x\n" + entry("dash", 'scope = ["report"]'), 4, "unknown field `scope`"),
        (entry("dash", 'scopes = ["admin"]'), 3, "must be one or more of report, query, metrics"),
        (entry("dash", "scopes = []"), 3, "must be one or more of"),
        (entry("dash"), 1, "missing required field `scopes`"),
        (entry("dash", REPORT, digest="secret"), 2, "must be sha256:"),
        (entry("dash", REPORT, digest=HASH.upper()), 2, "must be sha256:"),
        (entry("a", REPORT) + entry("b", REPORT), 5, "another token has the same"),
        (entry("dash", REPORT, 'rate = "5"'), 4, "such as 20/s"),
        (entry("dash", REPORT, "burst = 5"), 4, "a burst needs a rate"),
        (entry("dash", REPORT, "concurrency = 0"), 4, "from 1 to 10000"),
        (entry("dash", REPORT, "expires = 2027-01-01T00:00:00"), 4, "needs an offset"),
        (entry("dash", REPORT, "expires = 2027-01-01"), 4, "datetime"),
        (entry("dash", REPORT, "parameters = { a = true }"), 4, "bool"),
        (entry("dash", REPORT, "parameters = { a = 1.5 }"), 4, "float"),
        (entry('"a b"', REPORT), 1, "a name is up to 64"),
        (entry('"naïve"', REPORT), 1, "a name is up to 64"),
        ("\ntokens = 5\n", 2, "tokens are tables"),
        ("\n\n[token.dash]\n", 3, "unknown key 'token'"),
        ("[tokens]\ndash = 1\n", 1, "Expected `object`"),
    ],
)
def test_error_names_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, PATH)
    assert str(caught.value).startswith(f"tokens.toml:{line}: ")
    assert what in str(caught.value)


def test_error_does_not_show_an_invalid_hash() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(entry("dash", REPORT, digest="octane_the_token_itself"), PATH)
    assert "octane_the" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode", "what"),
    [
        (None, 0o600, "No such file"),
        (b"\xff", 0o600, "UTF-8"),
        (b"", 0o606, "writable by all users"),
    ],
)
def test_unusable_file_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, what: str
) -> None:
    path = tmp_path / "tokens.toml"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=what):
        read(path)


def test_changed_file_is_reloaded_once_per_second(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(entry("dash", REPORT))
    file = TokenFile(path)
    assert [token.name for token in file.current(0.0).listed] == ["dash"]
    path.write_text(entry("board", REPORT, digest=OTHER))
    assert [token.name for token in file.current(0.9).listed] == ["dash"]
    assert [token.name for token in file.current(1.0).listed] == ["board"]


@pytest.mark.parametrize("content", ["[tokens.", None])
def test_invalid_file_keeps_tokens_and_logs_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(entry("dash", REPORT))
    file = TokenFile(path)
    file.current(0.0)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    caplog.set_level(logging.ERROR)
    for second in range(1, 5):
        assert [token.name for token in file.current(float(second)).listed] == ["dash"]
    (record,) = caplog.records
    assert str(path) in record.__dict__["octane_fields"]["error"]
    path.write_text("")
    assert file.current(9.0).listed == ()


def test_replaced_file_of_equal_size_is_reloaded(tmp_path: Path) -> None:
    path, other = tmp_path / "tokens.toml", tmp_path / "new"
    path.write_text(entry("dash", REPORT))
    file = TokenFile(path)
    file.current(0.0)
    other.write_text(entry("mash", REPORT))
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert [token.name for token in file.current(1.0).listed] == ["mash"]
