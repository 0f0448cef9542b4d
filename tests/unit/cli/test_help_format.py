"""Help of every command at 80 columns."""

import importlib
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from octane_analytics.cli.help_format import SECTION_TITLES, Command, CommandGroup
from octane_analytics.cli.main import COMMANDS, main
from octane_analytics.cli.options import SHORT_NAMES, option_name
from octane_analytics.settings.loading import catalogue


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _walk(inner, f"{path} {name}")


ALL = [
    entry
    for name in COMMANDS
    for entry in _walk(
        getattr(importlib.import_module(f"octane_analytics.cli.commands.{name}"), name), name
    )
]
each_command = pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])


def _help(path: str) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(main, [*path.split(), "--help"])
    assert result.exit_code == 0, result.output
    return result.stdout


@each_command
def test_every_command_groups_its_options(path: str, command: click.Command) -> None:
    assert isinstance(command, Command | CommandGroup), f"{path}: cls=Command or CommandGroup"


@each_command
def test_own_options_come_first_then_section_groups(path: str, command: click.Command) -> None:
    titles = ["Options", *SECTION_TITLES.values()]
    shown = [line[:-1] for line in _help(path).splitlines() if line[:-1] in titles]
    assert shown[0] == "Options"
    assert shown == [title for title in titles if title in shown]
    own, *_ = _help(path).split(f"\n{shown[1]}:\n") if len(shown) > 1 else [_help(path)]
    assert "--help" in own
    assert "--kafka-" not in own.partition("\nOptions:\n")[2]
    assert "--clickhouse-host" not in own


@each_command
def test_help_fits_80_columns_and_breaks_no_word(path: str, command: click.Command) -> None:
    text = _help(path)
    assert max(map(len, text.splitlines())) <= 80
    joined = " ".join(text.split())
    for param in command.params:
        text_of_help = getattr(param, "help", None) or ""
        assert " ".join(text_of_help.split()) in joined, f"{path}: {param.name}"
    assert " ".join((command.help or "").replace("\b", "").split()) in joined


def test_help_of_the_program_fits_80_columns() -> None:
    text = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["--help"]).stdout
    assert max(map(len, text.splitlines())) <= 80


def test_option_has_one_setting_in_every_command() -> None:
    parameters: dict[str, set[str]] = {}
    for _, command in ALL:
        for param in command.params:
            for flag in param.opts:
                parameters.setdefault(flag, set()).add(str(param.name))
    # `procs`: replay and sandbox do not have this setting and fork consumer processes of their own.
    for setting in catalogue():
        assert parameters.get(option_name(setting.name), set()) <= {setting.name.lower(), "procs"}
    for name, flag in SHORT_NAMES.items():
        assert parameters[flag] <= {name.lower(), "procs"}, flag


@pytest.mark.parametrize("flag", [*SHORT_NAMES.values(), "--watch"])
def test_option_takes_the_same_values_in_every_command(flag: str) -> None:
    accepted = {}
    for path, command in ALL:
        options = [param for param in command.params if flag in param.opts]
        for option in options:
            context = click.Context(command)
            accepted[path] = tuple(
                _is_accepted(option, context, text)
                for text in ("0", "1", "64", "1024", "auto", "0.5", "-1", "70000", "x")
            )
    assert len(accepted) > 1 or flag == "--workers"
    assert len(set(accepted.values())) == 1, accepted


def _is_accepted(option: click.Parameter, context: click.Context, text: str) -> bool:
    try:
        option.process_value(context, text)
    except click.BadParameter:
        return False
    return True
