"""`octane-analytics status --hosts`: state of a group over several hosts, from their metrics ports."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import click

from octane_analytics.cli.output.table import aligned, terminal_width, wrapped, wrapped_list
from octane_analytics.cli.output.watch import show
from octane_analytics.errors import Unavailable
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.topology import Address, authority, parse_address
from octane_analytics.telemetry import host_metrics
from octane_analytics.telemetry.group_status import GroupStatus, HostStatus

_ANSWER_SECONDS = 5.0
_MAX_THREADS = 32
_MAX_HOSTS = 1000
_WIDTH = 80
_HEADINGS = (
    *("host", "workers", "partitions", "events/s", "inserted", "dlq", "restarts", "state"),
)
_NUMBERS = frozenset(_HEADINGS) - {"host", "state"}
_RATE = "events/s"
_DROPPED = ("restarts", "partitions", "dlq", _RATE)


def run(hosts: str, default_port: int, *, as_json: bool, watch: float | None) -> Exit:
    """Print the state once, or every `watch` seconds until a signal."""
    reader = GroupReader(parse_hosts(hosts, default_port))

    def render(status: GroupStatus) -> str:
        if as_json:
            return json.dumps(status.as_json(), indent=None if watch else 2)
        return "\n".join(status_lines(status))

    if watch is not None:
        with StopSignal() as stop:
            show(lambda: render(reader.read()), watch, stop)
        return Exit.OK
    status = reader.read()
    click.echo(render(status))
    if not status.answering:
        return Exit.UNAVAILABLE
    return Exit.OK if status.is_healthy else Exit.FAILED


def parse_hosts(text: str, default_port: int) -> list[Address]:
    """Return the hosts of a list with commas. Raises click.UsageError."""
    found: list[Address] = []
    for entry in text.split(","):
        address = parse_address(entry, default_port)
        if address is None and not default_port and parse_address(entry, 1):
            raise click.UsageError(
                f"--hosts: {entry.strip()!r} needs a port, because METRICS_PORT is 0"
            )
        if address is None:
            raise click.UsageError(
                f"--hosts: {entry.strip()!r} is not a host or host:port; write for example "
                "vm1.example.com,vm2.example.com:8000,[2001:db8::1]"
            )
        if address in found:
            raise click.UsageError(
                f"--hosts: {authority(*address)} is listed twice and would be counted twice"
            )
        found.append(address)
    if len(found) > _MAX_HOSTS:
        raise click.UsageError(f"--hosts: {len(found)} hosts are listed, at most {_MAX_HOSTS}")
    return found


class GroupReader:
    """Reads all hosts side by side, and rates from one reading to the next."""

    def __init__(
        self,
        hosts: Sequence[Address],
        read_host: Callable[[str, int, float], host_metrics.HostMetrics] = host_metrics.read,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._read_host = read_host
        self._monotonic = monotonic
        self._previous: dict[str, tuple[float, int]] = {}

    def read(self) -> GroupStatus:
        """Return the state of all hosts. Blocks until each has answered or its time is over."""
        with ThreadPoolExecutor(min(_MAX_THREADS, len(self._hosts))) as threads:
            hosts = list(threads.map(self._read, self._hosts))
        return GroupStatus([self._with_rate(host) for host in hosts], time.time())

    def _read(self, address: Address) -> HostStatus:
        name = authority(*address)
        try:
            return HostStatus(name, self._read_host(*address, _ANSWER_SECONDS))
        except Unavailable as error:
            return HostStatus(name, None, str(error))

    def _with_rate(self, host: HostStatus) -> HostStatus:
        if host.metrics is None:
            return host
        now, inserted = self._monotonic(), host.metrics.inserted
        before = self._previous.get(host.name)
        self._previous[host.name] = (now, inserted)
        # The counter of a service that was restarted begins at zero.
        if before is None or inserted < before[1] or now <= before[0]:
            return host
        return replace(host, events_per_second=(inserted - before[1]) / (now - before[0]))


def status_lines(status: GroupStatus) -> Iterator[str]:
    """Yield the summary, what the hosts disagree on, and a row for each host, in at most 80 columns."""
    width = terminal_width() or _WIDTH
    health = "healthy" if status.is_healthy else "not healthy"
    summary = wrapped_list([*_summary(status), health], width)
    colour = "green" if status.is_healthy else "red"
    # Coloured after wrapping, which would count the escape sequences.
    yield summary[: -len(health)] + click.style(summary[-len(health) :], fg=colour)
    for note in status.notes():
        yield wrapped(note, width)
    rows = [_row(host) for host in status.hosts]
    if status.events_per_second is None:
        for row in rows:
            del row[_RATE]
    yield from aligned(
        list(rows[0]),
        [list(row.values()) for row in rows],
        numbers=_NUMBERS,
        width=width,
        drop=[name for name in _DROPPED if name in rows[0]],
    )


def _summary(status: GroupStatus) -> list[str]:
    lag = status.lag
    parts = [
        f"{len(status.answering)} of {len(status.hosts)} hosts answer",
        f"{status.total('workers'):,} workers",
        f"{status.total('inserted'):,} events inserted",
        f"{status.total('dead_letters'):,} dead-letter messages",
    ]
    if status.events_per_second is not None:
        parts.append(f"{status.events_per_second:,.0f} events/s")
    if status.total("batches_waiting"):
        parts.append(f"{status.total('batches_waiting'):,} batches waiting")
    if lag is None:
        parts.append("lag unknown")
    else:
        held = f", {lag.held_back:,} held back by an open transaction" if lag.held_back else ""
        messages = sum(lag.messages.values())
        oldest = f" (oldest {lag.seconds:,.0f} s{held})" if messages else ""
        parts.append(f"lag {messages:,}{oldest}")
    return parts


def _row(host: HostStatus) -> dict[str, str]:
    metrics, rate = host.metrics, host.events_per_second
    cells = [host.short_name, *["-"] * (len(_HEADINGS) - 2), ""]
    if metrics is not None:
        cells[1:-1] = (
            str(metrics.workers),
            str(metrics.partitions),
            "-" if rate is None else f"{rate:,.0f}",
            f"{metrics.inserted:,}",
            f"{metrics.dead_letters:,}",
            str(metrics.restarts),
        )
    cells[-1] = click.style(host.state, fg="green" if host.is_healthy else "red")
    return dict(zip(_HEADINGS, cells, strict=True))
