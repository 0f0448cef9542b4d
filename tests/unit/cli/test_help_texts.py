"""Help texts of all commands and options: form of the sentences and units of the values."""

import importlib
import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.help_format import SettingOption
from octane_analytics.cli.main import COMMANDS, main
from octane_analytics.cli.options import option_name
from octane_analytics.runtime.exit_codes import MEANINGS
from octane_analytics.settings.fields import Setting
from octane_analytics.settings.loading import catalogue

UNITS = frozenset(
    [
        "BYTES",
        "CONNECTIONS",
        "DAYS",
        "EVENTS",
        "EVENTS/S",
        "DAYS",
        "INSERTS/S",
        "INSERTS",
        "MESSAGES",
        "PARTITIONS",
        "PROCESSES",
        "RECORDS",
        "REPLICAS",
        "REQUESTS",
        "ROWS",
        "SECONDS",
        "THREADS",
    ]
)
WITHOUT_UNIT = frozenset({"NUMBER", "PORT", "YYYYMM"})
"""Metavars of numbers that do not measure anything."""
SETTINGS_WITHOUT_UNIT = frozenset({"API_PORT", "CLICKHOUSE_PORT", "METRICS_PORT", "DLQ_MAX_RATIO"})


def problems(text: str) -> list[str]:
    """Return what is wrong with the form of a help text; empty if it is well formed."""
    first_paragraph = text.strip().partition("\n\n")[0]
    found = []
    if not first_paragraph:
        return ["is empty"]
    if not first_paragraph[0].isupper():
        found.append("does not begin with a capital")
    if not re.search(r"[.\])]$", first_paragraph):
        found.append("does not end with a period or a bracket")
    return found


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group) and command is not main:
        for name, inner in command.commands.items():
            yield from _walk(inner, f"{path} {name}")


def _all_commands() -> Iterator[tuple[str, click.Command]]:
    yield "octane-analytics", main
    for name in COMMANDS:
        module = importlib.import_module(f"octane_analytics.cli.commands.{name}")
        yield from _walk(getattr(module, name), name)


ALL = list(_all_commands())
OPTIONS = [
    pytest.param(option, id=f"{path} {option.opts[0]}")
    for path, command in ALL
    for option in command.params
    if isinstance(option, click.Option)
]
SETTINGS = [pytest.param(setting, id=setting.name) for setting in catalogue()]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_help_of_command_is_well_formed(path: str, command: click.Command) -> None:
    assert problems(command.help or "") == []
    for paragraph in (command.help or "").split("\n\n"):
        assert re.search(r"[.\])]$", paragraph.strip()), paragraph


@pytest.mark.parametrize("text", COMMANDS.values())
def test_listed_help_is_well_formed(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize("option", OPTIONS)
def test_help_of_option_is_well_formed(option: click.Option) -> None:
    assert problems(option.help or "") == []


@pytest.mark.parametrize("option", OPTIONS)
def test_numeric_option_names_its_unit(option: click.Option) -> None:
    is_number = isinstance(
        option.type, click.types.IntParamType | click.types.FloatParamType
    ) or option.type.name in ("processes", "integer range", "float range")
    if is_number and not option.is_flag:
        metavar = (option.metavar or "").strip("[]")
        assert metavar in UNITS | WITHOUT_UNIT
        assert metavar in WITHOUT_UNIT or _mentions(option.help or "", metavar)


def _mentions(text: str, unit: str) -> bool:
    """Return whether the text has the unit or its singular; EVENTS/S are events per second."""
    word = unit.partition("/")[0].lower().removesuffix("es" if unit == "PROCESSES" else "s")
    return word in text.lower() or (unit == "EVENTS" and "lag" in text)


@pytest.mark.parametrize("setting", SETTINGS)
def test_help_of_setting_is_well_formed(setting: Setting) -> None:
    assert problems(setting.help) == []


@pytest.mark.parametrize("setting", SETTINGS)
def test_numeric_setting_has_a_unit(setting: Setting) -> None:
    value = setting.parse(setting.default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    has_unit = is_number and setting.name not in SETTINGS_WITHOUT_UNIT
    assert (setting.unit.upper() in UNITS) is has_unit


def test_option_of_setting_shows_its_unit() -> None:
    units = {option_name(setting.name): setting.unit for setting in catalogue()}
    shown = set()
    for parameter in OPTIONS:
        (option,) = parameter.values
        if isinstance(option, SettingOption) and (unit := units[option.opts[-1]]):
            assert option.metavar == unit.upper(), option.opts
            shown.add(option.opts[-1])
    text = CliRunner(env={"COLUMNS": "80"}).invoke(main, ["config", "--help"]).stdout
    assert len(shown) > 20
    for flag in shown:
        assert re.search(rf"{flag} {units[flag].upper()}\b", text), flag


def test_meanings_of_exit_codes_are_phrases() -> None:
    for meaning in MEANINGS.values():
        assert not meaning.endswith(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Print it.", []),
        ("Print it.  [default: none]", []),
        ("Print it (default: none)", []),
        ("print it.", ["does not begin with a capital"]),
        ("Print it", ["does not end with a period or a bracket"]),
        ("", ["is empty"]),
    ],
)
def test_problems_of_a_text_are_found(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


@given(st.text(st.characters(categories=["Ll"]), min_size=1))
def test_lower_case_text_always_has_both_problems(text: str) -> None:
    assert len(problems(text)) == 2
