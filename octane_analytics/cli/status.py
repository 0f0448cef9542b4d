"""`octane-analytics status`: what a running supervisor says of itself and its processes."""

import json
import os
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from octane_analytics.cli.directories import control_socket
from octane_analytics.cli.options import setting_options
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.exits import Exit
from octane_analytics.settings.loading import Loaded
from octane_analytics.supervisor.control import FILE_NAME, ask

_ANSWER_SECONDS = 5.0
_STYLES = {"running": "green", "starting": "yellow", "backoff": "red", "fatal": "bold red"}


@click.command()
@setting_options("CONTROL_SOCKET", "PROMETHEUS_MULTIPROC_DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program to read.")
@click.option(
    "--watch",
    is_flag=True,
    help="Again and again, until Ctrl-C; with --json one object a line.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600.0),
    default=2.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
def status(loaded: Loaded, as_json: bool, watch: bool, interval: float) -> int:
    """Show how a running worker command and each of its processes do.

    Asks the supervisor over its control socket, as the same user or as root. Exits with 0 when every
    process runs and none waits for what is away, with 1 when not, with 69 when no supervisor answers.
    """
    path = _find(loaded)
    if not watch:
        told = _ask(path)
        _show(told, as_json)
        return _code(told)
    told = _ask(path)
    if as_json:
        while True:
            click.echo(json.dumps(told))
            time.sleep(interval)
            told = _ask(path)
    with Live(_whole(told), console=Console(), auto_refresh=False) as live:
        while True:
            live.update(_whole(told), refresh=True)
            time.sleep(interval)
            told = _ask(path)


def _code(told: dict[str, Any]) -> int:
    return int(Exit.OK if told["is_healthy"] else Exit.FAILED)


def _find(loaded: Loaded) -> Path:
    """The socket that the settings name; where they name none, the one that a unit has made."""
    settings = loaded.settings
    path = control_socket(settings, os.environ)
    if path is None:
        raise ConfigError("CONTROL_SOCKET is none: a supervisor without a socket cannot be asked")
    is_named = settings.worker.control_socket or settings.metrics.directory
    if is_named or "RUNTIME_DIRECTORY" in os.environ or path.exists():
        return path
    found = sorted(Path("/run").glob(f"octane-analytics*/{FILE_NAME}"))
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise ConfigError(f"several supervisors: name one with --control-socket: {listed}")
    return found[0] if found else path


def _ask(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(ask(path, _ANSWER_SECONDS))
    except PermissionError as error:
        raise Unavailable(
            f"may not connect to {path}: run this as the service's user or as root"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(
            f"no supervisor answers on {path}: {reason}; does `octane-analytics worker` run, and with "
            "this CONTROL_SOCKET?"
        ) from error
    return told


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(_whole(told))


def _whole(told: dict[str, Any]) -> Table:
    """A grid of one line about the whole and the table of the slots."""
    grid = Table.grid()
    grid.add_row(_summary(told))
    grid.add_row(_table(told))
    return grid


def _summary(told: dict[str, Any]) -> Text:
    health = Text("healthy", "green") if told["is_healthy"] else Text("not healthy", "bold red")
    workers = [slot for slot in told["slots"] if slot["is_worker"]]
    up = sum(slot["state"] == "running" for slot in workers)
    parts = [
        f"supervisor {told['pid']}",
        f"{told['state']}, up {_time(told['uptime_seconds'])}",
        f"{up} of {len(workers)} workers up",
        f"{told['events_per_second']:,.0f} events/s",
        f"lag {_number(told['lag'])}{_held_back(told['held_back'])}",
    ]
    if told["last_reload"]:
        parts.append(told["last_reload"])
    return Text(", ".join(parts) + ", ").append_text(health)


def _table(told: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("slot", "left"),
        ("pid", "right"),
        ("state", "left"),
        ("uptime", "right"),
        ("restarts", "right"),
        ("partitions", "right"),
        ("events/s", "right"),
        ("lag", "right"),
        ("last flush", "right"),
        ("memory", "right"),
        ("last error", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for slot in told["slots"]:
        is_worker = slot["is_worker"]
        state = "waiting" if slot["is_waiting"] else slot["state"]
        table.add_row(
            slot["slot"],
            "-" if slot["pid"] is None else str(slot["pid"]),
            Text(state, _STYLES.get(state, "yellow")),
            _time(slot["uptime_seconds"]),
            str(slot["restarts"]),
            str(slot["partitions"]) if is_worker else "",
            f"{slot['events_per_second']:,.0f}" if is_worker else "",
            _number(slot["lag"]) if is_worker else "",
            _ago(slot["last_flush_seconds"]) if is_worker else "",
            _megabytes(slot["memory_bytes"]),
            Text(_error(slot)),
        )
    return table


def _error(slot: dict[str, Any]) -> str:
    if slot["last_error"]:
        return f"{_ago(slot['last_error_seconds'])}: {slot['last_error']}"
    if slot["pid"] is None and slot["last_exit"] is not None:
        return f"ended with {slot['last_exit']}"
    return ""


def _time(seconds: float | None) -> str:
    """Two units at most: 3d 4h, 5m 6s."""
    if seconds is None:
        return "-"
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def _ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_time(seconds)} ago"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _held_back(messages: int) -> str:
    return f" ({messages:,} held back by an open transaction)" if messages else ""


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f} MB"
