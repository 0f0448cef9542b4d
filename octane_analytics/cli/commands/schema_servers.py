"""`octane-analytics schema` on every server of CLICKHOUSE_HOST, replicas and shards, in turn.

A server that fails is reported, and the others are still visited; the exit code is then not 0.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click

from octane_analytics.cli.commands import schema_rollups, schema_table
from octane_analytics.cli.commands.schema_table import CLIENT_NAME
from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import UNKNOWN_DATABASE
from octane_analytics.clickhouse.replicas import (
    ClusterFinding,
    Expectation,
    ServerFacts,
    cluster_findings,
    cluster_path_findings,
    macro_findings,
    path_findings,
)
from octane_analytics.clickhouse.rollups import Rollup
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.server_facts import expectation, read_facts, read_macros
from octane_analytics.errors import ConfigError, OctaneError, StatementRejected, Unavailable
from octane_analytics.runtime.exit_codes import Exit, exit_for
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority

_OTHER_DEFINITION = frozenset({122, 342})
"""INCOMPATIBLE_COLUMNS, METADATA_MISMATCH: the path in ZooKeeper has a table of another definition."""
_EXPLICIT_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
"""Path and replica of a table in a database that gives its tables no UUID."""
_WITH_UUID = {"show_table_uuid_in_table_create_query_if_not_nil": 1}


@dataclass(frozen=True, slots=True)
class Server:
    address: str
    shard: int
    settings: ClickHouseSettings
    """Settings with this server alone."""

    @property
    def title(self) -> str:
        return f"shard {self.shard}, {self.address}:"


@dataclass(frozen=True, slots=True)
class Request:
    """Wish of the operator: windows, rollups and kind of table."""

    window: int
    wanted: tuple[Rollup, ...]
    """Rollups that were asked for."""
    of_new_table: tuple[Rollup, ...]
    """Rollups of a table that no server has yet."""
    is_replicated: bool
    is_on_cluster: bool
    distributed: TableName | None
    """Table of all shards; None if there is one shard."""
    yes: bool


def servers_of(settings: ClickHouseSettings) -> list[Server]:
    """Return all servers, in the order of CLICKHOUSE_HOST."""
    return [
        Server(
            address := authority(*host),
            shard.number,
            replace(settings, host=address, shard_weights=()),
        )
        for shard in settings.topology().shards
        for host in shard.hosts
    ]


@dataclass(frozen=True, slots=True)
class Survey:
    facts: dict[str, ServerFacts]
    """Facts by address, of the servers that answered."""
    errors: dict[str, OctaneError]

    @property
    def present(self) -> list[ServerFacts]:
        """Servers that have the table."""
        return [server for server in self.facts.values() if server.live is not None]


def survey(settings: ClickHouseSettings) -> Survey:
    """Read the facts of all servers, one after the other."""
    expected = expectation(settings)
    facts: dict[str, ServerFacts] = {}
    errors: dict[str, OctaneError] = {}
    for server in servers_of(settings):
        try:
            facts[server.address] = _facts_of(server, expected)
        except OctaneError as error:
            errors[server.address] = error
    return Survey(facts, errors)


def _facts_of(server: Server, expected: Expectation) -> ServerFacts:
    try:
        with ClickHouse(server.settings, client_name=CLIENT_NAME) as clickhouse:
            return read_facts(clickhouse, server.address, server.shard, expected)
    except StatementRejected as error:
        if error.code != UNKNOWN_DATABASE:
            raise schema_table.with_advice(error) from error
    system = replace(server.settings, database="system")
    with ClickHouse(system, client_name=CLIENT_NAME) as clickhouse:
        macros = read_macros(clickhouse)
    return ServerFacts(server.address, server.shard, macros=macros)


def findings(settings: ClickHouseSettings, found: Survey) -> list[ClusterFinding]:
    """Return what differs between the servers that answered."""
    servers = list(found.facts.values())
    differences = list(cluster_findings(servers, expectation(settings)))
    if not found.errors:
        differences += cluster_path_findings(servers)
    return differences


def apply(settings: ClickHouseSettings, request: Request) -> Exit:
    """Create or widen on each server what is missing, and print it per server.

    Return OK if every server was reached and has all. Changes nothing if the servers that answer
    contradict CLICKHOUSE_HOST, or if new tables would.
    """
    before = survey(settings)
    if not before.facts:
        raise next(iter(before.errors.values()))
    if code := _refused(settings, before, request):
        return code
    is_new = not before.present
    if request.is_on_cluster and is_new:
        _create_on_cluster(settings, before, request)
        before = survey(settings)
    with_table = {facts.address for facts in before.present}
    # A new replica copies the definition of one that has the table, with its rollups.
    servers = sorted(servers_of(settings), key=lambda server: server.address not in with_table)
    rollups = request.of_new_table if is_new else request.wanted
    done: list[Server] = []
    failed: list[OctaneError] = []
    for server in servers:
        click.echo(server.title)
        try:
            sources = [each for each in servers if each.address in with_table] + done
            code = _Visit(server, request, sources).run(rollups, done)
        except OctaneError as error:
            click.echo(f"not done: {error}")
            failed.append(error)
            continue
        if code is not Exit.OK:
            return code
        done.append(server)
    if not failed:
        return Exit.OK
    names = ", ".join(server.address for server in servers if server not in done)
    click.echo(f"not done on {names}: repeat the command when the reason is removed", err=True)
    return exit_for_all(failed)


def exit_for_all(errors: Sequence[OctaneError]) -> Exit:
    """Return the exit code that all the errors have in common, otherwise FAILED."""
    codes = {exit_for(error) for error in errors}
    return codes.pop() if len(codes) == 1 else Exit.FAILED


def _refused(settings: ClickHouseSettings, before: Survey, request: Request) -> Exit | None:
    servers = list(before.facts.values())
    is_plain = not request.is_replicated and not any(f.replica for f in before.present)
    several = [shard for shard in settings.topology().shards if len(shard.hosts) > 1]
    if is_plain and several and not before.present:
        raise ConfigError(
            f"shard {several[0].number} of CLICKHOUSE_HOST has {len(several[0].hosts)} servers, which "
            "must be replicas of one table: add --replicated"
        )
    refusals = list(path_findings(servers))
    if not is_plain and len(before.present) < len(servers_of(settings)):
        refusals += macro_findings(servers)
    for finding in refusals:
        click.echo(f"refused: {finding.text}")
    if refusals:
        click.echo("nothing was changed", err=True)
        return Exit.FAILED
    return None


def _create_on_cluster(settings: ClickHouseSettings, before: Survey, request: Request) -> None:
    """Create database and table by one statement each, run on the first server that answered."""
    cluster = settings.cluster
    if cluster is None:
        raise ConfigError("--on-cluster needs CLICKHOUSE_CLUSTER, the name of the cluster")
    first = next(server for server in servers_of(settings) if server.address in before.facts)
    click.echo(f"{first.title} ON CLUSTER {schema.identifier(cluster)}")
    schema_table.create_database(first.settings, cluster)
    with ClickHouse(first.settings, client_name=CLIENT_NAME) as clickhouse:
        schema_table.execute(
            clickhouse,
            schema.create_replicated_table(clickhouse.table, request.window, cluster=cluster),
        )
    click.echo(f"created table {TableName(settings.database, settings.table)}")


class _Visit:
    """Changes on one server. `sources` are servers that have the table."""

    def __init__(self, server: Server, request: Request, sources: Sequence[Server]) -> None:
        self._server = server
        self._settings = server.settings
        self._request = request
        self._sources = sources

    def run(self, rollups: tuple[Rollup, ...], done: Sequence[Server]) -> Exit:
        with ClickHouse(self._settings, client_name=CLIENT_NAME) as clickhouse:
            schema_table.ensure_database(clickhouse, self._settings)
            live = schema_table.describe(clickhouse)
            create = "" if live else self._creation(clickhouse)
            live = self._ensured(clickhouse, create)
            if self._request.is_replicated and not live.is_replicated:
                raise ConfigError(
                    f"{clickhouse.table} is a {live.engine}, not a replica: convert it with ATTACH "
                    f"TABLE {clickhouse.table} AS REPLICATED, or recreate it"
                )
            is_first = all(other.shard != self._server.shard for other in done)
            if is_first or not live.is_replicated:
                code = schema_rollups.apply(clickhouse, rollups, yes=self._request.yes)
                if code is not Exit.OK:
                    return code
            else:
                schema_rollups.follow(clickhouse, rollups)
            self._ensure_distributed(clickhouse)
        return Exit.OK

    def _ensured(self, clickhouse: ClickHouse, create: str) -> LiveTable:
        try:
            live, _ = schema_table.ensure(clickhouse, self._settings, create, self._request.window)
        except StatementRejected as error:
            if error.code not in _OTHER_DEFINITION:
                raise
            raise Unavailable(
                f"replicas of shard {self._server.shard} that cannot be reached have another definition "
                f"of {clickhouse.table}, such as rollups: repeat the command when one of them can"
            ) from error
        return live

    def _ensure_distributed(self, clickhouse: ClickHouse) -> None:
        """Create the Distributed table if there are several shards and the server lacks it."""
        name, cluster = self._request.distributed, self._settings.cluster
        if name is None or cluster is None or clickhouse.exists(name):
            return
        statement = schema.create_distributed_table(name, clickhouse.table, cluster)
        schema_table.execute(clickhouse, statement)
        click.echo(f"created table {name}, which reads cluster {cluster}")

    def _creation(self, clickhouse: ClickHouse) -> str:
        """Return the statement that creates the table here, like the servers that have it."""
        in_shard = [each for each in self._sources if each.shard == self._server.shard]
        for source in in_shard or self._sources:
            with ClickHouse(source.settings, client_name=CLIENT_NAME) as other:
                live = schema_table.describe(other)
                if live is None:
                    continue
                if live.is_replicated:
                    return self._copied(other, source, is_of_shard=bool(in_shard))
                if not in_shard and not self._request.is_replicated:
                    return _definition(other)
                if in_shard:
                    raise ConfigError(
                        f"{other.table} at {source.address} is a {live.engine}, and a replica cannot "
                        f"join it: convert it with ATTACH TABLE {other.table} AS REPLICATED first"
                    )
        if self._request.is_replicated:
            return self._new_replica(clickhouse)
        return schema.create_table(clickhouse.table, self._request.window)

    def _copied(self, other: ClickHouse, source: Server, *, is_of_shard: bool) -> str:
        definition = _definition(other, _WITH_UUID)
        if not is_of_shard and "{shard}" not in definition:
            raise ConfigError(
                f"{other.table} at {source.address} has a path without the macro {{shard}}: a copy in "
                "another shard would be its replica; create the table here by hand"
            )
        return definition

    def _new_replica(self, clickhouse: ClickHouse) -> str:
        table, window = clickhouse.table, self._request.window
        found = clickhouse.select(
            "SELECT engine FROM system.databases WHERE name = {name:String}",
            {"name": table.database},
        ).rows
        engine = found[0][0] if found else ""
        if engine == "Replicated":  # the database creates it on its other servers
            return schema.create_replicated_table(table, window)
        if engine == "Atomic":
            # The same on every server, also if some of them are visited later.
            names = (self._settings.cluster or "", table.database, table.table)
            own = uuid.uuid5(uuid.NAMESPACE_OID, "\0".join(("octane-analytics", *names)))
            return schema.create_replicated_table(table, window, uuid=own)
        return schema.create_replicated_table(table, window, arguments=_EXPLICIT_PATH)


def _definition(clickhouse: ClickHouse, settings: Mapping[str, object] | None = None) -> str:
    found = clickhouse.select(f"SHOW CREATE TABLE {clickhouse.table}", settings=settings)
    return str(found.rows[0][0])
