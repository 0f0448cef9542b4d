"""`octane-analytics config`."""

import json
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from octane_analytics.cli.options import option_name, setting_options
from octane_analytics.settings.loading import Loaded, Origin, catalogue

_LISTED = {setting.name: setting for setting in catalogue()}


@click.command()
@setting_options(*(name for name, setting in _LISTED.items() if not setting.is_secret))
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for a program to read.")
def config(loaded: Loaded, as_json: bool) -> None:
    """Show every setting, its value and where the value came from.

    Takes the options of all other commands, to show what they would make of them. A secret is
    masked; it has no option, but NAME_FILE may name a file that holds it. A variable
    KAFKA_RDKAFKA_SOME_PROPERTY sets librdkafka's some.property. Off a terminal, one line a setting:
    name, value and source, separated by tabs.
    """
    if as_json:
        click.echo(json.dumps([_object(origin) for origin in loaded.origins], indent=2))
    elif sys.stdout.isatty():
        Console().print(_table(loaded.origins))
    else:
        for origin in loaded.origins:
            click.echo(f"{origin.name}\t{origin.shown}\t{_source(origin)}")


def _source(origin: Origin) -> str:
    if origin.source == "option":
        return f"option {option_name(origin.name)}"
    return f"{origin.source} {origin.detail}".strip()


def _object(origin: Origin) -> dict[str, object]:
    setting = _LISTED.get(origin.name)
    return {
        "name": origin.name,
        "value": origin.shown,
        "source": origin.source,
        "detail": _source(origin).removeprefix(origin.source).strip() or None,
        "default": setting.default if setting else None,
        "unit": (setting.unit or None) if setting else None,
        "help": setting.help if setting else "A property of librdkafka.",
    }


def _table(origins: tuple[Origin, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "value", "unit", "from"):
        table.add_column(heading, overflow="fold")
    for origin in origins:
        setting = _LISTED.get(origin.name)
        table.add_row(
            Text(origin.name),
            Text(origin.shown),
            Text(setting.unit if setting else ""),
            Text(_source(origin)),
            style="" if origin.source == "default" else "bold",
        )
    return table
