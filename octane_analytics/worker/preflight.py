"""Preflight checks: run once, in their own process, before any worker starts."""

import contextlib
import logging
from dataclasses import replace

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.replica_tables import difference, select_table
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.clickhouse.table_fit import require_fit, required_rights
from octane_analytics.clickhouse.views import view_findings
from octane_analytics.errors import ConfigError, NeedsOperator, StatementRejected, Unavailable
from octane_analytics.events.decoders import choose
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.group_conflicts import find_conflict
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.kafka.topics import TopicInspector, ensure_topic
from octane_analytics.operations.expired_offsets import SAMPLE_FETCH_BYTES, find_stored_record
from octane_analytics.pipeline.delivery import Delivery
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.drain import require_drain_time
from octane_analytics.settings.sections import Settings
from octane_analytics.settings.topology import authority
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry import tracing
from octane_analytics.worker.table_mark import read_table_mark

_LOG = logging.getLogger(__name__)
_CLIENT_ID = "octane-analytics-preflight"
_CLICKHOUSE_CLIENT = "octane-analytics preflight"
_SAMPLE_SECONDS = 20.0


def preflight(settings: Settings) -> None:
    """Check limits, Kafka, ClickHouse and the table, so that an error is reported once, not in a loop.

    Blocks on ClickHouse and Kafka, each for some seconds at most. Raises NeedsOperator or ConfigError
    for a fault that needs an operator, Unavailable for one that may pass.
    """
    require_drain_time(settings)
    choose(settings.worker.decoder)
    tracing.is_configured()
    check_shards(settings)
    with TopicInspector(settings.kafka, client_id=_CLIENT_ID) as inspector:
        partitions = inspector.partitions(settings.kafka.topic)
    if partitions < settings.worker.procs:
        _LOG.warning(
            "fewer partitions than processes: some processes will be idle",
            extra=logs.fields(partitions=partitions, procs=settings.worker.procs),
        )
    check_members(settings)
    check_committed_offsets(settings)
    try:
        ensure_topic(settings.kafka, settings.kafka.dlq_topic)
    except Unavailable as error:
        _LOG.warning(
            "no dead-letter topic: an invalid record will halt its partition",
            extra=logs.fields(topic=settings.kafka.dlq_topic, error=str(error)),
        )


def check_shards(settings: Settings) -> None:
    """Check the table of each shard, and that shards differ. Raises the errors of `preflight`.

    Of several shards, one that cannot be reached is only reported: a worker checks it before the first
    batch that it inserts there.
    """
    several, unreachable = settings.clickhouse.of_each_shard(), []
    for own in several:
        try:
            with ClickHouse(own, client_name=_CLICKHOUSE_CLIENT) as clickhouse:
                check_table(clickhouse, replace(settings, clickhouse=own))
            check_replicas(own)
        except NeedsOperator:
            raise
        except Unavailable as error:
            unreachable.append(error)
    if len(unreachable) == len(several):
        raise unreachable[0]
    for reason in unreachable:
        _LOG.warning(
            "shard cannot be reached; its turns go to others", extra=logs.fields(error=str(reason))
        )
    with ClickHouseShards(settings.clickhouse, client_name=_CLICKHOUSE_CLIENT) as shards:
        shards.require_identities()


def check_replicas(shard: ClickHouseSettings) -> None:
    """Raise ConfigError if the servers of one shard, as far as they can be reached, do not have replicas
    of one table: inserts go to the next one when the first is away."""
    if len(shard.hosts()) < 2:
        return
    found = []
    for host, port in shard.hosts():
        where = authority(host, port)
        # If it is away, others serve meanwhile, and a worker looks again when it connects to it.
        with (
            contextlib.suppress(Unavailable, StatementRejected),
            ClickHouse(replace(shard, host=where), client_name=_CLICKHOUSE_CLIENT) as server,
        ):
            if (table := select_table(server)) is not None:
                found.append((where, table))
    if reason := difference(found):
        raise ConfigError(reason)


def check_members(settings: Settings) -> None:
    """Raise NeedsOperator if workers of another version or table are in the group.

    Blocks for up to a session timeout until the static members of ended ones are out of it. If no broker
    reports the members, the workers start nevertheless.
    """
    wait = "waiting for members of another version or table to leave the group"
    own = read_table_mark(settings)
    with ConsumerGroupAdmin(settings.kafka, client_id=_CLIENT_ID) as group:
        try:
            reason = find_conflict(
                group,
                settings.kafka,
                own,
                on_wait=lambda why: _LOG.warning(wait, extra=logs.fields(why=why)),
            )
        except Unavailable as error:
            _LOG.warning(
                "members of the group are not known: make sure that none has another version or table",
                extra=logs.fields(error=str(error)),
            )
            return
    if reason is not None:
        raise NeedsOperator(reason)


def check_committed_offsets(settings: Settings) -> None:
    """Raise NeedsOperator if the group would start at the first retained records and the table already
    has some of them. Raises the other errors of `preflight` too."""
    with (
        TopicReader(settings.kafka, client_id=_CLIENT_ID, fetch_bytes=SAMPLE_FETCH_BYTES) as log,
        ClickHouseShards(settings.clickhouse, client_name=_CLICKHOUSE_CLIENT) as table,
    ):
        stored = find_stored_record(log, table, _SAMPLE_SECONDS)
        if stored is not None:
            raise NeedsOperator(stored.explain(log.group, table.table))


def check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    """Check that the table fits the delivery mode; `settings` are those of one shard. Raises the errors
    of `preflight`."""
    try:
        _check_table(clickhouse, settings)
    except StatementRejected as error:
        advice = OPERATOR_ERRORS.get(error.code, "see the server's log")
        raise NeedsOperator(f"ClickHouse refuses: {error}; {advice}") from error


def _check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    live = clickhouse.describe()
    is_exactly_once = settings.batch.delivery == Delivery.EXACTLY_ONCE.value
    for right in required_rights(live, is_exactly_once=is_exactly_once):
        if not clickhouse.has_right(right):
            if right == "INSERT":
                clickhouse.check_profile()
            raise NeedsOperator(
                f"user {settings.clickhouse.user} lacks {right} on {clickhouse.table}: "
                f"GRANT {right} ON {clickhouse.table} TO {settings.clickhouse.user}"
            )
    live = require_fit(
        clickhouse.table,
        live,
        window_user="exactly-once" if is_exactly_once else None,
        window_hint=" (or set DELIVERY=at-least-once); see `octane-analytics manual delivery`",
        servers=len(settings.clickhouse.hosts()),
    )
    _check_quorum(clickhouse, live, settings.clickhouse)
    if is_exactly_once:
        _check_views(clickhouse, live, settings.clickhouse)


def _check_quorum(clickhouse: ClickHouse, live: LiveTable, settings: ClickHouseSettings) -> None:
    wanted, replicas = settings.insert_quorum, len(settings.hosts())
    if wanted and not live.is_replicated:
        raise ConfigError(
            f"CLICKHOUSE_INSERT_QUORUM is {wanted}, but {clickhouse.table} is a {live.engine}, which "
            "has no replicas: set it to 0"
        )
    if wanted > replicas:
        raise ConfigError(
            f"CLICKHOUSE_INSERT_QUORUM is {wanted}, but CLICKHOUSE_HOST lists {replicas} replicas of a "
            "shard: list them all, because a repeated insert is counted on that many of them"
        )


def _check_views(clickhouse: ClickHouse, live: LiveTable, settings: ClickHouseSettings) -> None:
    views = clickhouse.views()
    findings = view_findings(clickhouse.table, live, views, servers=len(settings.hosts()))
    for finding in findings:
        if not finding.is_refusal:
            _LOG.warning("materialized view may be wrong", extra=logs.fields(why=finding.message))
    if refusals := [finding.message for finding in findings if finding.is_refusal]:
        raise ConfigError("; ".join(refusals))
    if views and live.is_replicated and len(settings.hosts()) > 1:
        _check_views_of_replicas({str(view.name) for view in views}, settings)


def _check_views_of_replicas(views: set[str], settings: ClickHouseSettings) -> None:
    """Raise ConfigError if a replica that can be reached lacks one of the views."""
    for address in (authority(*host) for host in settings.hosts()):
        single = replace(settings, host=address, shard_weights=())
        try:
            with ClickHouse(single, client_name=_CLICKHOUSE_CLIENT) as replica:
                missing = views - {str(view.name) for view in replica.views()}
        except Unavailable as error:
            _LOG.warning("views of a replica not inspected", extra=logs.fields(error=str(error)))
            continue
        if missing:
            raise ConfigError(
                f"{address} lacks materialized view {', '.join(sorted(missing))}: rows that "
                "are inserted through it would be missing in the target; create the view on each server"
            )
