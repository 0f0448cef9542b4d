"""State of a consumer group over the hosts that serve it, with nothing counted twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octane_analytics.telemetry.host_metrics import HostMetrics, Lag

STALE_SECONDS = 120.0
"""Age after which lag is unknown, as in the alert AnalyticsLagUnknown."""

NAME_WIDTH = 30


@dataclass(frozen=True, slots=True)
class HostStatus:
    name: str
    metrics: HostMetrics | None
    """None if the host does not answer."""
    problem: str = ""
    """Reason why it does not answer."""
    events_per_second: float | None = None
    """Rate since the previous reading; None for the first one."""

    @property
    def short_name(self) -> str:
        """Name in at most NAME_WIDTH characters."""
        return self.name if len(self.name) <= NAME_WIDTH else f"{self.name[: NAME_WIDTH - 1]}…"

    @property
    def is_healthy(self) -> bool:
        return self.metrics is not None and self.metrics.is_ready

    @property
    def state(self) -> str:
        """Return a phrase: ready, or why not."""
        if self.metrics is None:
            return f"no answer: {self.problem}"
        if self.metrics.waiting:
            waits = (f"{number} for {name}" for name, number in self.metrics.waiting.items())
            return f"workers wait: {', '.join(waits)}"
        return "ready" if self.metrics.is_ready else "not ready"


@dataclass(frozen=True, slots=True)
class GroupStatus:
    hosts: Sequence[HostStatus]
    now: float
    """Epoch seconds of the reading."""

    @property
    def answering(self) -> list[HostMetrics]:
        return [host.metrics for host in self.hosts if host.metrics is not None]

    @property
    def is_healthy(self) -> bool:
        """Return whether every host answers and is ready."""
        return all(host.is_healthy for host in self.hosts)

    @property
    def lag(self) -> Lag | None:
        """Return the lag of the whole group, which every host measures: the latest measurement. None if
        none is recent."""
        lags = [metrics.lag for metrics in self.answering if metrics.lag is not None]
        latest = max(lags, key=lambda lag: lag.measured_at, default=None)
        if latest is None or self.now - latest.measured_at > STALE_SECONDS:
            return None
        return latest

    def total(self, name: str) -> int:
        """Return the sum of a count over the hosts that answer."""
        return sum(getattr(metrics, name) for metrics in self.answering)

    @property
    def events_per_second(self) -> float | None:
        rates = [
            host.events_per_second for host in self.hosts if host.events_per_second is not None
        ]
        return sum(rates) if rates else None

    def notes(self) -> list[str]:
        """Return sentences about what the hosts disagree on."""
        found = []
        versions = self._versions()
        if len(versions) > 1:
            listed = "; ".join(f"{version} on {_some(names)}" for version, names in versions)
            found.append(f"hosts run different versions: {listed}")
        topics = {frozenset(each.lag.messages) for each in self.answering if each.lag is not None}
        owned = self.total("partitions")
        if len(topics) > 1:
            found.append(
                "hosts report different partitions: they do not serve one group, or one has stale lag"
            )
        elif topics:
            partitions = len(next(iter(topics)))
            if owned > partitions:
                found.append(
                    f"hosts own {owned} of {partitions} partitions: a rebalance is in progress, or they "
                    "do not serve one group"
                )
            elif owned < partitions:
                found.append(
                    f"{partitions - owned} of {partitions} partitions are not owned by a worker of the "
                    "hosts that answer"
                )
        return found

    def _versions(self) -> list[tuple[str, list[str]]]:
        """Return the hosts by their versions, the version of the fewest hosts first."""
        found: dict[str, list[str]] = {}
        for host in self.hosts:
            if host.metrics is not None:
                found.setdefault(host.metrics.version, []).append(host.short_name)
        return sorted(found.items(), key=lambda item: (len(item[1]), item[0]))

    def as_json(self) -> dict[str, Any]:
        """Return the state as values for JSON."""
        lag = self.lag
        rate = self.events_per_second
        return {
            "is_healthy": self.is_healthy,
            "hosts": [_host_json(host) for host in self.hosts],
            "total": {
                **{name: self.total(name) for name in _COUNTS},
                "events_per_second": None if rate is None else round(rate, 1),
                "lag": None if lag is None else sum(lag.messages.values()),
                "held_back": None if lag is None else lag.held_back,
                "lag_seconds": None if lag is None else lag.seconds,
            },
            "notes": self.notes(),
        }


_NAMED = 3
"""Hosts that are named one by one."""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names):,} hosts"


_COUNTS = ("workers", "partitions", "inserted", "dead_letters", "restarts", "batches_waiting")


def _host_json(host: HostStatus) -> dict[str, Any]:
    metrics, rate = host.metrics, host.events_per_second
    counts: Mapping[str, Any] = {
        name: None if metrics is None else getattr(metrics, name) for name in _COUNTS
    }
    return {
        "host": host.name,
        "is_answering": metrics is not None,
        "problem": host.problem,
        "is_ready": host.is_healthy,
        "version": None if metrics is None else metrics.version,
        **counts,
        "waiting": {} if metrics is None else dict(metrics.waiting),
        "events_per_second": None if rate is None else round(rate, 1),
    }
