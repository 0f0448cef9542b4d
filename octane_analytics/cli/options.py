"""Options for settings: name, help, unit and default come from the catalogue of settings.

An option has the same meaning in every command: each setting has one long option, and the few short
names (`SHORT_NAMES`) belong to one setting each.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from octane_analytics.cli.help_format import SettingOption
from octane_analytics.cli.invocation import FILES
from octane_analytics.settings import fields
from octane_analytics.settings.fields import Setting
from octane_analytics.settings.loading import catalogue, load, section_of
from octane_analytics.settings.reload import EnvironmentReload
from octane_analytics.settings.unknown import warnings

R = TypeVar("R")

KAFKA = ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC")
CLICKHOUSE = (
    "CLICKHOUSE_HOST",
    "CLICKHOUSE_PORT",
    "CLICKHOUSE_USER",
    "CLICKHOUSE_DATABASE",
    "CLICKHOUSE_TABLE",
    "CLICKHOUSE_CLUSTER",
    "CLICKHOUSE_DISTRIBUTED_TABLE",
    "CLICKHOUSE_SECURE",
    "CLICKHOUSE_CA_FILE",
    "CLICKHOUSE_COMPRESSION",
    "CLICKHOUSE_TIMEOUT",
)
LOG = ("LOG_LEVEL", "LOG_FORMAT")


def json_option(
    text: str = "Print one JSON object.",
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return the decorator of `--json`, which passes the argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


class _Processes(click.ParamType[int]):
    """Number of processes, parsed as WORKER_PROCS is: a number, or `auto`."""

    name = "processes"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return fields.process_count(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


PROCESSES = _Processes()
SHORT_NAMES = {
    "WORKER_PROCS": "--procs",
    "API_WORKERS": "--workers",
    "API_HOST": "--host",
    "API_PORT": "--port",
}
"""Additional names of these settings' options, in every command that has them."""


def setting_options(
    *names: str,
    own_sections: Sequence[str] = (),
    extra_names: Mapping[str, str] | None = None,
    should_reload: bool = False,
    should_warn: bool = True,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a command with an option for each of these settings and the argument `loaded`.

    `loaded` is the result of `settings.load` for the environment and these options. Help lists the
    options of `own_sections` among the command's own, all others in the group of their section.
    `extra_names` adds names of options: `{"API_TOKENS_FILE": "--file"}`. With `should_reload` the
    command has a second argument, `reread`, an `EnvironmentReload`. Probably misspelled settings are
    printed on standard error unless `should_warn` is False. Raises ValueError for a secret, which must
    not be an option because every user of the machine can read a command line.
    """
    known = {setting.name: setting for setting in catalogue()}
    short_names = SHORT_NAMES | dict(extra_names or {})

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_settings(**arguments: Any) -> R:
            given = {name: arguments.pop(name.lower()) for name in names}
            overrides = {name: value for name, value in given.items() if value is not None}
            if should_warn:
                print_warnings()
            if should_reload:
                arguments["reread"] = EnvironmentReload(os.environ, overrides, _environment_files())
            return command(loaded=load(os.environ, overrides), **arguments)

        decorated: Callable[..., R] = with_settings
        for name in reversed(names):
            section = section_of(name)
            flags = [short_names[name]] if name in short_names else []
            decorated = _option(
                known[name],
                [*flags, option_name(name)],
                "" if section in own_sections else section,
            )(decorated)
        return decorated

    return decorate


def print_warnings() -> None:
    """Print a line for each probably misspelled setting (see `settings.unknown`)."""
    for line in unknown_settings():
        click.echo(f"octane-analytics: warning: {line}", err=True)


def unknown_settings() -> list[str]:
    """Return `settings.unknown.warnings` for the environment and the files of --env-file."""
    return warnings(os.environ, click.get_current_context().meta.get(FILES, {}))


def _environment_files() -> list[Path]:
    """Return the files of --env-file, an option of the root command."""
    return list(map(Path, click.get_current_context().find_root().params.get("env_files", ())))


def option_name(setting: str) -> str:
    """Return the option of a setting: `--batch-size` for `BATCH_SIZE`."""
    return "--" + setting.lower().replace("_", "-")


def _option(
    setting: Setting, flags: Sequence[str], section: str
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    if setting.is_secret:
        raise ValueError(f"{setting.name} is a secret and must not have an option")
    text = f"{setting.help}  [env: {setting.name}; default: {setting.default or 'empty'}]"
    is_flag = isinstance(setting.parse(setting.default), bool)
    if is_flag:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
    return click.option(
        *flags,
        setting.name.lower(),
        cls=SettingOption,
        section=section,
        type=bool if is_flag else str,
        callback=partial(_validate, setting),
        metavar=None if is_flag else setting.unit.upper() or "VALUE",
        default=None,
        help=text,
    )


def _validate(
    setting: Setting, ctx: click.Context, param: click.Parameter, value: str | bool | None
) -> str | None:
    """Return the value as the environment would hold it; raise click.BadParameter if it is invalid."""
    if value is None:
        return None
    text = str(int(value)) if isinstance(value, bool) else value
    try:
        setting.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error
    return text
