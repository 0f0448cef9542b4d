"""`octane-analytics report`: run reports in ClickHouse, without the API."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from octane_analytics.api.filters import from_text
from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.reports.explain import EXPLAIN, plan_reads
from octane_analytics.api.reports.json_schema import parameters_schema
from octane_analytics.api.reports.library import Library, load
from octane_analytics.api.reports.parameter_types import ARRAYS, INTEGERS, Parameter
from octane_analytics.api.reports.parameters import BoundParameters, bind, read_texts
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results import formats
from octane_analytics.cli import options
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.cli.output.table import terminal_width, wrapped
from octane_analytics.cli.sandbox.report_client import PrintedReport, print_table
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import QueryError, StatementRejected
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import Settings

_CLIENT_NAME = "octane-analytics report"
_FORMATS = ("table", *formats.FORMATS)


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option(
    "--param",
    "-p",
    "params",
    multiple=True,
    show_default="the report's own",
    metavar="KEY=VALUE",
    help="Parameter of the report; repeatable, also for the items of an array.",
)
@click.option(
    "--filter",
    "filter_texts",
    multiple=True,
    metavar="PROPERTY:OP:VALUE",
    help="Filter of the events, such as device:eq:tv; repeatable. (default: none)",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option("--list", "should_list", is_flag=True, help="Show all reports and their parameters.")
@click.option(
    "--check",
    "should_check",
    is_flag=True,
    help="Let ClickHouse explain every report (or NAME only) and compare the columns.",
)
@click.option(
    "--explain",
    "should_explain",
    is_flag=True,
    help="Show which rollups and events ClickHouse would read for the report, without running it.",
)
@setting_options(
    "REPORTS_DIR",
    *options.CLICKHOUSE,
    "API_QUERY_TIMEOUT",
    "API_MAX_RESULT_ROWS",
    "API_MAX_RESULT_BYTES",
    "API_MAX_MEMORY_BYTES",
)
def report(
    loaded: Loaded,
    name: str | None,
    params: Sequence[str],
    filter_texts: Sequence[str],
    format_name: str,
    should_list: bool,
    should_check: bool,
    should_explain: bool,
) -> Exit:
    """Run or explain a report from the terminal, list all reports, or check them.

    Times are RFC 3339, seconds since 1970, or relative to now: octane-analytics report top_content -p
    from=-7d -p limit=10. Queries ClickHouse directly, within the limits of the API, which need not run.
    """
    settings = loaded.settings
    directory = settings.api.reports_directory
    library = load(Path(directory) if directory else None)
    for line in library.refused:
        click.echo(f"invalid template: {line}", err=True)
    if should_list:
        _list(library, format_name)
        return Exit.FAILED if library.refused else Exit.OK
    if name is not None and name not in library.templates:
        names = ", ".join(library.templates)
        raise click.UsageError(f"report {name!r} does not exist; available: {names}")
    if should_check:
        chosen = [library.templates[name]] if name else list(library.templates.values())
        is_valid = _check(chosen, settings) and not library.refused
        return Exit.OK if is_valid else Exit.FAILED
    if name is None:
        raise click.UsageError("give the NAME of a report, --list or --check")
    template = library.templates[name]
    bound = _bind(template, params, filter_texts)
    if should_explain:
        _explain(template, bound, settings)
    else:
        _run(template, bound, format_name, settings)
    return Exit.OK


def _bind(
    template: Template, params: Sequence[str], filter_texts: Sequence[str]
) -> BoundParameters:
    pairs = []
    for param in params:
        key, equals, value = param.partition("=")
        if not equals:
            raise click.UsageError(f"--param {param!r} must be KEY=VALUE")
        pairs.append((key, value))
    try:
        filters = [from_text(text) for text in filter_texts]
        return bind(template, read_texts(template, pairs), datetime.now(UTC), filters)
    except QueryError as error:
        raise click.UsageError(f"{template.name}: {error}") from error


def _explain(template: Template, bound: BoundParameters, settings: Settings) -> None:
    # The plan of a Distributed table does not show the reads of its shards.
    first_shard = settings.clickhouse.of_each_shard()[0]
    with ClickHouse(first_shard, client_name=_CLIENT_NAME) as clickhouse:
        plan = clickhouse.select(
            EXPLAIN + template.statement(bound.effective, bound.range, bound.conditions),
            _values(bound, clickhouse),
            settings={
                **template.settings(bound.range),
                **_limits(settings).settings(_CLIENT_NAME),
                "limit": 0,
            },
        )
    found = plan_reads([str(line) for (line,) in plan.rows])
    click.echo(f"{template.name}: {len(found)} reads")
    for read in found:
        name = "events" if read.rollup is None else f"rollup {read.rollup}"
        click.echo(f"    {name}: {read.parts:,} parts, {read.granules:,} granules")


def _run(template: Template, bound: BoundParameters, format_name: str, settings: Settings) -> None:
    chosen = formats.choose("json" if format_name == "table" else format_name, "")
    limits = _limits(settings)
    max_rows = bound.max_rows(template.row_limit or limits.result_rows)
    with (
        ClickHouse(settings.clickhouse, client_name=_CLIENT_NAME) as clickhouse,
        clickhouse.stream(
            template.statement(bound.effective, bound.range, bound.conditions),
            _values(bound, clickhouse),
            settings={
                **template.settings(bound.range),
                **limits.settings(_CLIENT_NAME),
                "limit": max_rows + 1,
            },
        ) as result,
    ):
        rows = formats.Rows(result.blocks, max_rows)
        header = {"template": template.name, "params": bound.effective}
        out = formats.writer(chosen, result.columns, rows, formats.Envelope(header, dict))
        parts = _parts(out, rows)
        if format_name == "table":
            answer = json.loads(b"".join(parts))
            names = [column["name"] for column in answer["columns"]]
            print_table(PrintedReport(template.name, names, answer["rows"]))
        else:
            stream = sys.stdout.buffer
            for part in parts:
                stream.write(part)
            if chosen.name == "json":
                stream.write(b"\n")
            stream.flush()
    if rows.is_truncated:
        click.echo(f"truncated at {max_rows:,} rows", err=True)


def _parts(out: formats.Writer, rows: formats.Rows) -> Iterator[bytes]:
    yield out.begin()
    for block in rows:
        yield out.rows(block)
    yield out.end()


def _list(library: Library, format_name: str) -> None:
    if format_name == "json":
        click.echo(
            json.dumps(
                [
                    {
                        "name": each.name,
                        "title": each.title,
                        "description": each.description,
                        "parameters": parameters_schema(each),
                        "columns": dict(each.columns),
                    }
                    for each in library.templates.values()
                ],
                indent=2,
            )
        )
        return
    for template in library.templates.values():
        click.echo(f"{template.name}: {template.title}")
        for name, parameter in template.parameters.items():
            line = f"{name} {parameter.type}{_default(parameter)}: {parameter.help}"
            click.echo(wrapped(line, terminal_width(), first=" " * 4, indent=8))


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return " (required)"
    return "" if parameter.default is None else f" = {parameter.default}"


def _check(templates: Sequence[Template], settings: Settings) -> bool:
    """Print for each template whether ClickHouse can run it; return True if it can run all of them."""
    is_valid = True
    with ClickHouse(settings.clickhouse, client_name=_CLIENT_NAME) as clickhouse:
        for template in templates:
            problem = _problem(template, clickhouse, _limits(settings))
            click.echo(f"{template.name}: {problem or 'ok'}")
            is_valid = is_valid and problem is None
    return is_valid


def _problem(template: Template, clickhouse: ClickHouse, limits: ComplexityLimits) -> str | None:
    sample = {name: _sample(each) for name, each in template.parameters.items() if each.required}
    values = _values(bind(template, sample, datetime.now(UTC)), clickhouse)
    query_settings = {**limits.settings(_CLIENT_NAME), "limit": 0}
    try:
        clickhouse.select(f"EXPLAIN {template.sql}", values, settings=query_settings)
        described = clickhouse.select(
            f"DESCRIBE TABLE ({template.sql})", values, settings=query_settings
        )
    except StatementRejected as error:
        return f"ClickHouse error {error.code} ({error.name}): {error}"
    columns = [row[0] for row in described.rows]
    if columns != list(template.columns):
        return (
            f"the query returns the columns {', '.join(columns)}, but its header describes "
            f"{', '.join(template.columns)}"
        )
    return None


def _sample(parameter: Parameter) -> object:
    """Return a valid value of the parameter."""
    if parameter.type in ARRAYS:
        item = Parameter(ARRAYS[parameter.type], "", allowed=parameter.allowed)
        return [_sample(item)] * int(parameter.bounds()[0])
    if parameter.allowed:
        return parameter.allowed[0]
    if parameter.type in INTEGERS or parameter.type == "Float64":
        return max(parameter.bounds()[0], 0)
    if parameter.type == "String":
        is_zone = parameter.format == "timezone"
        return "UTC" if is_zone else "x" * int(parameter.bounds()[0])
    return {"Bool": True, "Date": "2026-02-02"}.get(parameter.type, "-1h")


def _values(bound: BoundParameters, clickhouse: ClickHouse) -> dict[str, object]:
    name = clickhouse.read_table
    return {**bound.values, "database": name.database, "table": name.table}


def _limits(settings: Settings) -> ComplexityLimits:
    return ComplexityLimits(
        seconds=settings.api.query_seconds,
        result_rows=settings.api.max_result_rows,
        result_bytes=settings.api.max_result_bytes,
        memory_bytes=settings.api.max_memory_bytes,
    )
