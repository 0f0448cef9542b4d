"""What must be right before a replay touches anything: target, rights, range, and what others left."""

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

from octane_analytics.clickhouse import replay_staging, schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.replay_staging import ReplayStaging
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.clickhouse.table_fit import require_fit
from octane_analytics.errors import ConfigError, NeedsOperator, StatementRejected, Unavailable
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.replay.interfaces import JournalEntry
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan, from_json
from octane_analytics.replay.ranges import BadRange, LogFacts, RequestedRange, resolve
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.types import OffsetRange

ENDED, DRY = "ended", "dry"
"""Kinds of notes: all is done and what is left is to be dropped; nothing is to be inserted."""
_ALIVE_SECONDS = 120.0
"""A replay on another machine that has noted nothing for so long is dead."""


def pin_to_first_host(settings: ClickHouseSettings, *, client_name: str) -> ClickHouseSettings:
    """With the first server alone that answers: staging tables are on one. Raises Unavailable."""
    hosts = settings.hosts()
    for number, (host, port) in enumerate(hosts):
        one = replace(settings, host=f"[{host}]" if ":" in host else host, port=port)
        with ClickHouse(one, client_name=client_name) as clickhouse:
            try:
                clickhouse.select("SELECT 1")
            except NeedsOperator:
                raise
            except Unavailable:
                if number + 1 == len(hosts):
                    raise
            except StatementRejected:
                return one  # it answers; what it dislikes is told where it matters
            else:
                return one
    return settings


def check_target(clickhouse: ClickHouse, mode: Mode) -> LiveTable:
    """The target. Raises NeedsOperator or ConfigError where it is missing or not fit for it."""
    table = clickhouse.table
    live = require_fit(table, clickhouse.describe(), window_user="an interrupted replay")
    types = {column.name: column.type for column in live.columns}
    others = [c for c in schema.COLUMNS if types[c.name] != c.type]
    if mode is Mode.REBUILD and others:
        listed = ", ".join(f"{c.name} as {types[c.name]}, not as {c.type}" for c in others)
        raise ConfigError(
            f"table {table} has {listed}, and rebuild replaces partitions by those of a table of the "
            "expected schema: use --mode fill"
        )

    if mode is Mode.REBUILD and live.partition_key != schema.PARTITION_KEY:
        raise ConfigError(
            f"table {table} is partitioned by {live.partition_key or 'nothing'}, and rebuild "
            f"replaces partitions by {schema.PARTITION_KEY}: use --mode fill"
        )
    _check_rights(clickhouse, live, mode)
    return live


def _check_rights(clickhouse: ClickHouse, live: LiveTable, mode: Mode) -> None:
    """All at once, so that granting them takes one round. Raises NeedsOperator."""
    table = str(clickhouse.table)
    beside = f"{schema.identifier(clickhouse.table.database)}.*"
    rights = {"SELECT": table, "INSERT": table, "CREATE TABLE": beside, "DROP TABLE": beside}
    if mode is Mode.REBUILD:
        rights |= {"ALTER DELETE": table, "TRUNCATE": beside}
    if live.is_replicated:
        rights["SYSTEM SYNC REPLICA"] = table
    lacking = [right for right, where in rights.items() if not _has(clickhouse, right, where)]
    rights["TABLE ENGINE"] = "MergeTree"
    with contextlib.suppress(StatementRejected):  # a server older than this right
        if not _has(clickhouse, "TABLE ENGINE", "MergeTree"):
            lacking.append("TABLE ENGINE")
    if lacking:
        clickhouse.check_profile()
        listed = ", ".join(f"{right} ON {rights[right]}" for right in lacking)
        raise NeedsOperator(
            f"the ClickHouse user lacks {listed}: grant that, for a replay keeps staging tables "
            "beside the target"
        )


def _has(clickhouse: ClickHouse, right: str, where: str) -> bool:
    return bool(clickhouse.select(f"CHECK GRANT {right} ON {where}").rows[0][0])


def planned(
    log: TopicReader,
    wanted: RequestedRange,
    *,
    mode: Mode,
    compare: Compare,
    target: ClickHouseSettings,
    is_live: bool,
    months: Sequence[int],
) -> ReplayPlan:
    """Raises BadRange, Unavailable, NeedsOperator."""
    partitions = log.partitions()
    held = log.held(partitions)
    known = {p: c.offset for p, c in log.committed(partitions).items() if c.offset is not None}
    committed = {p: min(offset, held[p].end) for p, offset in known.items()}
    facts = LogFacts(
        held=held,
        committed=committed,
        from_time={} if wanted.from_time is None else log.at_time(wanted.from_time, partitions),
        to_time={} if wanted.to_time is None else log.at_time(wanted.to_time, partitions),
    )
    spans = resolve(wanted, facts, is_live=is_live)
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
        id=replay_staging.new_id(datetime.now(UTC), secrets.token_hex(2)),
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


def resumed(
    clickhouse: ClickHouseSink, live: LiveTable, replay_id: str, *, is_live: bool
) -> tuple[ReplayPlan, str | None]:
    """The plan of an interrupted replay, and the note of its report where it had ended.

    Raises BadRange where there is none to go on with. What an ended one has left is dropped.
    """
    if replay_id not in replay_staging.find_unfinished(clickhouse):
        raise BadRange(
            f"there is no interrupted replay {replay_id} beside {clickhouse.table}: it was finished, "
            "or a later replay has cleaned up after it; start it anew"
        )
    bench = ReplayStaging(clickhouse, replay_id, live)
    notes = bench.journal_entries() if bench.has_journal() else []
    plan = _plan_of(notes)
    if plan is None:
        raise BadRange(f"replay {replay_id} had not begun when it died: start it anew")
    if _body_of(notes, DRY) is not None:
        raise BadRange(f"replay {replay_id} was a dry run, which cannot go on: start it anew")
    if (plan.database, plan.table, plan.is_live) != (*_names(clickhouse), is_live):
        raise BadRange(
            f"replay {replay_id} is about {plan.database}.{plan.table}: give the same --target"
        )
    owner = _living_owner(notes)
    if owner is not None:
        raise BadRange(f"replay {replay_id} is running: {owner}")
    ended = _body_of(notes, ENDED)
    if ended is not None:
        bench.drop()
    return plan, ended


def clean_up(clickhouse: ClickHouseSink, live: LiveTable) -> None:
    """Drops what dead replays have left; raises ConfigError where a living one is at work here."""
    for replay_id in replay_staging.find_unfinished(clickhouse):
        bench = ReplayStaging(clickhouse, replay_id, live)
        notes: Sequence[JournalEntry] = ()
        if bench.has_journal():
            notes = bench.journal_entries()
        plan = _plan_of(notes)
        owner = _living_owner(notes)
        is_same = plan is None or (plan.database, plan.table) == _names(clickhouse)
        if owner is not None:
            if is_same:
                raise ConfigError(f"replay {replay_id} works on {clickhouse.table}: {owner}")
            continue
        is_over = _body_of(notes, ENDED) is not None or _body_of(notes, DRY) is not None
        waits = plan is not None and plan.mode is Mode.APPEND and not is_over
        if waits and is_same:
            click.echo(
                f"an interrupted append waits for --resume {replay_id}; to give it up, drop the "
                f"tables {replay_staging.PREFIX}{replay_id}_…",
                err=True,
            )
            continue
        if waits:
            continue
        bench.drop()
        click.echo(f"dropped what replay {replay_id} left when it died", err=True)


def owner() -> str:
    """This process, in a form that tells it from a later one of the same number."""
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "ticks": _start_ticks(os.getpid())}
    )


def _plan_of(notes: Sequence[JournalEntry]) -> ReplayPlan | None:
    body = _body_of(notes, "plan")
    return None if body is None else from_json(body)


def _body_of(notes: Sequence[JournalEntry], kind: str) -> str | None:
    return next((note.body for note in notes if note.kind == kind), None)


def _living_owner(notes: Sequence[JournalEntry]) -> str | None:
    owners = [json.loads(note.body) for note in notes if note.kind == "owner"]
    if not owners or notes[-1].kind == "stopped":
        return None
    last = owners[-1]
    told = f"process {last['pid']} on {last['host']}"
    if last["host"] == socket.gethostname():
        is_alive = _start_ticks(last["pid"]) == last["ticks"]
    else:
        is_alive = notes[-1].age_seconds < _ALIVE_SECONDS
    return told if is_alive else None


def _names(clickhouse: ClickHouse) -> tuple[str, str]:
    return clickhouse.table.database, clickhouse.table.table


def _start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it has ended. See proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
