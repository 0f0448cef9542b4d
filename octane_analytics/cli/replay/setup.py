"""Checks and preparation of a replay: server, target, rights and range."""

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from octane_analytics.clickhouse import replay_tables, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_fit import require_fit
from octane_analytics.clickhouse.table_ttl import setting_of
from octane_analytics.errors import ConfigError, NeedsOperator, StatementRejected, Unavailable
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.group_offsets import settled_offsets
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.replay.ranges import LogFacts, RequestedRange, resolve
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority
from octane_analytics.types import OffsetRange


def pin_to_first_host(settings: ClickHouseSettings, *, client_name: str) -> ClickHouseSettings:
    """Return the settings with only the first server that answers, because staging tables are on one.

    Raises Unavailable if none answers.
    """
    hosts = settings.hosts()
    for number, (host, port) in enumerate(hosts):
        single = replace(settings, host=authority(host, port), shard_weights=())
        with ClickHouse(single, client_name=client_name) as clickhouse:
            try:
                clickhouse.select("SELECT 1")
            except NeedsOperator:
                raise
            except Unavailable:
                if number + 1 == len(hosts):
                    raise
            except StatementRejected:
                return single  # the server answers; later statements report the reason
            else:
                return single
    return settings


def peers_of(pinned: ClickHouseSettings, whole: ClickHouseSettings) -> list[ClickHouseSettings]:
    """Return the settings of each other replica of the server's shard."""
    (own,) = pinned.hosts()
    hosts = next(shard.hosts for shard in whole.topology().shards if own in shard.hosts)
    return [replace(pinned, host=authority(*address)) for address in hosts if address != own]


def check_shards(clickhouse: ClickHouse, settings: ClickHouseSettings, mode: Mode) -> None:
    """Check the shards of the target and its Distributed table on the server of the staging tables.

    Blocks on all shards. Raises NeedsOperator, ConfigError and Unavailable.
    """
    for own in settings.of_each_shard():
        with ClickHouse(own, client_name="octane-analytics replay") as shard:
            if mode is Mode.REBUILD:
                check_target(shard, mode)  # each shard builds its months
            else:
                require_fit(shard.table, shard.describe(), window_user="an interrupted replay")
    table = TableName(settings.database, settings.read_table)
    if not clickhouse.select(f"EXISTS TABLE {table}").rows[0][0]:
        raise NeedsOperator(
            f"table {table} does not exist: create it with `octane-analytics schema apply`"
        )
    if not _has(clickhouse, "SELECT", str(table)):
        raise NeedsOperator(f"GRANT SELECT ON {table} TO {settings.user}")
    _require_distributed(clickhouse, settings, table)
    query = "SELECT count() FROM system.clusters WHERE cluster = {cluster:String}"
    replicas = clickhouse.select(query, {"cluster": settings.cluster}).rows[0][0]
    if replicas != len(settings.hosts()):
        raise ConfigError(
            f"cluster {settings.cluster} has {replicas} servers, and CLICKHOUSE_HOST lists "
            f"{len(settings.hosts())}: list the same ones, because a comparison waits until each has "
            "every row"
        )


def _require_distributed(
    clickhouse: ClickHouse, settings: ClickHouseSettings, table: TableName
) -> None:
    """Raise ConfigError unless the table reads every shard: rows that it does not show would be inserted
    again. A shard that is away fails a statement only if the table does not skip it by itself."""
    local, cluster = clickhouse.table, settings.cluster or ""
    engine_full = clickhouse.select(
        "SELECT engine_full FROM system.tables "
        "WHERE database = {database:String} AND name = {table:String}",
        {"database": table.database, "table": table.table},
    ).rows[0][0]
    skips = setting_of(engine_full, "skip_unavailable_shards")
    if skips not in ("", "0", "false") or not schema.reads_cluster(engine_full, local, cluster):
        raise ConfigError(
            f"table {table} is {engine_full}, not "
            f"Distributed({schema.distributed_arguments(local, cluster)}): rows that it does not read "
            "would be inserted again; drop it and run `octane-analytics schema apply`"
        )


def require_one_time_zone(settings: ClickHouseSettings) -> None:
    """Raise ConfigError if servers have different time zones: months begin at midnight of the server's
    zone, and a month that is built on one would replace other rows on the next. Blocks on all servers;
    one that cannot be reached is left out."""
    zones: dict[str, str] = {}
    for address in settings.hosts():
        where = authority(*address)
        single = replace(settings, host=where, shard_weights=())
        with (
            contextlib.suppress(Unavailable),
            ClickHouse(single, client_name="octane-analytics replay") as server,
        ):
            zones[where] = server.select("SELECT timezone()").rows[0][0]
    if len(set(zones.values())) > 1:
        listed = ", ".join(f"{where}: {zone}" for where, zone in zones.items())
        raise ConfigError(
            f"servers have different time zones ({listed}), and a month begins at midnight of the "
            "server's: use --mode fill, or give all servers one <timezone>"
        )


def require_unsharded(clickhouse: ClickHouse, settings: ClickHouseSettings) -> None:
    """Raise ConfigError if the server is one of several shards of CLICKHOUSE_CLUSTER, as far as the user
    may see that: rows of other shards would be inserted again."""
    if settings.cluster is None:
        return
    query = "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}"
    with contextlib.suppress(StatementRejected):
        ((shards,),) = clickhouse.select(query, {"cluster": settings.cluster}).rows
        if shards > 1:
            raise ConfigError(
                f"cluster {settings.cluster} has {shards} shards, CLICKHOUSE_HOST lists one of them: "
                "a replay would insert again what the others have; list all of them"
            )


def check_target(clickhouse: ClickHouse, mode: Mode) -> LiveTable:
    """Return the target table. Raises NeedsOperator or ConfigError if it is missing or unsuitable."""
    table = clickhouse.table
    live = require_fit(table, clickhouse.describe(), window_user="an interrupted replay")
    types = {column.name: column.type for column in live.columns}
    others = [c for c in schema.COLUMNS if types[c.name] != c.type]
    if mode is Mode.REBUILD and others:
        listed = ", ".join(f"{c.name} as {types[c.name]}, not as {c.type}" for c in others)
        raise ConfigError(
            f"table {table} has {listed}, but rebuild replaces partitions with those of a table of the "
            "expected schema: use --mode fill"
        )
    if mode is Mode.REBUILD and live.partition_key != schema.PARTITION_KEY:
        raise ConfigError(
            f"table {table} is partitioned by {live.partition_key or 'nothing'}, but rebuild "
            f"replaces partitions by {schema.PARTITION_KEY}: use --mode fill"
        )
    _check_rights(clickhouse, live, mode)
    return live


def sees_inserts(clickhouse: ClickHouse) -> bool:
    """Return whether the user may see the statements that are running."""
    return _has(clickhouse, "SELECT", "system.processes")


def _check_rights(clickhouse: ClickHouse, live: LiveTable, mode: Mode) -> None:
    """Check all rights together, so that one round of grants is enough. Raises NeedsOperator."""
    table = str(clickhouse.table)
    staging_tables = f"{schema.identifier(clickhouse.table.database)}.*"
    rights = {"SELECT": table, "INSERT": table, "CREATE TABLE": staging_tables}
    rights["DROP TABLE"] = staging_tables
    if mode is Mode.REBUILD:
        rights |= {"ALTER DELETE": table, "TRUNCATE": staging_tables}
    if live.is_replicated:
        rights["SYSTEM SYNC REPLICA"] = table
    missing = [right for right, where in rights.items() if not _has(clickhouse, right, where)]
    rights["TABLE ENGINE"] = "MergeTree"
    with contextlib.suppress(StatementRejected):  # older servers do not have this right
        if not _has(clickhouse, "TABLE ENGINE", "MergeTree"):
            missing.append("TABLE ENGINE")
    if missing:
        clickhouse.check_profile()
        listed = ", ".join(f"{right} ON {rights[right]}" for right in missing)
        raise NeedsOperator(
            f"the ClickHouse user lacks {listed}: grant these rights, because a replay keeps staging "
            "tables in the database of the target"
        )


def _has(clickhouse: ClickHouse, right: str, where: str) -> bool:
    return bool(clickhouse.select(f"CHECK GRANT {right} ON {where}").rows[0][0])


def make_plan(
    log: TopicReader,
    requested: RequestedRange,
    *,
    mode: Mode,
    compare: Compare,
    target: ClickHouseSettings,
    is_live: bool,
    is_sharded: bool,
    months: Sequence[int],
) -> ReplayPlan:
    """Return the plan of a new replay. Raises BadRange, Unavailable, NeedsOperator."""
    partitions = log.partitions()
    held = log.retained_ranges(partitions)
    found = log.committed(partitions)
    known = {p: c.offset for p, c in found.items() if c.offset is not None}
    if is_live and is_sharded:
        known = settled_offsets(log.topic, found)
    committed = {p: min(offset, held[p].end) for p, offset in known.items()}
    facts = LogFacts(
        held=held,
        committed=committed,
        from_time={}
        if requested.from_time is None
        else log.at_time(requested.from_time, partitions),
        to_time={} if requested.to_time is None else log.at_time(requested.to_time, partitions),
    )
    spans = resolve(requested, facts, is_live=is_live)
    reading = dict(spans)
    if mode is not Mode.APPEND and (compare is Compare.LOG or mode is Mode.REBUILD):
        reading = {}
        for p in partitions:
            end = committed.get(p, 0)
            if p in spans:
                end = max(end, spans[p].end)
            if held[p].first < end:
                reading[p] = OffsetRange(held[p].first, end)
    return ReplayPlan(
        id=replay_tables.new_id(datetime.now(UTC), secrets.token_hex(2)),
        mode=mode,
        compare=compare,
        topic=log.topic,
        group=log.group,
        log=log.identity(),
        database=target.database,
        table=target.table,
        is_live=is_live,
        wanted=spans,
        reading=reading,
        months=tuple(sorted(set(months))),
    )
