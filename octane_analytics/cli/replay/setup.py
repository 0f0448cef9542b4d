"""Checks and preparation of a replay: target, rights, range, and the leftovers of other replays."""

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from octane_analytics.clickhouse import replay_tables, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.schema import LiveTable, TableName
from octane_analytics.clickhouse.table_fit import require_fit
from octane_analytics.clickhouse.table_ttl import setting_of
from octane_analytics.errors import ConfigError, NeedsOperator, StatementRejected, Unavailable
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.interfaces import JournalEntry
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan, from_json
from octane_analytics.replay.ranges import BadRange, LogFacts, RequestedRange, resolve
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority
from octane_analytics.types import OffsetRange

ENDED, DRY = "ended", "dry"
"""Kinds of journal entries: the replay is done and its tables can be dropped; it was a dry run."""
_ALIVE_SECONDS = 120.0
"""Age of the last journal entry from which a replay on another machine counts as dead."""


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
    months: Sequence[int],
) -> ReplayPlan:
    """Return the plan of a new replay. Raises BadRange, Unavailable, NeedsOperator."""
    partitions = log.partitions()
    held = log.retained_ranges(partitions)
    known = {p: c.offset for p, c in log.committed(partitions).items() if c.offset is not None}
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


def load_interrupted(
    clickhouse: ClickHouseSink,
    live: LiveTable,
    replay_id: str,
    *,
    is_live: bool,
    peers: Sequence[ClickHouseSettings] = (),
) -> tuple[ReplayPlan, str | None]:
    """Return the plan of an interrupted replay and, if it was done, the journal entry of its report.

    Drops the tables of a replay that was done. Raises BadRange if it cannot be resumed.
    """
    if replay_id not in replay_tables.find_unfinished(clickhouse):
        raise BadRange(
            f"interrupted replay {replay_id} not found in the database of {clickhouse.table}: it was "
            "finished, or a later replay dropped its tables; start a new one"
        )
    staging = ReplayStaging(clickhouse, replay_id, live, peers=peers)
    entries = staging.journal_entries() if staging.has_journal() else []
    plan = _plan_of(entries)
    if plan is None:
        raise BadRange(f"replay {replay_id} was killed before it began: start a new one")
    if _body_of(entries, DRY) is not None:
        raise BadRange(f"replay {replay_id} was a dry run and cannot be resumed: start a new one")
    if (plan.database, plan.table, plan.is_live) != (*_names(clickhouse), is_live):
        raise BadRange(
            f"replay {replay_id} has the target {plan.database}.{plan.table}: give the same --target"
        )
    owner = running_owner(entries)
    if owner is not None:
        raise BadRange(f"replay {replay_id} is running: {owner}")
    ended = _body_of(entries, ENDED)
    if ended is not None:
        staging.drop()
    return plan, ended


def clean_up(
    clickhouse: ClickHouseSink, live: LiveTable, peers: Sequence[ClickHouseSettings] = ()
) -> None:
    """Drop the tables of dead replays. Raises ConfigError if a running one has the same target."""
    for replay_id in replay_tables.find_unfinished(clickhouse):
        staging = ReplayStaging(clickhouse, replay_id, live, peers=peers)
        entries = _entries_of(staging)
        plan = _plan_of(entries)
        owner = running_owner(entries)
        has_same_target = plan is None or (plan.database, plan.table) == _names(clickhouse)
        if owner is not None:
            if has_same_target:
                raise ConfigError(f"replay {replay_id} works on {clickhouse.table}: {owner}")
            continue
        is_done = _body_of(entries, ENDED) is not None or _body_of(entries, DRY) is not None
        is_resumable = plan is not None and plan.mode is Mode.APPEND and not is_done
        if is_resumable and has_same_target:
            click.echo(
                f"an append was interrupted: resume it with --resume {replay_id}, or give it up and "
                f"drop the tables {replay_tables.PREFIX}{replay_id}_…",
                err=True,
            )
            continue
        if is_resumable:
            continue
        staging.drop()
        click.echo(f"dropped the tables of replay {replay_id}, which was killed", err=True)


def require_alone(clickhouse: ClickHouseSink, live: LiveTable) -> None:
    """Raise ConfigError if another process runs a replay with the same target.

    Called with the own process in the journal: of two that begin at the same time, which `clean_up` does
    not see, one at least finds the other.
    """
    for replay_id in replay_tables.find_unfinished(clickhouse):
        entries = _entries_of(ReplayStaging(clickhouse, replay_id, live))
        plan, owner = _plan_of(entries), running_owner(entries)
        has_same_target = plan is None or (plan.database, plan.table) == _names(clickhouse)
        if owner is not None and has_same_target:
            raise ConfigError(f"replay {replay_id} works on {clickhouse.table}: {owner}")


def _entries_of(staging: ReplayStaging) -> Sequence[JournalEntry]:
    with contextlib.suppress(StatementRejected):  # another process has just dropped the table
        if staging.has_journal():
            return staging.journal_entries()
    return ()


def process_identity() -> str:
    """Return JSON that identifies this process, also after its PID has been reused."""
    return identity_of(os.getpid())


def identity_of(pid: int) -> str:
    """Return what `process_identity` returns in that process."""
    return json.dumps({"host": socket.gethostname(), "pid": pid, "ticks": _start_ticks(pid)})


def _plan_of(entries: Sequence[JournalEntry]) -> ReplayPlan | None:
    body = _body_of(entries, "plan")
    return None if body is None else from_json(body)


def _body_of(entries: Sequence[JournalEntry], kind: str) -> str | None:
    return next((entry.body for entry in entries if entry.kind == kind), None)


def running_owner(entries: Sequence[JournalEntry]) -> str | None:
    """Return a description of another process that runs the replay; None if there is none.

    A process that was refused has left an entry after that of the running one.
    """
    own = process_identity()
    others = [entry for entry in entries if entry.body != own]
    if not others or others[-1].kind == "stopped":
        return None
    for owner in [json.loads(entry.body) for entry in others[::-1] if entry.kind == "owner"]:
        if owner["host"] == socket.gethostname():
            is_alive = _start_ticks(owner["pid"]) == owner["ticks"]
        else:
            is_alive = others[-1].age_seconds < _ALIVE_SECONDS
        if is_alive:
            return f"process {owner['pid']} on {owner['host']}"
    return None


def _names(clickhouse: ClickHouse) -> tuple[str, str]:
    return clickhouse.table.database, clickhouse.table.table


def _start_ticks(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot, as in proc(5); None if it has exited."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
