"""Parser of report templates: SQL files with a TOML header that declares their parameters.

A file is a `/* */` comment that holds TOML, followed by one SELECT:

| key | meaning |
|---|---|
| `title`, `description` | shown to users |
| `cache_seconds` | how long an answer is cached; 0 (default): not at all |
| `row_limit` | maximum rows of an answer, instead of API_MAX_RESULT_ROWS |
| `page_rows` | default rows of a page; declares `limit` and `offset` |
| `[parameters.NAME]` | `type`, `help`, `default` …: the fields of `parameter_types.Parameter` |
| `key` | columns by which a row is the same in another range; [] for a report of one row |
| `has_exact` | declares `exact`: uniqCombined64 in the SQL is then replaced by uniqExact |
| `is_sampled` | declares `sample` and `max_events`, see `sample_blocks` |
| `max_events` | default of that parameter, instead of 2,000,000 |
| `[rollup]` | `start`, `hours`, `weeks`: see `rollup_blocks`; `prefers`: see `Template` |
| `[filters]` | for a property, the expression of `rollup_expressions` that is a rollup's key |
| `[types]` | ClickHouse type of each column of the answer, for typed clients |
| `[columns]` | description of each column of the answer |

ClickHouse binds the values itself (`{name:Type}`); none is inserted into the SQL. Every template also
has the COMMON parameters and names the table by the two placeholders of TABLE. Instead of the column
`properties` it reads `{properties:JSON}`, which ClickHouse's JSON functions can parse whatever numbers
it holds. A report about playback reads the subqueries of `view_source`; one of buckets uses the texts of
`bucket_texts`. The parameters `limit` and
`offset` are the size and the start of a page; a template may declare them itself, with its own bounds,
instead of `page_rows`. A report accepts filters if `{filters:And}` follows the other conditions of
every read of the table (see `api.filters`), and totals if `{totals:With}` follows a GROUP BY, where it
becomes WITH TOTALS.

Does not depend on values (see `parameters`) or on how SQL is run.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

from octane_analytics.api.filters import NAME_PREFIX
from octane_analytics.api.filters import PLACEHOLDER as FILTERS
from octane_analytics.api.reports import bucket_texts, rollup_blocks, sample_blocks, view_source
from octane_analytics.api.reports.parameter_types import TIME, Parameter, declaration_error
from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, READABLE_PROPERTIES
from octane_analytics.clickhouse.rollups import name_of
from octane_analytics.errors import ConfigError

TABLE = {"database": "Identifier", "table": "Identifier"}
PROPERTIES = "{properties:JSON}"
TOTALS = "{totals:With}"
SECONDS_WITH_WEEKS = 14 * 86_400
"""Length of a range from which on it holds a whole week, wherever it begins."""
RESERVED = frozenset(
    {
        "format",
        "csv_raw",
        "filter",
        "compare",
        "totals",
        "integers",
        "cursor",
        "interval",
        "download",
    }
)
"""Names that a URL uses for other purposes."""
MAX_CACHE_SECONDS = 86_400
MAX_ROWS = 1_000_000_000
MAX_PAGE_ROWS = 10_000
MAX_OFFSET = 1_000_000
MAX_SAMPLED_EVENTS = 1_000_000_000

_PLACEHOLDER = re.compile(r"\{(\w+):([^{}]+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")

COMMON = {
    "app_id": Parameter("String", "Only events of this application; absent for all."),
    "from": Parameter(TIME, "Start of the range, inclusive; absent for 24 hours before `to`."),
    "to": Parameter(TIME, "End of the range, exclusive; absent for now."),
}


EXACT = Parameter(
    "Bool",
    "Count distinct users exactly, which reads all events of the range; the default is exact up to "
    "4,096 users.",
    default=False,
)
SAMPLING = {
    "sample": Parameter(
        "Float64",
        "Share of the users to read, chosen by a hash; 1 reads all, 0 as many as `max_events` allows.",
        default=0,
        minimum=0,
        maximum=1,
    ),
    "max_events": Parameter(
        "UInt64",
        "Events in the range above which users are sampled, if `sample` is 0.",
        default=2_000_000,
        minimum=1,
    ),
}


@dataclass(frozen=True, slots=True)
class Template:
    name: str
    title: str
    description: str
    parameters: Mapping[str, Parameter]
    columns: Mapping[str, str]
    cache_seconds: int
    row_limit: int | None
    """Maximum rows of an answer; None for the service's limit."""
    text: str
    """SQL with the placeholders of filters."""
    text_with_weeks: str | None = None
    """The same for ranges that hold whole weeks; None if none are read from a rollup of weeks."""
    has_exact: bool = False
    preferred_projection: str | None = None
    """Projection that can answer the whole hours for any values; None if that depends on values."""
    types: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """ClickHouse types by column, as far as they are declared."""
    key: tuple[str, ...] | None = None
    """Columns by which rows of two ranges are compared; None if they cannot be."""
    filter_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Expressions of the rollup's keys, by the property whose text they hold."""

    def settings(self, *ranges: tuple[int, int]) -> Mapping[str, object]:
        """Return ClickHouse settings for the statements of these ranges, each `ends` of `statement`.

        Without the preference ClickHouse plans with every projection of the table, which takes longer
        than reading most of them. On a table without this one it does so nevertheless. With weeks each
        SELECT needs a projection of its own, and a SELECT cannot state it: reports are read-only
        queries, in which ClickHouse ignores its SETTINGS.
        """
        has_weeks = any(self._text(ends) is not self.text for ends in ranges)
        if self.preferred_projection is None or has_weeks:
            return {}
        return {"preferred_optimize_projection_name": self.preferred_projection}

    def _text(self, ends: tuple[int, int]) -> str:
        if self.text_with_weeks is None or ends[1] - ends[0] < SECONDS_WITH_WEEKS:
            return self.text
        return self.text_with_weeks

    @property
    def sql(self) -> str:
        """SQL without filters, with all that it reads for a long range."""
        return (self.text_with_weeks or self.text).replace(FILTERS, "").replace(TOTALS, "")

    @property
    def has_filters(self) -> bool:
        return FILTERS in self.text

    @property
    def has_totals(self) -> bool:
        return TOTALS in self.text or self.is_single_row

    @property
    def is_single_row(self) -> bool:
        """True if the answer is one row, which then is its own totals."""
        return self.key == ()

    def statement(
        self,
        effective: Mapping[str, object],
        ends: tuple[int, int],
        conditions: str = "",
        *,
        has_totals: bool = False,
    ) -> str:
        """Return the SQL for these values as clients see them: `exact` counts by uniqExact.

        `ends` are `from` and `to` in seconds; `conditions` are those of filters, which begin with AND.
        """
        sql = self._text(ends).replace(FILTERS, conditions)
        sql = sql.replace(TOTALS, "WITH TOTALS" if has_totals else "")
        if self.has_exact and effective["exact"] is True:
            return sql.replace("uniqCombined64", "uniqExact")
        return sql


class _Rollup(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    start: str = "{from:DateTime('UTC')}"
    hours: str = ""
    weeks: str = ""
    prefers: str = ""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    description: str
    columns: dict[str, str]
    cache_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_CACHE_SECONDS)] = 0
    row_limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)] | None = None
    page_rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_ROWS)] | None = None
    types: dict[str, str] = {}
    key: list[str] | None = None
    has_exact: bool = False
    is_sampled: bool = False
    max_events: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLED_EVENTS)] | None = None
    rollup: _Rollup = _Rollup()
    filters: dict[str, str] = {}
    parameters: dict[str, dict[str, Any]] = {}


def read_template(path: Path) -> Template:
    """Parse and validate the file. Raises ConfigError with file, line and error."""
    if not _NAME.match(path.stem):
        raise ConfigError(f"{path}:1: the file's name must consist of a-z, 0-9 and _")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}:1: cannot be read: {error}") from error
    opening, _, rest = text.partition("\n")
    toml, closing, sql = rest.partition("\n*/\n")
    if opening != "/*" or not closing:
        raise ConfigError(
            f"{path}:1: must begin with a comment whose /* and */ are lines of their own"
        )
    header = _parse_header(path, toml)
    sql_line = toml.count("\n") + 4
    # One line, so that ClickHouse's errors count the template's own lines.
    sql = sql.replace(PROPERTIES, READABLE_PROPERTIES)
    try:
        sql = bucket_texts.expand(view_source.expand(sql))
        hours = bucket_texts.expand(header.rollup.hours)
        preferred = name_of(header.rollup.prefers) if header.rollup.prefers else None
        sql = sample_blocks.expand(sql, is_sampled=header.is_sampled)
        with_weeks = None
        if header.rollup.weeks:
            if preferred is None:
                raise ValueError("[rollup] weeks needs prefers, the rollup of hours")
            name_of(header.rollup.weeks)  # refuses an unknown one
            with_weeks = rollup_blocks.expand(
                sql, header.rollup.start, hours, has_weeks=True
            ).strip()
        sql = rollup_blocks.expand(sql, header.rollup.start, hours)
    except ValueError as error:
        raise ConfigError(f"{path}:{sql_line}: {error}") from error
    if not header.columns:
        raise ConfigError(
            f"{path}:{_line_of(toml, '[columns]', 2)}: columns: describe at least one"
        )
    parameters = dict(COMMON)
    pages = {} if header.page_rows is None else _page_parameters(header.page_rows)
    switches = {"exact": EXACT} if header.has_exact else {}
    for name, declared in header.parameters.items():
        try:
            if name in pages:
                raise ValueError("is already declared by page_rows")
            if name in SAMPLING and header.is_sampled:
                raise ValueError("is already declared by is_sampled")
            if name in switches:
                raise ValueError("is already declared by has_exact")
            parameters[name] = _parse_parameter(name, declared)
        except ValueError as error:  # msgspec's ValidationError is one
            line = _line_of(toml, f"[parameters.{name}]", 2)
            raise ConfigError(f"{path}:{line}: parameter {name}: {error}") from error
    parameters |= _sampling(path, toml, header) | pages
    _check_filters(path, sql, sql_line)
    types = {name: each.type for name, each in parameters.items()}
    _check_sql(path, sql.replace(FILTERS, "").replace(TOTALS, ""), sql_line, types)
    _check_key(path, toml, header)
    parameters |= switches
    return Template(
        name=path.stem,
        title=header.title,
        description=" ".join(header.description.split()),
        parameters=parameters,
        columns=header.columns,
        cache_seconds=header.cache_seconds,
        row_limit=header.row_limit,
        text=sql.strip(),
        text_with_weeks=with_weeks,
        has_exact=header.has_exact,
        preferred_projection=preferred,
        types=header.types,
        key=None if header.key is None else tuple(header.key),
        filter_keys=_filter_keys(path, toml, header.filters),
    )


def _parse_header(path: Path, toml: str) -> _Header:
    try:
        return msgspec.convert(tomllib.loads(toml), _Header)
    except tomllib.TOMLDecodeError as error:
        match = _TOML_LINE.search(str(error))
        line = int(match[1]) + 1 if match else 1
        raise ConfigError(f"{path}:{line}: {error}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}:{_line_of_key(toml, str(error))}: {error}") from error


def _page_parameters(rows: int) -> dict[str, Parameter]:
    return {
        "limit": Parameter(
            "UInt32", "Maximum number of rows.", default=rows, minimum=1, maximum=MAX_PAGE_ROWS
        ),
        "offset": Parameter("UInt32", "Number of rows to skip.", default=0, maximum=MAX_OFFSET),
    }


def _sampling(path: Path, toml: str, header: _Header) -> dict[str, Parameter]:
    if not header.is_sampled:
        if header.max_events is not None:
            line = _line_of_key(toml, "$.max_events")
            raise ConfigError(f"{path}:{line}: max_events needs is_sampled = true")
        return {}
    if header.max_events is None:
        return SAMPLING
    bound = msgspec.structs.replace(SAMPLING["max_events"], default=header.max_events)
    return {**SAMPLING, "max_events": bound}


def _parse_parameter(name: str, declared: Mapping[str, Any]) -> Parameter:
    if name in COMMON or name in TABLE or name in RESERVED or name.startswith(NAME_PREFIX):
        raise ValueError("is a name that every template already has")
    if not _NAME.match(name):
        raise ValueError("is not a lower-case name")
    parameter = msgspec.convert(declared, Parameter)
    if error := declaration_error(parameter):
        raise ValueError(error)
    if name in ("limit", "offset") and parameter.type != "UInt32":
        raise ValueError("is part of a page: its type must be UInt32")
    return parameter


def _check_key(path: Path, toml: str, header: _Header) -> None:
    for name in header.types:
        if name not in header.columns:
            line = _line_of(toml, "[types]", 2)
            raise ConfigError(f"{path}:{line}: types: {name!r} is not a column")
    for name in header.key or ():
        # It becomes part of the SQL, in backticks.
        if name not in header.columns or not _NAME.match(name):
            line = _line_of_key(toml, "$.key")
            raise ConfigError(f"{path}:{line}: key: {name!r} is not a column in lower case")


def _filter_keys(path: Path, toml: str, filters: Mapping[str, str]) -> Mapping[str, str]:
    for name in filters.values():
        if name not in EXPRESSIONS:
            line = _line_of(toml, "[filters]", 2)
            raise ConfigError(f"{path}:{line}: filters: unknown expression {name!r}")
    return MappingProxyType({name: EXPRESSIONS[each] for name, each in filters.items()})


def _check_filters(path: Path, sql: str, first_line: int) -> None:
    """Raise ConfigError if some reads of the table are filtered and others are not."""
    reads, filtered = sql.count("{table:Identifier}"), sql.count(FILTERS)
    if filtered not in (0, reads):
        raise ConfigError(
            f"{path}:{first_line}: {FILTERS} occurs {filtered} times for {reads} reads of the "
            "table: filter each, or none"
        )


def _check_sql(path: Path, sql: str, first_line: int, declared: Mapping[str, str]) -> None:
    if not sql.strip():
        raise ConfigError(f"{path}:{first_line}: the SQL is missing")
    types = {**declared, **TABLE}
    used = set()
    for match in _PLACEHOLDER.finditer(sql):
        name, kind = match.groups()
        line = first_line + sql.count("\n", 0, match.start())
        if name not in types:
            raise ConfigError(f"{path}:{line}: {match[0]} is not declared")
        if kind != types[name]:
            raise ConfigError(f"{path}:{line}: {match[0]} is declared as {types[name]}")
        used.add(name)
    for name in types:
        if name not in used:
            raise ConfigError(f"{path}:{first_line}: {{{name}:{types[name]}}} is never used")


def _line_of(text: str, line: str, offset: int) -> int:
    """Return the number, in the file, of the header's first such line; 1 if there is none."""
    lines = text.split("\n")
    return lines.index(line) + offset if line in lines else 1


def _line_of_key(toml: str, message: str) -> int:
    """Return the line, in the file, of the key that msgspec names as `$.key`; 1 if it names none."""
    match = re.search(r"\$\.(\w+)", message)
    key = re.search(rf"^{match[1]}\b", toml, re.MULTILINE) if match else None
    return toml.count("\n", 0, key.start()) + 2 if key else 1
