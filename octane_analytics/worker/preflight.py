"""What is checked once, in a process of its own, before any worker starts."""

import logging

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.error_codes import OPERATOR_ERRORS
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.clickhouse.schema import LiveTable
from octane_analytics.clickhouse.table_fit import require_fit
from octane_analytics.clickhouse.views import view_findings
from octane_analytics.errors import (
    ConfigError,
    NeedsOperator,
    StatementRejected,
    Unavailable,
)
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.kafka.topics import TopicInspector, ensure_topic
from octane_analytics.operations.expired_offsets import SAMPLE_FETCH_BYTES, find_stored_record
from octane_analytics.pipeline.batch_writer import Delivery
from octane_analytics.settings.sections import Settings
from octane_analytics.telemetry import logging as logs
from octane_analytics.telemetry import tracing

_LOG = logging.getLogger(__name__)


_SAMPLE_SECONDS = 20.0


def preflight(settings: Settings) -> None:
    """What must be right before it makes sense to start: one clear error beats a crash loop.

    Blocks on ClickHouse and Kafka, each for some seconds at most. Raises NeedsOperator or ConfigError
    for what has to be mended, Unavailable for what may come back by itself.
    """
    tracing.is_configured()
    with ClickHouse(settings.clickhouse, client_name="octane-analytics preflight") as clickhouse:
        check_table(clickhouse, settings)
    with TopicInspector(settings.kafka, client_id="octane-analytics-preflight") as view:
        partitions = view.partitions(settings.kafka.topic)
    if partitions < settings.worker.procs:
        _LOG.warning(
            "fewer partitions than processes: some will have nothing to do",
            extra=logs.fields(partitions=partitions, procs=settings.worker.procs),
        )
    check_committed_offsets(settings)
    try:
        ensure_topic(settings.kafka, settings.kafka.dlq_topic)
    except Unavailable as error:
        _LOG.warning(
            "no dead-letter topic: a record that is no valid event will halt its partition",
            extra=logs.fields(topic=settings.kafka.dlq_topic, error=str(error)),
        )


def check_committed_offsets(settings: Settings) -> None:
    """Raises NeedsOperator where the group would start at the first retained records and the table
    already has some of them; else as `preflight` does."""
    name = "octane-analytics-preflight"
    with (
        TopicReader(settings.kafka, client_id=name, fetch_bytes=SAMPLE_FETCH_BYTES) as log,
        ClickHouseSink(settings.clickhouse, client_name="octane-analytics preflight") as table,
    ):
        stored = find_stored_record(log, table, _SAMPLE_SECONDS)
        if stored is not None:
            raise NeedsOperator(stored.explain(log.group, table.table))


def check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    """Whether the table can be inserted into as the protocol needs it. Raises as `preflight` does."""
    try:
        _check_table(clickhouse, settings)
    except StatementRejected as error:
        advice = OPERATOR_ERRORS.get(error.code, "look at the server's log")
        raise NeedsOperator(f"ClickHouse refuses: {error}; {advice}") from error


def _check_table(clickhouse: ClickHouse, settings: Settings) -> None:
    live = clickhouse.describe()
    for right in ("SELECT", "INSERT"):
        if not clickhouse.has_right(right):
            if right == "INSERT":
                clickhouse.check_profile()
            raise NeedsOperator(
                f"user {settings.clickhouse.user} lacks {right} on {clickhouse.table}: "
                f"GRANT {right} ON {clickhouse.table} TO {settings.clickhouse.user}"
            )
    is_exactly_once = settings.batch.delivery == Delivery.EXACTLY_ONCE.value
    live = require_fit(
        clickhouse.table,
        live,
        window_user="exactly-once" if is_exactly_once else None,
        window_hint=" (or set DELIVERY=at-least-once); see `octane-analytics manual delivery`",
    )
    if is_exactly_once:
        _check_views(clickhouse, live)


def _check_views(clickhouse: ClickHouse, live: LiveTable) -> None:
    findings = view_findings(clickhouse.table, live, clickhouse.views())
    for finding in findings:
        if not finding.is_refusal:
            _LOG.warning("a materialized view may be wrong", extra=logs.fields(why=finding.message))
    if refusals := [finding.message for finding in findings if finding.is_refusal]:
        raise ConfigError("; ".join(refusals))
