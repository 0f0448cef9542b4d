"""Report templates: SQL files that declare their parameters, read and checked before anybody asks.

A file is one SELECT behind a `/* */` comment that holds TOML: `title`, `description`, a table
`parameters` and a table `columns` that says what each column of the answer means. ClickHouse binds the
values itself (`{name:Type}`); nothing is ever pasted into the SQL. Every template also takes the
COMMON parameters and names the table by the two placeholders of TABLE.

Owns the format of the files; refuses to know values (see `parameters`) and how SQL is run.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from octane_analytics.errors import ConfigError

REPORTS = Path(__file__).parent / "reports"
TIME = "DateTime('UTC')"
TABLE = {"database": "Identifier", "table": "Identifier"}

_PLACEHOLDER = re.compile(r"\{(\w+):([^{}]+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template takes. A String without a default is optional: absent means no restriction."""

    type: str
    help: str
    default: str | int | None = None
    minimum: int | None = None
    maximum: int | None = None
    allowed: tuple[str | int, ...] | None = None


COMMON = {
    "app_id": Parameter("String", "Only this application's events; absent for all."),
    "from": Parameter(TIME, "RFC 3339 time, inclusive; absent for 24 hours before `to`."),
    "to": Parameter(TIME, "RFC 3339 time, exclusive; absent for now."),
}


@dataclass(frozen=True, slots=True)
class Template:
    name: str
    title: str
    description: str
    parameters: Mapping[str, Parameter]
    columns: Mapping[str, str]
    sql: str


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    description: str
    columns: dict[str, str]
    parameters: dict[str, dict[str, Any]] = {}


def load(directory: Path = REPORTS) -> dict[str, Template]:
    """The directory's templates by name, in the names' order.

    Reads the files. Raises ConfigError that names file and line of the first thing wrong.
    """
    templates = {path.stem: _read(path) for path in sorted(directory.glob("*.sql"))}
    if not templates:
        raise ConfigError(f"no report templates in {directory}: the installation is incomplete")
    return templates


def _read(path: Path) -> Template:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    opening, _, rest = text.partition("\n")
    toml, closing, sql = rest.partition("\n*/\n")
    if opening != "/*" or not closing:
        raise ConfigError(f"{path}:1: must begin with a comment that stands on lines of its own")
    header = _header(path, toml)
    sql_line = toml.count("\n") + 4
    parameters = dict(COMMON)
    for name, declared in header.parameters.items():
        try:
            parameters[name] = _parameter(name, declared)
        except ValueError as error:  # msgspec's ValidationError is one
            line = _line_of(toml, f"[parameters.{name}]", 2)
            raise ConfigError(f"{path}:{line}: parameter {name}: {error}") from error
    _check_sql(path, sql, sql_line, {name: each.type for name, each in parameters.items()})
    return Template(
        path.stem,
        header.title,
        " ".join(header.description.split()),
        parameters,
        header.columns,
        sql.strip(),
    )


def _header(path: Path, toml: str) -> _Header:
    try:
        return msgspec.convert(tomllib.loads(toml), _Header)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) + 1 if found else 1
        raise ConfigError(f"{path}:{line}: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}:1: {error}") from error


def _parameter(name: str, declared: Mapping[str, Any]) -> Parameter:
    if name in COMMON or name in TABLE:
        raise ValueError("is one that every template has already")
    if not _NAME.match(name):
        raise ValueError("is not a lower-case name")
    parameter = msgspec.convert(declared, Parameter)
    problem = _problem(parameter)
    if problem:
        raise ValueError(problem)
    return parameter


def _problem(parameter: Parameter) -> str | None:
    if parameter.type not in ("String", "UInt32"):
        return "type must be String or UInt32"
    is_number = parameter.type == "UInt32"
    if is_number and parameter.default is None:
        return "a number needs a default"
    if not is_number and (parameter.minimum, parameter.maximum) != (None, None):
        return "only a number has bounds"
    expected = int if is_number else str
    for value in (parameter.default, *(parameter.allowed or ())):
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            return f"{value!r} is not of type {parameter.type}"
    return None if parameter.default is None else refusal(parameter, parameter.default)


def refusal(parameter: Parameter, value: str | int) -> str | None:
    """Why the parameter cannot have this value, which is of its type; None where it can."""
    if parameter.allowed is not None and value not in parameter.allowed:
        return f"must be one of {', '.join(map(str, parameter.allowed))}"
    if isinstance(value, str):
        return None if value else "must not be empty"
    low = 0 if parameter.minimum is None else parameter.minimum
    high = 2**32 - 1 if parameter.maximum is None else parameter.maximum
    return None if low <= value <= high else f"must be from {low} to {high}"


def _check_sql(path: Path, sql: str, first_line: int, declared: Mapping[str, str]) -> None:
    types = {**declared, **TABLE}
    used = set()
    for found in _PLACEHOLDER.finditer(sql):
        name, kind = found.groups()
        line = first_line + sql.count("\n", 0, found.start())
        if name not in types:
            raise ConfigError(f"{path}:{line}: {found[0]} is not declared")
        if kind != types[name]:
            raise ConfigError(f"{path}:{line}: {found[0]} is declared as {types[name]}")
        used.add(name)
    for name in types:
        if name not in used:
            raise ConfigError(f"{path}:{first_line}: {{{name}:{types[name]}}} is never used")


def _line_of(text: str, line: str, offset: int) -> int:
    """The number in the file of the first such line of the header; 1 where there is none."""
    lines = text.split("\n")
    return lines.index(line) + offset if line in lines else 1
