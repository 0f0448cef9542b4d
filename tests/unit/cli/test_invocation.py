import shlex
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from octane_analytics.cli import main as module
from octane_analytics.cli.invocation import command_line, program, root_words
from octane_analytics.cli.main import main


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a program with a space in its path and make it the one that was started."""
    path = tmp_path / "my tools" / "octane-analytics"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.delenv("OCTANE_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", [str(path)])
    return path


def test_program_is_its_name_if_on_the_path(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == [str(command)]
    monkeypatch.setenv("PATH", str(command.parent))
    assert program() == ["octane-analytics"]


def test_module_is_run_by_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTANE_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["/x/octane_analytics/__main__.py"])
    assert program() == [sys.executable, "-m", "octane_analytics"]
    monkeypatch.setenv("OCTANE_COMMAND", "/nowhere/bin/octane-analytics")
    assert program() == ["/nowhere/bin/octane-analytics"]


def test_command_line_repeats_the_given_words(
    command: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my settings.env"
    file.write_text("")
    monkeypatch.setenv("PATH", str(command.parent))

    def show() -> None:
        click.echo(command_line("--json"))
        click.echo(shlex.join(root_words()))

    monkeypatch.setattr(
        module.Program,
        "get_command",
        lambda self, context, name: click.Command(
            "dlq", callback=lambda **_: show(), params=[click.Option(["--give-up"])]
        ),
    )
    result = CliRunner().invoke(main, ["--env-file", str(file), "dlq", "--give-up", "it's"])
    words, root = map(shlex.split, result.stdout.splitlines())
    assert words == [
        "octane-analytics",
        "--env-file",
        str(file),
        "dlq",
        "--give-up",
        "it's",
        "--json",
    ]
    assert root == ["octane-analytics", "--env-file", str(file)]
