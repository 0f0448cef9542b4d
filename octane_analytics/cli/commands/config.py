"""`octane-analytics config`: print all settings with their values and sources."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import click

from octane_analytics.cli.directories import control_socket
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.invocation import APPLIED, FILES
from octane_analytics.cli.options import json_option, option_name, setting_options
from octane_analytics.cli.output.table import aligned, terminal_width, wrapped
from octane_analytics.errors import ConfigError
from octane_analytics.events.decoders import choose
from octane_analytics.settings.drain import require_drain_time
from octane_analytics.settings.loading import Loaded, Origin, catalogue
from octane_analytics.settings.sections import Settings

_CATALOGUE = {setting.name: setting for setting in catalogue()}
_DERIVED: Mapping[str, Callable[[Settings], object]] = {
    "KAFKA_DLQ_TOPIC": lambda settings: settings.kafka.dlq_topic,
    "KAFKA_INSTANCE_PREFIX": lambda settings: settings.kafka.instance_prefix or "none",
    "CLICKHOUSE_DISTRIBUTED_TABLE": lambda settings: settings.clickhouse.distributed_table,
    "CLICKHOUSE_COMPRESSION": lambda settings: settings.clickhouse.compression_method(),
    "WORKER_PROCS": lambda settings: settings.worker.procs,
    "DECODER": lambda settings: _decoder(settings),
    "CONTROL_SOCKET": lambda settings: control_socket(settings, os.environ) or "none",
    "CLICKHOUSE_QUERY_USER": lambda settings: settings.queries.user or settings.clickhouse.user,
}
"""Settings whose effective value depends on other settings or on this host, too."""


@click.command(cls=Command)
@setting_options(*(name for name, setting in _CATALOGUE.items() if not setting.is_secret))
@json_option("Print one JSON array.")
def config(loaded: Loaded, as_json: bool) -> None:
    """Show every setting with its value and the source of the value.

    Values are effective: `auto` and an empty text are shown as the value they have on this host. Takes
    the setting options of all other commands, to show their effect. Secrets are masked; they do not
    have options, but NAME_FILE may name a file that contains the secret. A variable
    KAFKA_RDKAFKA_SOME_PROPERTY sets librdkafka's some.property. If standard output is not a terminal,
    prints one line per setting, separated by tabs: name, value, source and, if it differs from the
    value, the given text.
    """
    try:
        require_drain_time(loaded.settings)
        choose(loaded.settings.worker.decoder)
    except ConfigError as error:
        click.echo(f"octane-analytics: warning: a worker would not start: {error}", err=True)
    origins = [_with_env_file(origin) for origin in loaded.origins]
    values = [_effective(origin, loaded.settings) for origin in origins]
    if as_json:
        objects = [_object(*pair) for pair in zip(origins, values, strict=True)]
        click.echo(json.dumps(objects, indent=2))
    elif sys.stdout.isatty():
        click.echo("\n".join(_table(origins, values)))
    else:
        for origin, value in zip(origins, values, strict=True):
            given = [origin.shown] if origin.shown not in ("", value) else []
            click.echo("\t".join([origin.name, value, _source(origin), *given]))


def _with_env_file(origin: Origin) -> Origin:
    """Add the file of --env-file that set the variable, if one did."""
    meta = click.get_current_context().meta
    if origin.source != "environment" or origin.name not in meta.get(APPLIED, ()):
        return origin
    return replace(origin, detail=meta[FILES][origin.name])


def _effective(origin: Origin, settings: Settings) -> str:
    derive = _DERIVED.get(origin.name)
    return origin.shown if derive is None else str(derive(settings))


def _decoder(settings: Settings) -> str:
    try:
        return choose(settings.worker.decoder).name
    except ConfigError:
        return settings.worker.decoder


def _source(origin: Origin) -> str:
    if origin.source == "option":
        return f"option {option_name(origin.name)}"
    return f"{origin.source} {origin.detail}".strip()


def _object(origin: Origin, value: str) -> dict[str, object]:
    setting = _CATALOGUE.get(origin.name)
    return {
        "name": origin.name,
        "value": value,
        "given": None if origin.source == "default" else origin.shown,
        "source": origin.source,
        "detail": _source(origin).removeprefix(origin.source).strip() or None,
        "default": setting.default if setting else None,
        "unit": (setting.unit or None) if setting else None,
        "help": setting.help if setting else "Property of librdkafka.",
    }


def _table(origins: Sequence[Origin], values: Sequence[str]) -> Iterator[str]:
    """Yield name, source and value; the value is last because it may be long and be wrapped."""
    width = terminal_width()
    rows = [(origin.name, origin.source) for origin in origins]
    heading, *lines = aligned(("setting", "from"), rows)
    column = max(map(len, (heading, *lines))) + 2
    yield f"{heading:<{column}}value"
    for origin, line, value in zip(origins, lines, values, strict=True):
        setting = _CATALOGUE.get(origin.name)
        text = f"{value} {setting.unit}" if value and setting and setting.unit else value
        shown = wrapped(text, width, first=f"{line:<{column}}", indent=column).rstrip()
        yield shown if origin.source == "default" else click.style(shown, bold=True)
