"""Checks of several ClickHouse servers against one another: replicas, shards, Distributed table.

Read-only.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.replicas import (
    ServerFacts,
    cluster_findings,
    cluster_path_findings,
    unlisted_findings,
)
from octane_analytics.clickhouse.server_facts import expectation, read_facts
from octane_analytics.errors import OctaneError, StatementRejected
from octane_analytics.operations.checks.finding import Finding, fail, ok, warn
from octane_analytics.settings.connections import ClickHouseSettings

SUBJECT = "cluster"
_DENIED = 497


@dataclass(frozen=True, slots=True)
class CheckedReplica:
    address: str
    shard: int
    """Number of the shard in CLICKHOUSE_HOST."""
    connection: ClickHouse
    """Connection to this server alone."""


def check_cluster(
    servers: Sequence[CheckedReplica], settings: ClickHouseSettings
) -> Iterator[Finding]:
    """Yield what differs between the servers that answer; other checks report the others.

    Blocks on all of them at once.
    """
    expected = expectation(settings)

    def read(server: CheckedReplica) -> ServerFacts | OctaneError:
        try:
            return read_facts(server.connection, server.address, server.shard, expected)
        except OctaneError as error:
            return error

    with ThreadPoolExecutor(len(servers)) as threads:
        results = list(threads.map(read, servers))
    for server, result in zip(servers, results, strict=True):
        if isinstance(result, StatementRejected):
            yield warn(SUBJECT, f"{server.address} not compared: {_advice(result)}")
    found = [result for result in results if isinstance(result, ServerFacts)]
    findings = [*cluster_findings(found, expected), *unlisted_findings(found, expected)]
    if len(found) == len(servers):
        findings += cluster_path_findings(found)
    for finding in findings:
        yield (fail if finding.is_refusal else warn)(SUBJECT, finding.text)
    present = [facts for facts in found if facts.live is not None]
    if present and not findings:
        shards = len({facts.shard for facts in present})
        yield ok(SUBJECT, f"{len(present)} servers of {shards} shards agree")


def _advice(error: StatementRejected) -> str:
    if error.code == _DENIED:
        return "GRANT SELECT ON system.replicas, system.clusters, system.macros to CLICKHOUSE_USER"
    return str(error)
