"""Options that stand for a setting: name, meaning, unit and default come from the catalogue."""

import os
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from octane_analytics.settings.loading import catalogue, load
from octane_analytics.settings.rereading import Rereading
from octane_analytics.settings.values import Setting

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


def setting_options(
    *names: str, spelled: Mapping[str, str] | None = None, rereads: bool = False
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Gives a command an option for each of these settings, and one argument `loaded` for them.

    `loaded` is what `settings.load` makes of the environment and these options. `spelled` holds
    options whose name is not the setting's: `{"WORKER_PROCS": "--procs"}`. A secret gets no option,
    for every user of the machine can read a command line: ValueError. A command that `rereads` has a
    second argument, `reread`: see `settings.rereading`.
    """
    listed = {setting.name: setting for setting in catalogue()}
    flags = {name: (spelled or {}).get(name, option_name(name)) for name in names}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_settings(**values: Any) -> R:
            given = {name: values.pop(name.lower()) for name in flags}
            overrides = {name: value for name, value in given.items() if value is not None}
            if rereads:
                values["reread"] = Rereading(os.environ, overrides, _environment_files())
            return command(loaded=load(os.environ, overrides), **values)

        decorated: Callable[..., R] = with_settings
        for name, flag in reversed(flags.items()):
            decorated = _option(listed[name], flag)(decorated)
        return decorated

    return decorate


def _environment_files() -> list[Path]:
    """Those of --env-file, which stands before the command's name."""
    return list(map(Path, click.get_current_context().find_root().params.get("env_files", ())))


def option_name(setting: str) -> str:
    """`BATCH_SIZE` is `--batch-size` unless a command spells it otherwise."""
    return "--" + setting.lower().replace("_", "-")


def _option(setting: Setting, flag: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    if setting.is_secret:
        raise ValueError(f"{setting.name} is a secret: no option for it")
    told = f"{setting.help}  [env: {setting.name}; default: {setting.default or 'empty'}]"
    is_flag = isinstance(setting.parse(setting.default), bool)
    if is_flag:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    return click.option(
        flag,
        setting.name.lower(),
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
