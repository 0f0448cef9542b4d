"""`octane-analytics token`: tokens of the API's callers."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from octane_analytics.api.auth import token_file, token_file_editor, tokens
from octane_analytics.api.auth.tokens import QUERY, REPORT, SCOPES, Token
from octane_analytics.api.filters import Filter, as_text, from_text, validated
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import json_option, setting_options
from octane_analytics.errors import ConfigError, QueryError
from octane_analytics.runtime import rfc3339
from octane_analytics.settings.loading import Loaded

_DURATION = re.compile(r"([0-9]{1,5})([hdw])\Z")
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_file = setting_options(
    "API_TOKENS_FILE", own_sections=("api",), extra_names={"API_TOKENS_FILE": "--file"}
)


@click.group(cls=CommandGroup)
def token() -> None:
    """Create, list or revoke tokens of the API.

    The TOML file that API_TOKENS_FILE names holds their hashes: a token is printed once, when it is
    created. With such a file, every request except health checks needs a token:
    `Authorization: Bearer TOKEN`. The API reloads the file within a second after a change.
    """


def _parse_expiry(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    duration = _DURATION.match(value)
    try:
        when = (
            now + timedelta(seconds=int(duration[1]) * _SECONDS[duration[2]])
            if duration
            else rfc3339.parse(value)
        )
    except (ValueError, OverflowError):
        when = None
    if when is None or when.tzinfo is None:
        raise click.BadParameter(
            f"{value!r}: write a duration or a time such as 12h, 90d, 8w or 2027-01-01T00:00:00Z"
        )
    if when <= now:
        raise click.BadParameter(f"{value!r}: is in the past")
    return when.astimezone(UTC)


def _parse_pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str | int]:
    pairs: dict[str, str | int] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not text:
            raise click.BadParameter(f"{value!r}: write NAME=VALUE, such as app_id=openstream")
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice")
        pairs[name] = text
    return pairs


def _parse_filters(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[Filter, ...]:
    try:
        return validated([from_text(value) for value in values])
    except QueryError as error:
        raise click.BadParameter(str(error)) from error


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
    help="Endpoint that the token may use; repeatable.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    callback=_parse_pairs,
    metavar="NAME=VALUE",
    help="Fixed value of a report parameter, such as app_id=openstream; excludes raw SQL; repeatable.  "
    "[default: none]",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    callback=_parse_filters,
    metavar="PROPERTY:OP:VALUE",
    help="Fixed filter of every report, such as tenant:eq:acme; excludes raw SQL; repeatable.  "
    "[default: none]",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Limit of requests per second, minute or hour: 20/s, 600/min, 1000/h.  [default: none]",
)
@click.option(
    "--burst",
    type=click.IntRange(1, 1_000_000),
    metavar="REQUESTS",
    help="Limit of requests in a burst above the rate.  [default: the requests of one second]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    metavar="REQUESTS",
    help="Limit of concurrent requests.  [default: none]",
)
@click.option(
    "--expires",
    callback=_parse_expiry,
    metavar="WHEN",
    help="Expiry: a number of hours, days or weeks from now (12h, 90d, 8w) or a time such as "
    "2027-01-01T00:00:00Z.  [default: never]",
)
def new(
    loaded: Loaded,
    name: str,
    scopes: tuple[str, ...],
    parameters: dict[str, str | int],
    filters: tuple[Filter, ...],
    rate: str | None,
    burst: int | None,
    concurrency: int | None,
    expires: datetime | None,
) -> None:
    """Create a token and print it once; it cannot be shown again.

    The access log names the token NAME. Standard output has the token only, so that
    TOKEN=$(octane-analytics token new NAME) contains it.
    """
    path = _path(loaded)
    if not tokens.is_name(name):
        raise click.UsageError(f"{name!r}: a name is up to 64 characters of A-Z, a-z, 0-9, - and _")
    if (parameters or filters) and QUERY in scopes:
        raise click.UsageError(
            "a token with fixed parameters or filters cannot have raw SQL, which could read "
            "everything: omit --scope query, or --parameter and --filter"
        )
    try:
        tokens.parse_rate(rate, burst)
    except ValueError as error:
        raise click.UsageError(f"--rate {rate or ''} --burst {burst or ''}: {error}") from error
    created = tokens.generate()
    entry = {
        "hash": f"sha256:{tokens.digest_of(created).hex()}",
        "scopes": sorted(set(scopes), key=SCOPES.index),
        "parameters": parameters or None,
        "filters": [_filter_object(each) for each in filters] or None,
        "rate": rate,
        "burst": burst,
        "concurrency": concurrency,
        "created": datetime.now(UTC).replace(microsecond=0),
        "expires": expires,
    }
    token_file_editor.add(
        path, name, {key: value for key, value in entry.items() if value is not None}
    )
    click.echo(f"added {name} to {path}; its token, which is printed only once:", err=True)
    click.echo(created)


@token.command("list")
@_file
@json_option("Print one JSON array.")
def list_tokens(loaded: Loaded, as_json: bool) -> None:
    """List the tokens: name, scopes, limits and expiry, without the tokens and their hashes."""
    tokens_listed = token_file.read(_path(loaded)).listed
    objects = [_object(each) for each in tokens_listed]
    if as_json:
        click.echo(json.dumps(objects, indent=2))
        return
    for each, listed in zip(objects, tokens_listed, strict=True):
        shown = each | {"filters": " ".join(map(as_text, listed.filters))}
        line = "  ".join(f"{key}={_text(value)}" for key, value in shown.items() if value)
        click.echo(line.removeprefix("name="))


@token.command()
@_file
@click.argument("name")
def revoke(loaded: Loaded, name: str) -> None:
    """Remove a token; the API rejects it within a second."""
    path = _path(loaded)
    token_file_editor.remove(path, name)
    click.echo(f"removed {name} from {path}")


def _path(loaded: Loaded) -> Path:
    if loaded.settings.api.tokens_file is None:
        raise ConfigError("API_TOKENS_FILE is not set: set it, or give --file FILE")
    return Path(loaded.settings.api.tokens_file)


def _object(each: Token) -> dict[str, object]:
    is_expired = each.is_expired(datetime.now(UTC))
    return {
        "name": each.name,
        "scopes": sorted(each.scopes, key=SCOPES.index),
        "parameters": dict(each.parameters),
        "filters": [_filter_object(one) for one in each.filters],
        "per_second": each.rate.per_second if each.rate else None,
        "burst": each.rate.burst if each.rate else None,
        "concurrency": each.concurrency,
        "expires": each.expires.isoformat() if each.expires else None,
        "is_expired": is_expired,
    }


def _filter_object(each: Filter) -> dict[str, object]:
    return {"property": each.property, "op": each.op, "value": each.value}


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in value.items())
    return str(value)
