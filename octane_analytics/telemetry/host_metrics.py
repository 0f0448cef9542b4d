"""Client of another host's metrics port: the numbers of its service, with bounds on time and size.

The text comes from the network. Only samples of known metrics, with plain labels and numbers in a
plausible range, are read; everything else in it is skipped, and no part of it is returned as text.
"""

import contextlib
import http.client
import math
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from octane_analytics.errors import Unavailable

MAX_BYTES = 8 << 20
"""Limit of an answer: some 30,000 partitions."""
_MAX_LINE = 4096
_MAX_VALUE = 1e15
_SAMPLE = re.compile(r'(analytics_[a-z_]+)(?:\{((?:[a-z_]+="[^"\\]*",?)*)\})? ([0-9.eE+-]{1,40})')
_LABEL = re.compile(r'([a-z_]+)="([^"\\]*)"')
_PARTITION = re.compile(r"[0-9]{1,9}")
_WORKER = re.compile(r"worker-[0-9]{1,6}")
_VERSION = re.compile(r"[0-9A-Za-z.+]{1,32}")
DEPENDENCIES = ("clickhouse", "kafka", "dead_letters")


class Lag(NamedTuple):
    """Lag of the whole group as one host measured it."""

    messages: Mapping[int, int]
    """Messages by partition."""
    held_back: int
    seconds: float
    """Age of the oldest message; 0 without lag."""
    measured_at: float
    """Epoch seconds, by that host's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMetrics:
    """State of one host; counters are since the start of its service."""

    version: str
    is_ready: bool
    workers: int
    partitions: int
    """Partitions that its workers own."""
    inserted: int
    dead_letters: int
    restarts: int
    batches_waiting: int
    waiting: Mapping[str, int]
    """Number of workers that wait, by dependency; without those for which none waits."""
    lag: Lag | None


def read(host: str, port: int, seconds: float) -> HostMetrics:
    """Return the state of the host. Blocks for `seconds` at most, apart from the look-up of its name.

    Raises Unavailable, with a reason that has nothing of the answer in it.
    """
    status, text = _get(host, port, "/metrics", seconds)
    if status != http.client.OK:
        raise Unavailable(f"answers {status}")
    ready, _ = _get(host, port, "/readyz", seconds)
    return parse(text, is_ready=ready == http.client.OK)


def parse(text: str, *, is_ready: bool) -> HostMetrics:
    """Return the state in a text of Prometheus' format. Raises Unavailable for another program's."""
    values: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for name, labels, value in _samples(text):
        values[name].append((labels, value))

    def total(name: str) -> int:
        return round(sum(value for _, value in values[name]))

    def by_partition(name: str) -> dict[int, float]:
        return {
            int(labels["partition"]): value
            for labels, value in values[name]
            if _PARTITION.fullmatch(labels.get("partition", ""))
        }

    builds = values["analytics_build_info"]
    if not builds:
        raise Unavailable("answers without the metrics of this service")
    version = builds[0][0].get("version", "")
    measured_at = [value for _, value in values["analytics_lag_updated_timestamp_seconds"]]
    messages = by_partition("analytics_lag_messages")
    return HostMetrics(
        version=version if _VERSION.fullmatch(version) else "unknown",
        is_ready=is_ready,
        workers=sum(
            _WORKER.fullmatch(labels.get("process", "")) is not None
            for labels, _ in values["analytics_process_resident_bytes"]
        ),
        partitions=total("analytics_assigned_partitions"),
        inserted=total("analytics_events_inserted_total"),
        dead_letters=total("analytics_dead_letters_total"),
        restarts=total("analytics_process_restarts_total"),
        batches_waiting=total("analytics_batches_waiting"),
        waiting={
            dependency: round(number)
            for dependency in DEPENDENCIES
            if (
                number := sum(
                    value
                    for labels, value in values["analytics_outage"]
                    if labels.get("dependency") == dependency
                )
            )
        },
        lag=Lag(
            {number: round(value) for number, value in messages.items()},
            total("analytics_lag_held_back_messages"),
            max(by_partition("analytics_lag_seconds").values(), default=0.0),
            measured_at[0],
        )
        if measured_at
        else None,
    )


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.split("\n"):
        match = _SAMPLE.fullmatch(line) if len(line) <= _MAX_LINE else None
        if match is None:
            continue
        with contextlib.suppress(ValueError):
            value = float(match[3])
            if math.isfinite(value) and 0 <= value <= _MAX_VALUE:
                yield match[1], dict(_LABEL.findall(match[2] or "")), value


def _get(host: str, port: int, path: str, seconds: float) -> tuple[int, str]:
    """Return status and body. Raises Unavailable."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    deadline: threading.Timer | None = None
    is_late = threading.Event()
    try:
        connection.connect()
        # The socket's timeout is for each read: a server that sends one byte at a time would pass it.
        deadline = threading.Timer(seconds, _cut, (connection.sock, is_late))
        deadline.daemon = True
        deadline.start()
        connection.request("GET", path)
        # Closed explicitly: an answer without a length keeps the socket open.
        with contextlib.closing(connection.getresponse()) as answer:
            body = answer.read(MAX_BYTES + 1)
    except TimeoutError as error:
        raise Unavailable(f"no answer within {seconds:g} s") from error
    except socket.gaierror as error:
        raise Unavailable("its name cannot be resolved") from error
    except (OSError, UnicodeError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None)
        if is_late.is_set():
            reason = f"no answer within {seconds:g} s"
        elif isinstance(error, http.client.HTTPException):
            reason = "no valid HTTP answer"
        raise Unavailable(str(reason or "no connection").lower()) from error
    finally:
        if deadline is not None:
            deadline.cancel()
        connection.close()
    if is_late.is_set():
        raise Unavailable(f"no answer within {seconds:g} s")
    if len(body) > MAX_BYTES:
        raise Unavailable(f"answers with more than {MAX_BYTES >> 20} MiB")
    return answer.status, body.decode(errors="replace")


def _cut(connection: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
