"""Parser of systemd's EnvironmentFile format, with the same result as systemd: systemd.exec(5)."""

import re
from pathlib import Path

from octane_analytics.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED_IN_DOUBLE_QUOTES = '"\\`$'


def read(path: Path) -> dict[str, str]:
    """Return the variables of the file. Raise ConfigError with the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the environment file {path}: {reason}") from error
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{path}, {error}") from error


def parse(text: str) -> dict[str, str]:
    """Return the variables. Raise ValueError for a line without an assignment, which systemd skips."""
    variables: dict[str, str] = {}
    position = 0
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        end = _end_of_line(text, position)
        if not text[position:end].strip() or text[position:end].lstrip()[0] in "#;":
            position = end + 1
            continue
        name, separator, _ = text[position:end].partition("=")
        if not separator or not _NAME.fullmatch(name.strip()):
            raise ValueError(f"line {line}: not NAME=value: {name.strip()[:40]!r}")
        variables[name.strip()], position = _value(text, position + len(name) + 1, line)
    return variables


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _value(text: str, position: int, line: int) -> tuple[str, int]:
    """Return the value at `position` and the position of the next line. Joins adjacent quoted parts."""
    value = ""
    while True:
        while position < len(text) and text[position] in " \t\r":
            position += 1
        if position >= len(text) or text[position] == "\n":
            return value, position + 1
        match text[position]:
            case "'":
                end = text.find("'", position + 1)
                if end < 0:
                    raise ValueError(f"line {line}: a quote is not closed")
                value, position = value + text[position + 1 : end], end + 1
            case '"':
                part, position = _double_quoted(text, position + 1, line)
                value += part
            case _:
                part, position = _bare(text, position)
                return value + part, position


def _double_quoted(text: str, position: int, line: int) -> tuple[str, int]:
    part = ""
    while position < len(text):
        character, following = text[position], text[position + 1 : position + 2]
        if character == '"':
            return part, position + 1
        if character == "\\" and following:
            if following in _ESCAPED_IN_DOUBLE_QUOTES:
                part += following
            elif following != "\n":
                part += character + following
            position += 2
            continue
        part, position = part + character, position + 1
    raise ValueError(f"line {line}: a quote is not closed")


def _bare(text: str, position: int) -> tuple[str, int]:
    """Return the unquoted rest of the line, in which quotes have no meaning, and the next position."""
    part = without_trailing_blanks = ""
    while position < len(text) and text[position] != "\n":
        if text[position] == "\\":
            following = text[position + 1 : position + 2]
            if following != "\n":
                part += following
                without_trailing_blanks = part
            position += 2
            continue
        part += text[position]
        if text[position] not in " \t\r":
            without_trailing_blanks = part
        position += 1
    return without_trailing_blanks, position + 1
