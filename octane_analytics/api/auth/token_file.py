"""Writes the file of tokens: comments and order stay, and readers see the old file or the new one.

Owns how the file changes; what it means is `tokens`'.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

import tomlkit

from octane_analytics.api.auth import tokens
from octane_analytics.errors import ConfigError

_HEAD = """\
# Tokens of the API: see `octane-analytics token --help`. Only hashes are kept here; a lost token is
# replaced, not found again. The API notices a change within a second.
"""
_PRIVATE, _WITH_GROUP = 0o600, 0o640


def add(path: Path, name: str, entry: Mapping[str, object]) -> None:
    """Adds a token; makes the file, for its owner alone, where there is none.

    Raises ConfigError where the name is taken, the file is broken, or cannot be written.
    """
    with _changing(path) as document:
        listed = document.setdefault("tokens", tomlkit.table(is_super_table=True))
        if name in listed:
            raise ConfigError(
                f"{path} has a token {name} already: revoke it first, or take another name"
            )
        table = tomlkit.table()
        for key, value in entry.items():
            if isinstance(value, Mapping):
                inline = tomlkit.inline_table()
                inline.update(value)
                value = inline
            table.add(key, value)
        listed[name] = table


def remove(path: Path, name: str) -> None:
    """Raises ConfigError where there is no such token, the file is broken, or cannot be written."""
    with _changing(path) as document:
        listed = document.get("tokens")
        if not isinstance(listed, MutableMapping) or name not in listed:
            raise ConfigError(
                f"{path} has no token {name}: `octane-analytics token list` shows them"
            )
        del listed[name]


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[tomlkit.TOMLDocument]:
    """The file's document, written when the block ends well. Others who change it wait."""
    target = Path(os.path.realpath(path))
    try:
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        text = _HEAD
        if target.exists():
            tokens.read(target)  # refuses a broken one by its line
            text = target.read_bytes().decode()
        document = tomlkit.parse(text)
        yield document
        changed = tomlkit.dumps(document)
        tokens.parse(changed, path)
        _replace(target, changed, directory)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        os.close(directory)


def _replace(target: Path, text: str, directory: int) -> None:
    mode, owner = _PRIVATE, None
    with contextlib.suppress(FileNotFoundError):
        found = target.stat()
        owner = (found.st_uid, found.st_gid)
        # A group that the service reads it through keeps its right; others have none.
        mode = _WITH_GROUP & found.st_mode | _PRIVATE
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                # Root that adds a token must not take the file from the service's user.
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    os.fsync(directory)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"API_TOKENS_FILE: cannot write {path}: {error.strerror}")
