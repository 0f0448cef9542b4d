"""`octane-analytics lag`."""

import json
import time

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.cli.output.table import aligned, terminal_width
from octane_analytics.cli.output.watching import show, watch_option
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.lag import LagProbe
from octane_analytics.operations.lag import GroupLagReport, PartitionStatus, measure
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded

_CLIENT_ID = "octane-analytics-lag"
_HEADINGS = ("partition", "committed", "end", "lag", "seconds", "pending", "owner")
_DROPPED = ("pending", "committed")
"""Columns that a narrow terminal does without, in this order."""


@click.command(cls=Command)
@setting_options(*KAFKA, "KAFKA_GROUP_ID")
@watch_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object (a line, with --watch).")
def lag(loaded: Loaded, watch: float | None, as_json: bool) -> Exit:
    """Show how far the group is behind, for each partition.

    committed is the next offset the group will read, end the next one the topic will write, lag the
    records between them, those of open transactions too, seconds the age of the oldest of those by
    Kafka's timestamps. pending is a range that a worker has announced and may have inserted. Works with
    the workers stopped, and changes nothing. The owner is unknown where the broker does not tell a
    group's members.
    """
    kafka = loaded.settings.kafka
    with (
        ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group,
        LagProbe(kafka, client_id=_CLIENT_ID) as probe,
        StopSignal() as stop,
    ):

        def render() -> str:
            found = measure(probe, group, kafka.group_id, kafka.topic, time.time())
            if as_json:
                return json.dumps(found.as_object(), indent=None if watch else 2)
            return "\n".join(lines(found, terminal_width()))

        show(render, watch, stop)
        return stop.exit_code if stop.is_set() and watch is None else Exit.OK


def lines(found: GroupLagReport, width: int | None = None) -> list[str]:
    """The table as text of at most `width` columns, the totals last."""
    has_owners = found.state != "unknown"
    rows = [_row(p, has_owners) for p in found.partitions]
    seconds = "unknown" if found.seconds is None else f"{found.seconds:,.1f} s"
    told = [
        f"group {found.group} ({found.state}) of topic {found.topic}",
        *aligned(_HEADINGS, rows, right=5, width=width, drop=_DROPPED),
        f"{found.messages:,} messages behind, the oldest {seconds} old"
        if found.messages
        else "nothing behind",
    ]
    held = [p for p in found.partitions if p.lag.held_back]
    if held:
        numbers = ", ".join(str(p.partition) for p in held)
        told.append(
            f"{found.held_back:,} of them are held back by an open transaction in partitions {numbers}: "
            "no consumer gets them until it ends; see `kafka-transactions.sh find-hanging`"
        )
    gone = sum(p.lag.removed for p in found.partitions)
    if gone:
        told.append(
            f"{gone:,} offsets were removed by retention before they were read: lengthen the topic's "
            "retention"
        )
    return told


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
        "-" if status.pending is None else str(status.pending),
        owner,
    )
