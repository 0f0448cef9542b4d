"""Confirmation before data changes: without a terminal, on one, answered and interrupted."""

import pytest

from tests.support.command import run
from tests.support.terminal import CTRL_C, PYTHON, on_terminal

ASK = """
import sys
import click
from octane_analytics.cli.output.confirmation import confirm
from octane_analytics.cli.main import main
from octane_analytics.runtime.stop_signal import StopSignal

def change():
    with StopSignal():
        confirm("Go on?", "the change", yes=False)
    click.echo("changed")

type(main).get_command = lambda self, context, name: click.Command("config", callback=change)
main(["config"])
"""


@pytest.mark.parametrize("mode", ["append", "rebuild"])
def test_destructive_replay_requires_terminal_or_yes(mode: str) -> None:
    # Nothing listens on these ports: the command refuses before it connects.
    unreachable = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CLICKHOUSE_HOST": "127.0.0.1:1"}
    done = run("replay", "--mode", mode, "--from-offset", "0", settings=unreachable)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"replay --mode {mode} changes data" in done.stderr
    assert "--yes" in done.stderr
    for given in (["--yes"], ["--dry-run"]):
        done = run("replay", "--mode", mode, "--from-offset", "0", *given, settings=unreachable)
        assert done.returncode == 69, done.stderr


def test_fill_does_not_require_a_terminal() -> None:
    unreachable = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CLICKHOUSE_HOST": "127.0.0.1:1"}
    assert run("replay", "--from-offset", "0", settings=unreachable).returncode == 69


@pytest.mark.parametrize(
    ("answer", "code", "last"),
    [
        ("y\n", 0, "changed"),
        ("n\n", 1, "octane-analytics: error: the change declined: nothing was changed"),
        ("\n", 1, "octane-analytics: error: the change declined: nothing was changed"),
        (CTRL_C, 130, None),
    ],
    ids=["yes", "no", "enter", "Ctrl-C"],
)
def test_answer_decides_the_exit_code(answer: str, code: int, last: str | None) -> None:
    shown = on_terminal(ASK, answers=[("[y/N]", answer)], command=PYTHON)
    assert shown.code == code, shown.raw
    assert "Traceback" not in shown.raw
    if last is not None:
        assert shown.lines[-1] == last
