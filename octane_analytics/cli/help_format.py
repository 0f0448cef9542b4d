"""Format the help of every command: its own options first, then a group per section of the settings.

Lines do not break at the hyphen of an option or a command. Imports click only, so that
`octane-analytics --help` starts fast.
"""

import re
from collections.abc import Iterable
from typing import Any

import click

SECTION_TITLES = {
    "kafka": "Kafka options",
    "clickhouse": "ClickHouse options",
    "batch": "Batch options",
    "worker": "Worker options",
    "api": "API options",
    "queries": "Raw SQL options",
    "metrics": "Metrics options",
    "log": "Log options",
}
"""Titles by section of the settings, in the order of help, after the command's own options."""

_HYPHEN, _SPACE = "\ue000", "\ue001"
"""Placeholders at which text wrapping does not break; replaced when a line is written."""
_NOTE = re.compile(r"\[(?:env|default): [^\]]*\]")


class Formatter(click.HelpFormatter):
    """Help formatter that wraps between words only and keeps `default: VALUE` on one line."""

    def write_text(self, text: str) -> None:
        super().write_text(_unbroken(text))

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        super().write_dl([(term, _unbroken(text)) for term, text in rows], col_max, col_spacing)

    def write(self, string: str) -> None:
        super().write(string.replace(_HYPHEN, "-").replace(_SPACE, " "))


def _unbroken(text: str) -> str:
    joined = _NOTE.sub(
        lambda note: re.sub(r"\b(env|default): ", rf"\1:{_SPACE}", note[0]),
        text,
    )
    return joined.replace("-", _HYPHEN)


class Context(click.Context):
    """Click context whose help uses `Formatter`."""

    formatter_class = Formatter


class SettingOption(click.Option):
    """Option for a setting. `section` is empty if help lists it among the command's own options."""

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """Command whose help shows options in the groups of SECTION_TITLES."""

    context_class = Context

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                groups.setdefault(getattr(param, "section", ""), []).append(record)
        for section, title in {"": "Options", **SECTION_TITLES}.items():
            if section in groups:
                with formatter.section(title):
                    formatter.write_dl(groups[section])


class CommandGroup(click.Group):
    """Command group whose sub-commands use the help of `Command`."""

    context_class = Context
    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole first sentence of each command; click would cut it."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(10_000)) for name, command in commands if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
