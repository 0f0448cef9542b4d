"""Changes of the token file: comments and order are kept, and the file is replaced atomically.

The module `token_file` defines the format.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

import tomlkit

from octane_analytics.api.auth import token_file
from octane_analytics.errors import ConfigError

_HEAD = """\
# Tokens of the API: see `octane-analytics token --help`. Only hashes are kept here; a lost token is
# replaced, not recovered. The API applies a change within a second.
"""
_PRIVATE, _WITH_GROUP = 0o600, 0o640


def add(path: Path, name: str, entry: Mapping[str, object]) -> None:
    """Add a token; create the file with mode 0600 if it does not exist.

    Raises ConfigError if the name exists, or if the file is invalid or cannot be written.
    """
    with _locked_document(path) as document:
        listed = document.setdefault("tokens", tomlkit.table(is_super_table=True))
        if name in listed:
            raise ConfigError(
                f"{path} already has a token {name}: revoke it first, or use another name"
            )
        table = tomlkit.table()
        for key, value in entry.items():
            if isinstance(value, Mapping):
                inline = tomlkit.inline_table()
                inline.update(value)
                value = inline
            elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
                value = _inline_tables(value)
            table.add(key, value)
        listed[name] = table


def _inline_tables(values: list[Mapping[str, object]]) -> tomlkit.items.Array:
    array = tomlkit.array()
    for each in values:
        inline = tomlkit.inline_table()
        inline.update(each)
        array.append(inline)
    return array


def remove(path: Path, name: str) -> None:
    """Remove a token. Raises ConfigError if it does not exist, or the file is invalid or unwritable."""
    with _locked_document(path) as document:
        listed = document.get("tokens")
        if not isinstance(listed, MutableMapping) or name not in listed:
            raise ConfigError(
                f"{path} has no token {name}: `octane-analytics token list` lists the tokens"
            )
        del listed[name]


@contextlib.contextmanager
def _locked_document(path: Path) -> Iterator[tomlkit.TOMLDocument]:
    """Yield the document, and write it if the block does not raise. Blocks other writers."""
    target = Path(os.path.realpath(path))
    try:
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        text = _HEAD
        if target.exists():
            token_file.read(target)  # raises with the line of an error
            text = target.read_bytes().decode()
        document = tomlkit.parse(text)
        yield document
        changed = tomlkit.dumps(document)
        token_file.parse(changed, path)
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
        # A group through which the service reads the file keeps its permission; others get none.
        mode = _WITH_GROUP & found.st_mode | _PRIVATE
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                # Root must not take the file from the service's user.
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
