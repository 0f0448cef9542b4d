import os
import threading
from pathlib import Path

import pytest

from octane_analytics.api.auth import token_file_editor
from octane_analytics.api.auth.token_file import read
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.errors import ConfigError


def entry(text: str = "secret") -> dict[str, object]:
    return {"hash": f"sha256:{digest_of(text).hex()}", "scopes": ["report"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def test_new_file_has_mode_0600(path: Path) -> None:
    token_file_editor.add(path, "dash", entry() | {"parameters": {"app_id": "openstream"}})
    assert path.stat().st_mode & 0o777 == 0o600
    (token,) = read(path).listed
    assert token.parameters == {"app_id": "openstream"}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_comments_and_order_are_kept(path: Path) -> None:
    token_file_editor.add(path, "b", entry("b"))
    text = path.read_text().replace("[tokens.b]", "# the board's\n[tokens.b]")
    text = text.replace('scopes = ["report"]', 'scopes = ["report"]  # no more')
    path.write_text(text)
    token_file_editor.add(path, "a", entry("a"))
    token_file_editor.add(path, "c", entry("c"))
    token_file_editor.remove(path, "a")
    assert path.read_text().startswith(text)
    assert [token.name for token in read(path).listed] == ["b", "c"]
    token_file_editor.remove(path, "c")
    token_file_editor.remove(path, "b")
    assert read(path).listed == ()
    assert "the board's" in path.read_text()


def test_existing_and_missing_names_are_refused(path: Path) -> None:
    token_file_editor.add(path, "dash", entry())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="already has a token dash"):
        token_file_editor.add(path, "dash", entry("other"))
    with pytest.raises(ConfigError, match="has no token nix"):
        token_file_editor.remove(path, "nix")
    with pytest.raises(ConfigError, match="has no token nix"):
        token_file_editor.remove(path.with_name("none.toml"), "nix")
    assert path.read_bytes() == before
    assert not path.with_name("none.toml").exists()


@pytest.mark.parametrize("text", ["[tokens.", "[tokens.a]\nkey = 1\n", "[other]\n"])
def test_invalid_file_is_not_changed(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tokens\.toml:\d+: "):
        token_file_editor.add(path, "dash", entry())
    assert path.read_text() == text


def test_entry_that_does_not_parse_is_not_written(path: Path) -> None:
    token_file_editor.add(path, "dash", entry())
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another token has the same"):
        token_file_editor.add(path, "twin", entry())
    assert path.read_bytes() == before


def test_group_keeps_only_its_read_permission(path: Path) -> None:
    token_file_editor.add(path, "a", entry("a"))
    path.chmod(0o664)
    token_file_editor.add(path, "b", entry("b"))
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_owner_is_kept_when_root_writes(path: Path) -> None:
    token_file_editor.add(path, "a", entry("a"))
    os.chown(path, 12345, 23456)
    token_file_editor.add(path, "b", entry("b"))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_symlink_is_kept(path: Path) -> None:
    real = path.parent / "elsewhere" / "real.toml"
    real.parent.mkdir()
    path.symlink_to(real)
    token_file_editor.add(path, "a", entry())
    assert path.is_symlink()
    assert [token.name for token in read(real).listed] == ["a"]


def test_missing_directory_is_reported(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*No such file"):
        token_file_editor.add(path.parent / "none" / "tokens.toml", "a", entry())


def test_concurrent_changes_lose_nothing(path: Path) -> None:
    threads = [
        threading.Thread(target=token_file_editor.add, args=(path, f"t{n}", entry(str(n))))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in read(path).listed} == {f"t{n}" for n in range(8)}
