"""`octane-analytics token`: who may ask the API."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from octane_analytics.api.auth import token_file, tokens
from octane_analytics.api.auth.tokens import QUERY, REPORT, SCOPES, Token
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import setting_options
from octane_analytics.errors import ConfigError
from octane_analytics.runtime import rfc3339
from octane_analytics.settings.loading import Loaded

_DURATION = re.compile(r"([0-9]{1,5})([hdw])\Z")
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_file = setting_options("API_TOKENS_FILE", own=("api",), spelled={"API_TOKENS_FILE": "--file"})


@click.group(cls=CommandGroup)
def token() -> None:
    """Make, list or revoke the tokens of the API.

    They stand in the TOML file that API_TOKENS_FILE names, as hashes: a token is shown once, when it is
    made. Once the API has such a file, each request but those for health needs a token:
    `Authorization: Bearer TOKEN`. It notices a change of the file within a second.
    """


def _expiry(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    span = _DURATION.match(value)
    try:
        when = (
            now + timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
            if span
            else rfc3339.parse(value)
        )
    except (ValueError, OverflowError):
        when = None
    if when is None or when.tzinfo is None:
        raise click.BadParameter(f"{value!r}: must be such as 12h, 90d, 8w or 2027-01-01T00:00:00Z")
    if when <= now:
        raise click.BadParameter(f"{value!r}: lies in the past")
    return when.astimezone(UTC)


def _pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not text:
            raise click.BadParameter(f"{value!r}: must be such as app_id=openstream")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = text
    return found


@token.command()
@_file
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=(REPORT,),
    show_default=True,
    help="What it may ask for; may be given several times.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="Fixed in each report it asks for, such as app_id=openstream; it has no raw SQL then "
    "(default: none).",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Requests it may make: 20/s, 600/min, 1000/h (default: any number).",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 1_000_000),
    help="Requests at once that the rate lets through (default: those of a second).",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    help="Requests it may have under way at once (default: any number).",
)
@click.option(
    "--expires",
    callback=_expiry,
    metavar="WHEN",
    help="When it ends: 12h, 90d, 8w from now, or a time such as 2027-01-01T00:00:00Z (default: never).",
)
def new(
    loaded: Loaded,
    name: str,
    scopes: tuple[str, ...],
    parameters: dict[str, str | int],
    rate: str | None,
    burst: int | None,
    concurrency: int | None,
    expires: datetime | None,
) -> None:
    """Make a token and print it, once: nobody can show it again.

    NAME is what the access log calls it. The token goes to standard output alone, so that
    TOKEN=$(octane-analytics token new NAME) holds it.
    """
    path = _path(loaded)
    if not tokens.is_name(name):
        raise click.UsageError(f"{name!r}: a name is up to 64 letters, digits, - and _")
    if parameters and QUERY in scopes:
        raise click.UsageError(
            "a token with fixed parameters has no raw SQL, which could ask for anything: leave "
            "--scope query or --parameter out"
        )
    try:
        tokens.parse_rate(rate, burst)
    except ValueError as error:
        raise click.UsageError(f"--rate {rate or ''} --burst {burst or ''}: {error}") from error
    made = tokens.generate()
    entry = {
        "hash": f"sha256:{tokens.digest_of(made).hex()}",
        "scopes": sorted(set(scopes), key=SCOPES.index),
        "parameters": parameters or None,
        "rate": rate,
        "burst": burst,
        "concurrency": concurrency,
        "created": datetime.now(UTC).replace(microsecond=0),
        "expires": expires,
    }
    token_file.add(path, name, {key: value for key, value in entry.items() if value is not None})
    click.echo(f"added {name} to {path}; this is its token, shown only now:", err=True)
    click.echo(made)


@token.command("list")
@_file
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for a program to read.")
def list_tokens(loaded: Loaded, as_json: bool) -> None:
    """Show the tokens: name, scopes, limits, expiry. Their hashes and they themselves are not shown."""
    listed = [_shown(each) for each in tokens.read(_path(loaded)).listed]
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    for each in listed:
        told = "  ".join(f"{key}={_text(value)}" for key, value in each.items() if value)
        click.echo(told.removeprefix("name="))


@token.command()
@_file
@click.argument("name")
def revoke(loaded: Loaded, name: str) -> None:
    """Remove a token. The API refuses it within a second."""
    path = _path(loaded)
    token_file.remove(path, name)
    click.echo(f"removed {name} from {path}")


def _path(loaded: Loaded) -> Path:
    if loaded.settings.api.tokens_file is None:
        raise ConfigError("API_TOKENS_FILE is not set: set it, or give --file FILE")
    return Path(loaded.settings.api.tokens_file)


def _shown(each: Token) -> dict[str, object]:
    is_expired = each.is_expired(datetime.now(UTC))
    return {
        "name": each.name,
        "scopes": sorted(each.scopes, key=SCOPES.index),
        "parameters": dict(each.parameters),
        "per_second": each.rate.per_second if each.rate else None,
        "burst": each.rate.burst if each.rate else None,
        "concurrency": each.concurrency,
        "expires": each.expires.isoformat() if each.expires else None,
        "is_expired": is_expired,
    }


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in value.items())
    return str(value)
