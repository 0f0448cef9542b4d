import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from octane_analytics import __version__
from octane_analytics.cli import main as module
from octane_analytics.cli.main import COMMANDS, main
from octane_analytics.errors import (
    AssignmentLost,
    ConfigError,
    NeedsOperator,
    StatementRejected,
    Unavailable,
)
from octane_analytics.runtime.exit_codes import MEANINGS, Exit


def _leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [
            leaf
            for name, inner in command.commands.items()
            for leaf in _leaves(inner, f"{path} {name}")
        ]
    return [(path, command)]


def _command(name: str) -> click.Command:
    command = getattr(importlib.import_module(f"octane_analytics.cli.commands.{name}"), name)
    assert isinstance(command, click.Command)
    return command


ALL = [leaf for name in COMMANDS for leaf in _leaves(_command(name), name)]


@pytest.mark.parametrize("name", COMMANDS)
def test_listed_help_is_the_first_sentence_of_help(name: str) -> None:
    assert _command(name).get_short_help_str(limit=200) == COMMANDS[name]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_option_has_help_and_shows_its_default(path: str, command: click.Command) -> None:
    for parameter in command.params:
        if not isinstance(parameter, click.Option):
            continue
        text = parameter.help or ""
        assert text, f"{path}: {parameter.opts} has no help"
        shows_default = parameter.is_flag or parameter.show_default or "default: " in text
        is_optional_input = parameter.name in ("generate", "load")
        assert shows_default or is_optional_input, f"{path}: {parameter.opts} hides its default"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_shows_help(path: str, command: click.Command) -> None:
    result = CliRunner().invoke(main, [*path.split(), "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: octane-analytics {path} ")


def test_help_lists_commands_and_exit_codes() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"  {name} " in result.output
    for code, meaning in MEANINGS.items():
        assert f"{code.value:>3}  {meaning}" in result.output


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)


def test_version_is_shown() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"octane-analytics, version {__version__}\n"
    assert result.exit_code == Exit.OK


def test_help_names_the_manual() -> None:
    assert "octane-analytics manual [PAGE]" in CliRunner().invoke(main, ["--help"]).output


@pytest.mark.parametrize("arguments", [["nonsense"], ["config", "--nonsense"], ["config", "extra"]])
def test_wrong_command_line_is_one_line(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("octane-analytics: error: ")
    assert result.stderr.count("\n") == 1
    assert "--help`)" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.CONFIG),
        (NeedsOperator("x"), Exit.CONFIG),
        (Unavailable("x"), Exit.UNAVAILABLE),
        (AssignmentLost("x"), Exit.UNAVAILABLE),
        (StatementRejected(1, "X", "x"), Exit.FAILED),
        (click.ClickException("x"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_error_becomes_an_exit_code_and_one_line(
    error: BaseException, code: Exit, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _failing_with(error, monkeypatch)
    assert result.exit_code == code
    expected = "" if isinstance(error, KeyboardInterrupt) else "octane-analytics: error: x"
    assert result.stderr.strip() == expected


def test_internal_error_prints_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _failing_with(ZeroDivisionError("oops"), monkeypatch)
    assert result.exit_code == Exit.INTERNAL
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "octane-analytics: error: internal error: ZeroDivisionError: oops"


def test_exit_code_is_the_return_value(monkeypatch: pytest.MonkeyPatch) -> None:
    command = click.Command("config", callback=lambda: Exit.FAILED)
    monkeypatch.setattr(module.Program, "get_command", lambda self, ctx, name: command)
    assert CliRunner().invoke(main, ["config"]).exit_code == Exit.FAILED


def test_env_files_yield_to_environment_and_last_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common, own = tmp_path / "common.env", tmp_path / "own.env"
    common.write_text("KAFKA_TOPIC=common\nKAFKA_GROUP_ID=common\nBATCH_SIZE=7\n")
    own.write_text("KAFKA_GROUP_ID=own\n")
    # The command sets these variables; monkeypatch removes them again.
    for name in ("KAFKA_TOPIC", "KAFKA_GROUP_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCH_SIZE", "8")
    result = CliRunner().invoke(main, ["--env-file", str(common), "--env-file", str(own), "config"])
    assert result.exit_code == Exit.OK
    assert f"KAFKA_TOPIC\tcommon\tenvironment {common}\n" in result.output
    assert f"KAFKA_GROUP_ID\town\tenvironment {own}\n" in result.output
    assert "BATCH_SIZE\t8\tenvironment\n" in result.output


def test_unknown_settings_are_warned_about_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.env"
    file.write_text("FLUSH_INTERVALL=value-1\nCLICKHOUSE_PASWORD=value-2\nNONSENSE=value-3\n")
    for name in ("FLUSH_INTERVALL", "CLICKHOUSE_PASWORD", "NONSENSE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCH_SIZES", "value-4")
    result = CliRunner().invoke(main, ["--env-file", str(file), "config"])
    assert result.exit_code == Exit.OK
    lines = result.stderr.splitlines()
    assert all(line.startswith("octane-analytics: warning: ") for line in lines)
    for name in ("FLUSH_INTERVALL", "CLICKHOUSE_PASWORD", "NONSENSE", "BATCH_SIZES"):
        assert sum(f" {name} " in line for line in lines) == 1
    assert "value-" not in result.output
    helped = CliRunner().invoke(main, ["--env-file", str(file), "config", "--help"])
    assert helped.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["statsu"], "'status'"),
        (["wroker"], "'worker'"),
        (["dlq", "purge-reprot"], "'purge-report'"),
        (["schema", "aply"], "'apply'"),
        (["token", "lst"], "'list'"),
        (["offsets", "exprt"], "'export'"),
        (["lag", "--kafka-tpic", "x"], "'--kafka-topic'"),
    ],
)
def test_unknown_command_suggests_the_nearest(arguments: list[str], nearest: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == Exit.USAGE
    assert "Did you mean" in result.stderr
    assert nearest in result.stderr
    assert result.stderr.count("\n") == 1


def test_completion_does_not_import_the_commands() -> None:
    script = (
        "import sys\n"
        "from octane_analytics.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith('octane_analytics.kafka')])\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ
        | {
            "_OCTANE_ANALYTICS_COMPLETE": "bash_complete",
            "COMP_WORDS": "octane-analytics s",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == ["plain,status", "plain,schema", "plain,sandbox", "[]"]


def test_missing_env_file_exits_with_config_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--env-file", str(tmp_path / "none.env"), "config"])
    assert result.exit_code == Exit.CONFIG
    assert result.output.count("\n") == 1
    assert f"cannot read the environment file {tmp_path}/none.env: " in result.output


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from octane_analytics.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'confluent_kafka', 'clickhouse_driver', 'gunicorn', 'starlette', 'rich', 'msgspec',"
        " 'prometheus_client'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert output.endswith("heavy: []\n")


def _failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Result:
    def fail() -> None:
        raise error

    command = click.Command("config", callback=fail)
    monkeypatch.setattr(module.Program, "get_command", lambda self, ctx, name: command)
    return CliRunner().invoke(main, ["config"])
