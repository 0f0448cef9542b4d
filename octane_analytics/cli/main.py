"""Command `octane-analytics`: sub-commands, imported when called, and the exit codes of errors.

Imports nothing heavy, so that `--help` starts fast and a sub-command imports only what it needs.
"""

import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from octane_analytics import __version__
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.invocation import APPLIED, ARGUMENTS, FILES
from octane_analytics.errors import OctaneError
from octane_analytics.runtime.exit_codes import MEANINGS, Exit, exit_for
from octane_analytics.settings import environment_file

PROGRAM = "octane-analytics"

COMMANDS = {
    "worker": "Consume events and insert them into ClickHouse, in PROCS forked processes.",
    "status": "Show the state of a running worker command and of each of its processes.",
    "api": "Serve reports and queries over HTTP.",
    "report": "Run or explain a report from the terminal, list all reports, or check them.",
    "token": "Create, list or revoke tokens of the API.",
    "schema": "Show, create or check the table, and create the user of raw SQL.",
    "topic": "Create or check the topic and its dead-letter topic.",
    "replay": "Insert the events of an offset range that the table lacks, or rebuild months.",
    "produce": "Send newline-delimited JSON events to the topic.",
    "sandbox": "Run the whole service on this machine, with embedded ClickHouse and Kafka.",
    "lag": "Show the lag of the consumer group for each partition.",
    "dlq": "Count, show and retry dead-letter messages.",
    "offsets": "Export, import or set the consumer group's offsets, or show what is pending.",
    "check": "Check the prerequisites of the worker and the API.",
    "config": "Show every setting with its value and the source of the value.",
    "manual": "Print a page of the manual, or list the pages.",
}
"""First sentence of help by command; the command is the object of that name in its module."""

_EPILOG = (
    "\b\nExit codes:\n"
    + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
    + "\n\nThe manual: octane-analytics manual [PAGE]"
)


_SILENT = logging.NullHandler()


class Program(CommandGroup):
    """Root command that imports a sub-command's module when it is called."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        arguments = tuple(args)  # click empties the list
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[ARGUMENTS] = arguments
        return context

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raise click.NoSuchCommand, with the nearest names, for an unknown command."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands with their help, without importing them, then the options."""
        commands = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"octane_analytics.cli.commands.{cmd_name}")
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see octane_analytics.__main__
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the command and exit with a code of `Exit`; an error is one line on standard error."""
        command = super().main
        exit_with(lambda: command(args, PROGRAM, complete_var, standalone_mode=False, **extra))


def exit_with(command: Callable[[], Any], program: str = PROGRAM) -> NoReturn:
    """Call a click command, which is not in standalone mode, and exit with a code of `Exit`.

    An error is one line on standard error that begins with `program`.
    """
    # The long-running commands configure logging. In the others, libraries must not add lines of
    # their own to the one that reports an error.
    logging.getLogger().addHandler(_SILENT)

    def fail(message: str, code: Exit) -> Exit:
        click.echo(f"{program}: error: {message}", err=True)
        return code

    try:
        code = command()
    except click.Abort:
        code = Exit.INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = Exit.USAGE
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        code = fail(f"{error.format_message().rstrip('.')}{hint}", Exit.USAGE)
    except click.ClickException as error:
        code = fail(error.format_message(), Exit.FAILED)
    except OctaneError as error:
        code = fail(str(error), exit_for(error))
    except Exception as error:  # boundary of the process
        traceback.print_exc()
        code = fail(f"internal error: {type(error).__name__}: {error}", Exit.INTERNAL)
    sys.exit(code)


@click.group(
    cls=Program,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=PROGRAM)
@click.option(
    "--env-file",
    "env_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(),
    envvar="OCTANE_ENV_FILE",
    help="File of variables in the form of systemd's EnvironmentFile; the environment overrides it. If "
    "given several times, the last file wins. `worker` reads the files again on SIGHUP.  "
    "[env: OCTANE_ENV_FILE, several separated by colons; default: none]",
)
def main(env_files: tuple[str, ...]) -> None:
    """Insert events from Kafka into ClickHouse exactly once, and serve reports about them.

    Settings come from the environment; the option of a setting overrides it. `octane-analytics config`
    lists all settings.
    """
    variables: dict[str, str] = {}
    paths: dict[str, str] = {}
    for path in env_files:
        entries = environment_file.read(Path(path))
        variables |= entries
        paths |= dict.fromkeys(entries, path)
    meta = click.get_current_context().meta
    meta[FILES] = paths
    meta[APPLIED] = variables.keys() - os.environ.keys()
    for name, value in variables.items():
        os.environ.setdefault(name, value)
