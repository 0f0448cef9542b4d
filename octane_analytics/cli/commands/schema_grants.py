"""`octane-analytics schema grants`: create the ClickHouse user of raw SQL."""

import ipaddress
import sys
from collections.abc import Sequence

import click

from octane_analytics.cli import options
from octane_analytics.cli.commands.schema_servers import servers_of
from octane_analytics.cli.commands.schema_table import CLIENT_NAME
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.clickhouse import query_user
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import ConfigError, OctaneError, StatementRejected
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.loading import Loaded

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NO_STORAGE = 514  # ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND
_ADVICE = OPERATOR_ERRORS | {
    497: "CLICKHOUSE_USER needs the right to manage users (access_management) and to grant SELECT",
    _NO_STORAGE: "this server keeps its users in files: use conf/clickhouse/octane-query.xml",
}


def _parse_networks(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> list[Network]:
    try:
        return [ipaddress.ip_network(text) for text in value]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=Command)
@setting_options(
    *options.CLICKHOUSE,
    "CLICKHOUSE_QUERY_USER",
    "API_QUERY_TABLES",
    "API_QUERY_TIMEOUT",
    "API_MAX_RESULT_BYTES",
    "API_MAX_MEMORY_BYTES",
    "API_QUERY_MAX_ROWS_READ",
    "API_QUERY_MAX_BYTES_READ",
    "API_QUERY_MAX_THREADS",
)
@click.option(
    "--apply", "is_applied", is_flag=True, help="Execute the statements instead of printing them."
)
@click.option(
    "--from",
    "networks",
    multiple=True,
    callback=_parse_networks,
    metavar="NETWORK",
    help="Network from which the user may connect, such as 10.1.0.0/16; repeatable.  [default: any]",
)
@click.option(
    "--cluster",
    metavar="NAME",
    help="Execute by ON CLUSTER of this cluster.  [default: on each server of CLICKHOUSE_HOST]",
)
def grants(loaded: Loaded, is_applied: bool, networks: list[Network], cluster: str | None) -> None:
    """Print the SQL that creates the ClickHouse user of raw SQL, which reads the table within limits.

    Safe to repeat. The password is CLICKHOUSE_QUERY_PASSWORD or its _FILE, otherwise it is prompted for.
    The server receives a salted hash only, and the password is never printed.
    """
    settings = loaded.settings
    if not is_applied:
        for statement in query_user.statements(settings, None, networks, cluster):
            click.echo(f"{statement};")
        return
    user = settings.queries.user or query_user.NAME
    if user == settings.clickhouse.user:
        raise ConfigError(
            "CLICKHOUSE_QUERY_USER equals CLICKHOUSE_USER: raw SQL needs a user of its own"
        )
    hashed = query_user.hashed(settings.queries.password or _prompt_password(user))
    statements = query_user.statements(settings, hashed, networks, cluster)
    if cluster:
        _run(settings.clickhouse, statements)
    else:
        _run_on_each_server(settings.clickhouse, statements)
    name = TableName(settings.clickhouse.database, settings.clickhouse.read_table)
    click.echo(
        f"user {user} may read {name}; set CLICKHOUSE_QUERY_USER={user} and "
        "CLICKHOUSE_QUERY_PASSWORD_FILE for the API"
    )


def _prompt_password(user: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "no password and no terminal to prompt for it: set CLICKHOUSE_QUERY_PASSWORD_FILE"
        )
    return str(
        click.prompt(f"Password for {user}", hide_input=True, confirmation_prompt=True, err=True)
    )


def _run_on_each_server(settings: ClickHouseSettings, statements: Sequence[str]) -> None:
    """Users are local to a server. Raise the first error after all servers were visited."""
    servers = servers_of(settings)
    errors: list[OctaneError] = []
    for server in servers:
        try:
            _run(server.settings, statements)
        except OctaneError as error:
            errors.append(error)
            done = f"not done: {error}"
        else:
            done = "done"
        if len(servers) > 1:
            click.echo(f"{server.address}: {done}")
    if errors:
        raise errors[0]


def _run(settings: ClickHouseSettings, statements: Sequence[str]) -> None:
    with ClickHouse(settings, client_name=CLIENT_NAME) as clickhouse:
        for statement in statements:
            _execute(clickhouse, statement)


def _execute(clickhouse: ClickHouse, statement: str) -> None:
    try:
        clickhouse.execute(statement)
    except StatementRejected as error:
        # The server's message may quote the statement and, with it, the hash.
        advice = _ADVICE.get(error.code, "see the server's log for the reason")
        words = " ".join(statement.split()[:3])
        raise StatementRejected(
            error.code, error.name, f"ClickHouse rejected {words}: {error.name}; {advice}"
        ) from None
