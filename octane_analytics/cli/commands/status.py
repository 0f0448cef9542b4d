"""`octane-analytics status`: what a running supervisor says of itself and its processes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from octane_analytics.cli.directories import control_socket
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import setting_options
from octane_analytics.cli.output.table import aligned, terminal_width, wrapped
from octane_analytics.cli.output.watching import show, watch_option
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded
from octane_analytics.supervisor.control_socket import FILE_NAME, request_status

_ANSWER_SECONDS = 5.0
_COLOURS = {"running": "green", "backoff": "red", "fatal": "red"}
_HEADINGS = (
    *("slot", "pid", "state", "uptime", "restarts", "partitions", "events/s", "lag"),
    *("last flush", "memory"),
)
_NUMBERS = frozenset(_HEADINGS) - {"slot", "state"}
_DROPPED = ("memory", "pid", "uptime", "restarts", "last flush", "partitions")
"""Columns that a narrow terminal does without, the least important first."""


@click.command(cls=Command)
@setting_options("CONTROL_SOCKET", "PROMETHEUS_MULTIPROC_DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program to read.")
@watch_option
def status(loaded: Loaded, as_json: bool, watch: float | None) -> int:
    """Show how a running worker command and each of its processes do.

    Asks the supervisor over its control socket, as the same user or as root. Exits with 0 when every
    process runs and none waits for what is away, with 1 when not, with 69 when no supervisor answers.
    A terminal shows the columns that fit; a pipe or a file gets all of them.
    """
    path = _find(loaded)
    told = _ask(path)
    if watch is None:
        click.echo(json.dumps(told, indent=2) if as_json else "\n".join(lines(told)))
        return _code(told)

    def render() -> str:
        now = _ask(path)
        return json.dumps(now) if as_json else "\n".join(lines(now))

    with StopSignal() as stop:
        show(render, watch, stop)
    return int(Exit.OK)


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
        told: dict[str, Any] = json.loads(request_status(path, _ANSWER_SECONDS))
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


def lines(told: dict[str, Any]) -> Iterator[str]:
    """A line about the whole, the table of the slots, and the last errors."""
    width = terminal_width()
    health = "healthy" if told["is_healthy"] else "not healthy"
    colour = "green" if told["is_healthy"] else "red"
    summary = wrapped(f"{_summary(told)}, {health}", width)
    # Coloured after wrapping: escape sequences have no width.
    yield summary[: -len(health)] + click.style(summary[-len(health) :], fg=colour)
    rows = [_row(slot) for slot in told["slots"]]
    yield from aligned(_HEADINGS, rows, numbers=_NUMBERS, width=width, drop=_DROPPED)
    for slot in told["slots"]:
        error = _error(slot)
        if error:
            yield wrapped(error, width, first=f"{slot['slot']}: ", indent=2)


def _summary(told: dict[str, Any]) -> str:
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
    return ", ".join(parts)


def _row(slot: dict[str, Any]) -> tuple[str, ...]:
    is_worker = slot["is_worker"]
    state = "waiting" if slot["is_waiting"] else slot["state"]
    return (
        slot["slot"],
        "-" if slot["pid"] is None else str(slot["pid"]),
        click.style(state, fg=_COLOURS.get(state, "yellow")),
        _time(slot["uptime_seconds"]),
        str(slot["restarts"]),
        str(slot["partitions"]) if is_worker else "",
        f"{slot['events_per_second']:,.0f}" if is_worker else "",
        _number(slot["lag"]) if is_worker else "",
        _ago(slot["last_flush_seconds"]) if is_worker else "",
        _megabytes(slot["memory_bytes"]),
    )


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
