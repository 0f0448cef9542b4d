"""Options that stand for a setting: name, meaning, unit and default come from the catalogue.

An option means the same in every command: each setting has its own long option everywhere, and the few
short ones (`SHORT`) stand for one setting each.
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
    "CLICKHOUSE_SECURE",
    "CLICKHOUSE_CA_FILE",
    "CLICKHOUSE_COMPRESSION",
    "CLICKHOUSE_TIMEOUT",
)
LOG = ("LOG_LEVEL", "LOG_FORMAT")


class _Processes(click.ParamType[int]):
    """As WORKER_PROCS is read: a number, or `auto`."""

    name = "processes"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return fields.process_count(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


PROCESSES = _Processes()
SHORT = {
    "WORKER_PROCS": "--procs",
    "API_WORKERS": "--workers",
    "API_HOST": "--host",
    "API_PORT": "--port",
}
"""Further names of these settings' options, in every command that has them."""


def setting_options(
    *names: str,
    own: Sequence[str] = (),
    spelled: Mapping[str, str] | None = None,
    rereads: bool = False,
    warns: bool = True,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Gives a command an option for each of these settings, and one argument `loaded` for them.

    `loaded` is what `settings.load` makes of the environment and these options. Help lists the options
    of the sections `own` among the command's own, all others in a group of their section. `spelled`
    holds further names of options: `{"API_TOKENS_FILE": "--file"}`. A secret gets no option,
    for every user of the machine can read a command line: ValueError. A command that `rereads` has a
    second argument, `reread`: see `settings.rereading`. Names that are probably misspelled settings are
    printed on standard error unless `warns` is False.
    """
    listed = {setting.name: setting for setting in catalogue()}
    short = SHORT | dict(spelled or {})

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_settings(**arguments: Any) -> R:
            given = {name: arguments.pop(name.lower()) for name in names}
            overrides = {name: value for name, value in given.items() if value is not None}
            if warns:
                print_warnings()
            if rereads:
                arguments["reread"] = EnvironmentReload(os.environ, overrides, _environment_files())
            return command(loaded=load(os.environ, overrides), **arguments)

        decorated: Callable[..., R] = with_settings
        for name in reversed(names):
            section = section_of(name)
            flags = [short[name]] if name in short else []
            decorated = _option(
                listed[name],
                [*flags, option_name(name)],
                "" if section in own else section,
            )(decorated)
        return decorated

    return decorate


def print_warnings() -> None:
    """See `settings.unknown`; one line each."""
    for line in unknown_settings():
        click.echo(f"octane-analytics: warning: {line}", err=True)


def unknown_settings() -> list[str]:
    """`settings.unknown.warnings` for the environment and the files of --env-file."""
    return warnings(os.environ, click.get_current_context().meta.get(FILES, {}))


def _environment_files() -> list[Path]:
    """Those of --env-file, which stands before the command's name."""
    return list(map(Path, click.get_current_context().find_root().params.get("env_files", ())))


def option_name(setting: str) -> str:
    """`BATCH_SIZE` is `--batch-size`, in every command that has it."""
    return "--" + setting.lower().replace("_", "-")


def _option(
    setting: Setting, flags: Sequence[str], section: str
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    if setting.is_secret:
        raise ValueError(f"{setting.name} is a secret: no option for it")
    told = f"{setting.help}  [env: {setting.name}; default: {setting.default or 'empty'}]"
    is_flag = isinstance(setting.parse(setting.default), bool)
    if is_flag:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
    return click.option(
        *flags,
        setting.name.lower(),
        cls=SettingOption,
        section=section,
        type=bool if is_flag else str,
        callback=partial(_checked, setting),
        metavar=None if is_flag else setting.unit.upper() or "VALUE",
        default=None,
        help=told,
    )


def _checked(
    setting: Setting, ctx: click.Context, param: click.Parameter, value: str | bool | None
) -> str | None:
    """The value as the environment would hold it; an error of usage where the setting refuses it."""
    if value is None:
        return None
    text = str(int(value)) if isinstance(value, bool) else value
    try:
        setting.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error
    return text
