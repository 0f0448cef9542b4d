"""Shards and replicas of ClickHouse, as CLICKHOUSE_HOST and CLICKHOUSE_SHARD_WEIGHTS list them.

Commas separate the replicas of a shard, semicolons the shards: `ch1a,ch1b;ch2a,ch2b`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from octane_analytics.errors import ConfigError

_AUTHORITY = re.compile(r"(?:\[([^\[\]\s]+)\]|([^:;\[\]\s]+))(?::([0-9]{1,5}))?")
"""Host name, IPv4 address or bracketed IPv6 address, with an optional port."""

Address = tuple[str, int]
"""Host and port of a server."""


@dataclass(frozen=True, slots=True)
class Shard:
    number: int
    """Place in CLICKHOUSE_HOST, from 1. For messages only: shards may be added and reordered."""
    hosts: tuple[Address, ...]
    """Replicas, in the order of preference."""
    weight: int = 1
    """Share of new batches, compared with the other shards; 0: no new batches."""

    @property
    def authorities(self) -> tuple[str, ...]:
        """Replicas as `host:port`."""
        return tuple(authority(*address) for address in self.hosts)


@dataclass(frozen=True, slots=True)
class Topology:
    shards: tuple[Shard, ...]

    @property
    def is_sharded(self) -> bool:
        return len(self.shards) > 1

    @property
    def replicas(self) -> int:
        """Number of servers of the largest shard."""
        return max(len(shard.hosts) for shard in self.shards)

    @property
    def hosts(self) -> tuple[Address, ...]:
        """Servers of all shards, in the order of CLICKHOUSE_HOST."""
        return tuple(address for shard in self.shards for address in shard.hosts)


def authority(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(text: str, default_port: int, weights: Sequence[int] = ()) -> Topology:
    """Return the topology that CLICKHOUSE_HOST describes; `weights` are in the order of the shards.

    Raise ConfigError for an entry that is not a host or host:port, for a shard without servers, for a
    server of two shards, and for weights that do not fit.
    """
    groups = text.split(";")
    for number, group in enumerate(groups, 1):
        if len(groups) > 1 and not group.strip():
            raise ConfigError(
                f"CLICKHOUSE_HOST: shard {number} has no servers; separate the replicas of a shard by "
                "commas and shards by semicolons, for example ch1a,ch1b;ch2a,ch2b"
            )
    hosts = [tuple(_address(entry, default_port) for entry in group.split(",")) for group in groups]
    _require_distinct(hosts)
    _check_weights(weights, len(hosts))
    return Topology(
        tuple(
            Shard(number, addresses, weight)
            for number, (addresses, weight) in enumerate(
                zip(hosts, weights or [1] * len(hosts), strict=True), 1
            )
        )
    )


def parse_address(entry: str, default_port: int) -> Address | None:
    """Return host and port of `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; None for anything else."""
    match = _AUTHORITY.fullmatch(entry.strip())
    host, port = (match[1] or match[2], match[3] or str(default_port)) if match else ("", "")
    return (host, int(port)) if host and 1 <= int(port) <= 65535 else None


def _address(entry: str, default_port: int) -> Address:
    address = parse_address(entry, default_port)
    if address is None:
        raise ConfigError(
            f"CLICKHOUSE_HOST: {entry.strip()!r} is not a host or host:port; write for "
            "example ch1.example.com,ch2.example.com:9440,[2001:db8::1]:9000"
        )
    return address


def _require_distinct(shards: Sequence[Sequence[Address]]) -> None:
    """Raise ConfigError if a server is in two shards, whose rows would be read and written twice, or
    twice in one, where it would count as two replicas."""
    shard_of: dict[Address, int] = {}
    for number, addresses in enumerate(shards, 1):
        for host, port in addresses:
            if (first := shard_of.get((host.lower(), port))) is None:
                shard_of[host.lower(), port] = number
            elif first == number:
                raise ConfigError(
                    f"CLICKHOUSE_HOST: {authority(host, port)} is listed twice; list each server once"
                )
            else:
                raise ConfigError(
                    f"CLICKHOUSE_HOST: {authority(host, port)} is in shards {first} and {number}; "
                    "list each server in one shard"
                )


def _check_weights(weights: Sequence[int], shards: int) -> None:
    if weights and len(weights) != shards:
        raise ConfigError(
            f"CLICKHOUSE_SHARD_WEIGHTS has {len(weights)} weights, CLICKHOUSE_HOST has {shards} "
            "shards: write one weight for each shard, in the same order, or none"
        )
    if weights and not any(weights):
        raise ConfigError(
            "CLICKHOUSE_SHARD_WEIGHTS is 0 for every shard, and no shard would receive batches: "
            "give at least one a weight above 0"
        )
