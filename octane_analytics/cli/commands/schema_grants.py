"""`octane-analytics schema grants`: the ClickHouse user of raw SQL."""

import ipaddress
import sys

import click

from octane_analytics.cli import options
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.clickhouse import query_user as contract
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.errors import ConfigError, StatementRejected
from octane_analytics.settings.loading import Loaded

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NO_STORAGE = 514  # ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND
_ADVICE = OPERATOR_ERRORS | {
    497: "CLICKHOUSE_USER needs the right to manage users (access_management) and to grant SELECT",
    _NO_STORAGE: "this server keeps its users in files: use conf/clickhouse/octane-query.xml",
}


def _networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[Network]:
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
@click.option("--apply", "is_applied", is_flag=True, help="Run the statements instead.")
@click.option(
    "--from",
    "networks",
    multiple=True,
    callback=_networks,
    metavar="NETWORK",
    help="Where the user may connect from, such as 10.1.0.0/16; repeatable (default: anywhere).",
)
@click.option(
    "--cluster",
    metavar="NAME",
    help="Run on all servers of this cluster (default: on the one server).",
)
def grants(loaded: Loaded, is_applied: bool, networks: list[Network], cluster: str | None) -> None:
    """Print the SQL that makes the ClickHouse user of raw SQL: it reads the table, within limits.

    Safe to repeat. The password is CLICKHOUSE_QUERY_PASSWORD or its _FILE, or is asked for; only a
    salted hash of it goes to the server, and nothing of it is printed.
    """
    settings = loaded.settings
    if not is_applied:
        for statement in contract.statements(settings, None, networks, cluster):
            click.echo(f"{statement};")
        return
    user = settings.queries.user or contract.NAME
    if user == settings.clickhouse.user:
        raise ConfigError(
            "CLICKHOUSE_QUERY_USER is CLICKHOUSE_USER: raw SQL needs a user of its own"
        )
    hashed = contract.hashed(settings.queries.password or _asked(user))
    with ClickHouse(settings.clickhouse, client_name="octane-analytics schema") as clickhouse:
        for statement in contract.statements(settings, hashed, networks, cluster):
            _run(clickhouse, statement)
    click.echo(
        f"user {user} may read {clickhouse.table}; set CLICKHOUSE_QUERY_USER={user} and "
        "CLICKHOUSE_QUERY_PASSWORD_FILE for the API"
    )


def _asked(user: str) -> str:
    if not sys.stdin.isatty():
        raise ConfigError("set CLICKHOUSE_QUERY_PASSWORD_FILE: there is no terminal to ask for it")
    return str(
        click.prompt(f"Password for {user}", hide_input=True, confirmation_prompt=True, err=True)
    )


def _run(clickhouse: ClickHouse, statement: str) -> None:
    try:
        clickhouse.execute(statement)
    except StatementRejected as error:
        # The server's message may repeat the statement, and with it the hash.
        advice = _ADVICE.get(error.code, "the server's log says why")
        words = " ".join(statement.split()[:3])
        raise StatementRejected(
            error.code, error.name, f"ClickHouse refuses {words}: {error.name}; {advice}"
        ) from None
