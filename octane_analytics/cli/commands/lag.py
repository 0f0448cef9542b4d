"""`octane-analytics lag`: print the lag of the consumer group."""

import json
import time

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import KAFKA, json_option, setting_options
from octane_analytics.cli.output.table import aligned, terminal_width
from octane_analytics.cli.output.watch import show, watch_option
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.operations.lag import GroupLagReport, PartitionStatus, measure
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded

_CLIENT_ID = "octane-analytics-lag"
_HEADINGS = ("partition", "committed", "end", "lag", "seconds", "pending", "owner")
_DROPPED = ("pending", "committed")
"""Columns that a narrow terminal omits, in this order."""


@click.command(cls=Command)
@setting_options(*KAFKA, "KAFKA_GROUP_ID")
@watch_option
@json_option("Print one JSON object (one per line with --watch).")
def lag(loaded: Loaded, watch: float | None, as_json: bool) -> Exit:
    """Show the lag of the consumer group for each partition.

    committed is the next offset that the group reads, end the next offset that the topic writes; lag is
    the number of records between them, including those of open transactions; seconds is the age of the
    oldest of these records by Kafka's timestamps. pending is the partition's range of a batch that a
    worker has announced and may have inserted; --json lists all partitions of that batch. Works while
    the workers are stopped, and changes nothing. The owner is unknown if the broker does not report the
    members of a group.
    """
    kafka = loaded.settings.kafka
    with (
        ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group,
        LagProbe(kafka, client_id=_CLIENT_ID) as probe,
        StopSignal() as stop,
    ):

        def render() -> str:
            report = measure(probe, group, kafka.group_id, kafka.topic, time.time())
            if as_json:
                return json.dumps(report.as_object(), indent=None if watch else 2)
            return "\n".join(lag_lines(report, terminal_width()))

        show(render, watch, stop)
        return stop.exit_code if stop.is_set() and watch is None else Exit.OK


def lag_lines(report: GroupLagReport, width: int | None = None) -> list[str]:
    """Return the lines of the table, of at most `width` columns, and of the totals."""
    has_owners = report.state != "unknown"
    rows = [_row(p, has_owners) for p in report.partitions]
    seconds = "unknown" if report.seconds is None else f"{report.seconds:,.1f} s"
    lines = [
        f"group {report.group} ({report.state}) of topic {report.topic}",
        *aligned(_HEADINGS, rows, right=5, width=width, drop=_DROPPED),
        f"{report.messages:,} messages behind, the oldest {seconds} old"
        if report.messages
        else "nothing behind",
    ]
    held = [p for p in report.partitions if p.lag.held_back]
    if held:
        numbers = ", ".join(str(p.partition) for p in held)
        lines.append(
            f"{report.held_back:,} of them are held back by an open transaction in partitions {numbers} "
            "until it ends; see `kafka-transactions.sh find-hanging`"
        )
    lines += [p.unreadable for p in report.partitions if p.unreadable]
    removed = sum(p.lag.removed for p in report.partitions)
    if removed:
        lines.append(
            f"{removed:,} offsets were removed by retention before they were read: increase the topic's "
            "retention"
        )
    return lines


def _row(status: PartitionStatus, has_owners: bool) -> tuple[str, ...]:
    lag = status.lag
    owner = "-" if has_owners else "unknown"
    if status.owner is not None:
        owner = f"{status.owner.instance_id or status.owner.client_id}@{status.owner.host}"
    return (
        str(status.partition),
        "-" if lag.committed.offset is None else str(lag.committed.offset),
        str(lag.end),
        f"{lag.messages:,}",
        "?" if status.seconds is None else f"{status.seconds:,.1f}",
        "-" if status.pending_range is None else str(status.pending_range),
        owner,
    )
