"""`octane-analytics status`: state of a running supervisor and of its processes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from octane_analytics.cli.commands import status_hosts
from octane_analytics.cli.directories import control_socket
from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import json_option, setting_options
from octane_analytics.cli.output.table import aligned, terminal_width, wrapped, wrapped_list
from octane_analytics.cli.output.watch import show, watch_option
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
"""Columns that a narrow terminal omits, the least important first."""


@click.command(cls=Command)
@setting_options("CONTROL_SOCKET", "PROMETHEUS_MULTIPROC_DIR", "METRICS_PORT")
@click.option(
    "--hosts",
    metavar="HOSTS",
    help="Show these hosts of one group instead, from their metrics ports: names or addresses separated "
    "by commas, each with an optional :port (default: METRICS_PORT).",
)
@json_option("Print one JSON object (one per line with --watch).")
@watch_option
def status(loaded: Loaded, hosts: str | None, as_json: bool, watch: float | None) -> int:
    """Show the state of a running worker command and of each of its processes.

    Asks the supervisor over its control socket, as the same user or as root. If the service is not
    healthy, prints each reason with the section of the manual that says what to do. Exits with 0 if
    every process runs and none waits for Kafka or ClickHouse, with 1 if not, and with 69 if no
    supervisor answers. On a terminal, prints the columns that fit; otherwise prints all of them.

    With --hosts, asks the metrics port of each host (METRICS_HOST must let it answer others) and prints
    a row for each, also for one that does not answer within 5 s, and the sum; the lag, which each of
    them measures for the whole group, is counted once. Exits with 0 if every host answers and is ready,
    with 1 if not, and with 69 if none answers.
    """
    if hosts is not None:
        return int(
            status_hosts.run(hosts, loaded.settings.metrics.port, as_json=as_json, watch=watch)
        )
    path = _socket_path(loaded)
    report = _fetch(path)
    if watch is None:
        click.echo(json.dumps(report, indent=2) if as_json else "\n".join(status_lines(report)))
        return _exit_code(report)

    def render() -> str:
        report = _fetch(path)
        return json.dumps(report) if as_json else "\n".join(status_lines(report))

    with StopSignal() as stop:
        show(render, watch, stop)
    return int(Exit.OK)


def _exit_code(report: dict[str, Any]) -> int:
    return int(Exit.OK if report["is_healthy"] else Exit.FAILED)


def _socket_path(loaded: Loaded) -> Path:
    """Return the socket that the settings name, otherwise the one of a systemd unit.

    Raises ConfigError if the settings have none or if there are sockets of several units.
    """
    settings = loaded.settings
    path = control_socket(settings, os.environ)
    if path is None:
        raise ConfigError(
            "CONTROL_SOCKET is none: a supervisor without a control socket cannot report its status"
        )
    is_named = settings.worker.control_socket or settings.metrics.directory
    if is_named or "RUNTIME_DIRECTORY" in os.environ or path.exists():
        return path
    sockets = sorted(Path("/run").glob(f"octane-analytics*/{FILE_NAME}"))
    if len(sockets) > 1:
        listed = ", ".join(map(str, sockets))
        raise ConfigError(f"several supervisors run: choose one with --control-socket: {listed}")
    return sockets[0] if sockets else path


def _fetch(path: Path) -> dict[str, Any]:
    """Return the supervisor's report. Blocks; raises Unavailable without an answer."""
    try:
        report: dict[str, Any] = json.loads(request_status(path, _ANSWER_SECONDS))
    except PermissionError as error:
        raise Unavailable(
            f"permission denied for {path}: run this as the service's user or as root"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(
            f"no supervisor answers on {path}: {reason}; check that `octane-analytics worker` runs with "
            "this CONTROL_SOCKET"
        ) from error
    return report


def status_lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the summary, the table of the slots, and the last error of each slot."""
    width = terminal_width()
    health = "healthy" if report["is_healthy"] else "not healthy"
    colour = "green" if report["is_healthy"] else "red"
    summary = wrapped_list([*_summary(report), health], width)
    # Coloured after wrapping, which would count the escape sequences.
    yield summary[: -len(health)] + click.style(summary[-len(health) :], fg=colour)
    for problem in report.get("problems", []):  # absent from a supervisor of an older version
        yield wrapped(_problem(problem), width, first="not healthy: ", indent=2)
    if report.get("note"):  # absent from a supervisor of an older version
        yield wrapped(report["note"], width)
    rows = [_row(slot) for slot in report["slots"]]
    yield from aligned(_HEADINGS, rows, numbers=_NUMBERS, width=width, drop=_DROPPED)
    for slot in report["slots"]:
        error = _error(slot)
        if error:
            yield wrapped(error, width, first=f"{slot['slot']}: ", indent=2)


def _problem(problem: dict[str, Any]) -> str:
    page, section = problem["page"], problem["section"]
    return f"{problem['text']}; see {section} in `octane-analytics manual {page}`"


def _summary(report: dict[str, Any]) -> list[str]:
    workers = [slot for slot in report["slots"] if slot["is_worker"]]
    up = sum(slot["state"] == "running" for slot in workers)
    parts = [
        f"supervisor {report['pid']}",
        f"{report['state']}, up {_duration(report['uptime_seconds'])}",
        f"{up} of {len(workers)} workers up",
        f"{report['events_per_second']:,.0f} events/s",
        f"lag {_number(report['lag'])}{_held_back(report['held_back'])}",
    ]
    if report["last_reload"]:
        parts.append(report["last_reload"])
    return parts


def _row(slot: dict[str, Any]) -> tuple[str, ...]:
    is_worker = slot["is_worker"]
    state = "waiting" if slot["is_waiting"] else slot["state"]
    return (
        slot["slot"],
        "-" if slot["pid"] is None else str(slot["pid"]),
        click.style(state, fg=_COLOURS.get(state, "yellow")),
        _duration(slot["uptime_seconds"]),
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


def _duration(seconds: float | None) -> str:
    """Return a duration in at most two units: 3d 4h, 5m 6s."""
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
    return "-" if seconds is None else f"{_duration(seconds)} ago"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _held_back(messages: int) -> str:
    return f" ({messages:,} held back by an open transaction)" if messages else ""


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f} MB"
