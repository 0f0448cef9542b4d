"""`octane-analytics offsets`: the consumer group's offsets and intents."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import IO

import click

from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import KAFKA, json_option, setting_options
from octane_analytics.cli.output.confirmation import confirm, dry_run_option, yes_option
from octane_analytics.errors import ConfigError
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.operations.group_readiness import GroupReadiness, look, wait_until_ready
from octane_analytics.operations.offset_snapshot import Snapshot, changes, parse_snapshot, plan
from octane_analytics.operations.offset_targets import (
    AtTime,
    PartitionFacts,
    Target,
    consequences,
    parse_target,
    set_to,
)
from octane_analytics.replay.ranges import BadRange
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded
from octane_analytics.types import Commit, Committed, TopicPartition

_CLIENT_ID = "octane-analytics-offsets"
_settings = setting_options(*KAFKA, "KAFKA_GROUP_ID")


@click.group(cls=CommandGroup)
def offsets() -> None:
    """Export, import or set the consumer group's offsets, or show what is pending."""


@offsets.command()
@_settings
def export(loaded: Loaded) -> None:
    """Print the group's offsets and intents as JSON.

    Changes nothing. Running workers go on committing; stop them first if the export must be final.
    """
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        partitions = group.partitions(kafka.topic)
        committed = group.committed(partitions)
        if all(commit.offset is None for commit in committed.values()):
            click.echo(
                f"group {kafka.group_id} has not committed offsets of {kafka.topic}: check "
                "KAFKA_GROUP_ID and KAFKA_TOPIC",
                err=True,
            )
        snapshot = Snapshot(
            kafka.group_id,
            kafka.topic,
            group.identity(kafka.topic),
            tuple(committed[partition] for partition in partitions),
        )
    click.echo(json.dumps(snapshot.as_object(), indent=2))


@offsets.command("import")
@_settings
@click.argument("source", metavar="FILE|-", type=click.File("r", encoding="utf-8"))
@click.option(
    "--other-log",
    is_flag=True,
    help="Accept a topic other than the exported one, as in a new cluster or after it was recreated, "
    "that has the same records at the same offsets.",
)
@click.option(
    "--drop-intents",
    is_flag=True,
    help="Drop pending batches of the group, and with --other-log those of the export; their rows may "
    "be inserted twice.",
)
@dry_run_option("Print what would be set and exit.")
@yes_option
def import_offsets(
    loaded: Loaded,
    source: IO[str],
    other_log: bool,
    drop_intents: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Set the group's offsets and intents from an export (- for standard input).

    Refuses if the group has members, if the topic or the number of partitions differs, if the topic does
    not hold the offsets, and if a batch with a partition that moves is pending. In the topic of the
    export, offsets and intents are restored exactly.
    """
    try:
        snapshot = parse_snapshot(json.load(source))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source.name} is not JSON: {error}") from error
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        partitions = group.partitions(kafka.topic)
        group.require_no_members()
        committed = group.committed(partitions)
        commits = plan(
            snapshot,
            kafka.topic,
            group.identity(kafka.topic),
            {partition: group.bounds(partition) for partition in partitions},
            committed,
            other_log=other_log,
            drop_intents=drop_intents,
        )
        changed = changes(committed, commits)
        note = _read_again(committed, commits)
        if snapshot.group != kafka.group_id:
            click.echo(f"the export is of group {snapshot.group}", err=True)
        if source.name == "<stdin>" and changed and not (yes or dry_run):
            raise click.UsageError(
                "standard input is the export and cannot be used for confirmation: add --yes"
            )
        _apply(
            *(group, kafka.group_id, changed, commits, "offsets import", note),
            was=committed,
            dry_run=dry_run,
            yes=yes,
        )


@offsets.command("set")
@_settings
@click.option(
    "--to",
    "target",
    required=True,
    metavar="POSITION",
    help="New position: beginning (earliest), end (latest), PARTITION:OFFSET,… for these partitions, "
    "or by Kafka's timestamps a time such as 2026-02-02T12:00:00Z or -6h (s, m, h, d ago).  "
    "[default: none; required]",
)
@click.option(
    "--drop-intents",
    is_flag=True,
    help="Also move partitions of a pending batch, and drop it; its rows may be inserted twice.",
)
@dry_run_option("Print what would be set and exit.")
@yes_option
def set_offsets(loaded: Loaded, target: str, drop_intents: bool, dry_run: bool, yes: bool) -> None:
    """Set the offsets from which the group continues, in all partitions or in the given ones.

    For a group whose offsets have expired, use `--to end` and then `octane-analytics replay
    --from-offset beginning`, which inserts the events that the table lacks. `--to beginning` reads all
    records that the topic retains again; those that have left the deduplication window are then
    in the table twice. Refuses if the group has members, and if a batch with one of the partitions is
    pending and may have been inserted. Run `octane-analytics offsets export` before, to be able to go
    back.
    """
    try:
        parsed = parse_target(target, datetime.now(UTC))
    except BadRange as error:
        raise click.BadParameter(str(error), param_hint="--to") from error
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        group.require_no_members()
        facts = _facts(group, kafka.topic, parsed)
        commits = set_to(parsed, group.identity(kafka.topic), facts, drop_intents=drop_intents)
        committed = {where: fact.committed for where, fact in facts.items()}
        changed = changes(committed, commits)
        note = consequences(commits, facts)
        _apply(
            *(group, kafka.group_id, changed, commits, "offsets set", note),
            was=committed,
            dry_run=dry_run,
            yes=yes,
        )


@offsets.command()
@_settings
@click.option(
    "--for-protocol",
    "protocol",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Ignore workers of this version of the delivery protocol and batches that they read: whether "
    "such workers may start.  [default: none of either]",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0.0, 86_400.0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for up to this many seconds until the group is drained.  [default: do not wait]",
)
@json_option()
def pending(
    loaded: Loaded, protocol: int | None, wait_seconds: float, as_json: bool
) -> Exit | None:
    """Show what keeps the group from being drained: its workers and pending batches.

    Exits with 0 if the group has no workers and no pending batch, with 1 if it has, with 69 if no broker
    answers. A batch is pending if a worker has announced it and may have inserted it; the next owner of
    any of its partitions inserts it again, once. Changes nothing.
    """
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group, StopSignal() as stop:
        found = wait_until_ready(
            lambda: look(group, kafka.group_id, kafka.topic, protocol),
            wait_seconds,
            on_wait=lambda line: click.echo(f"waiting: {line}", err=True),
            now=time.monotonic,
            sleep=stop.wait,
        )
        if stop.is_set():
            return stop.exit_code
    click.echo(json.dumps(found.as_object(), indent=2) if as_json else "\n".join(_lines(found)))
    return None if found.is_ready else Exit.FAILED


def _lines(found: GroupReadiness) -> list[str]:
    """Return a line for each worker, pending batch and obstacle."""
    listed = found.as_object()
    lines = [
        f"worker {member['client_id']}@{member['host']}: protocol {member['protocol']}, partitions "
        f"{', '.join(map(str, member['partitions'])) or 'none'}"
        for member in listed["members"]
    ]
    lines += [
        f"pending {item['partition']}: {item['range'][0]}-{item['range'][1]}, protocol "
        f"{item['protocol']}, in a batch of partitions {', '.join(map(str, item['batch']))}"
        for item in listed["pending"]
    ]
    if found.is_ready:
        whom = "" if found.protocol is None else f" for workers of protocol {found.protocol}"
        return [*lines, f"group {found.group} is drained{whom}"]
    return [*lines, *found.obstacles()]


def _read_again(committed: Mapping[TopicPartition, Committed], commits: Sequence[Commit]) -> str:
    again = sum(max(0, (committed[c.partition].offset or 0) - c.offset) for c in commits)
    if not again:
        return ""
    return f"{again:,} offsets are read again, and what they hold is inserted again"


def _facts(
    group: ConsumerGroupAdmin, topic: str, target: Target
) -> dict[TopicPartition, PartitionFacts]:
    partitions = group.partitions(topic)
    committed, ends = group.committed(partitions), group.stable_ends(partitions)
    at_time = (
        group.offsets_at(partitions, target.epoch_seconds) if isinstance(target, AtTime) else {}
    )
    return {
        where: PartitionFacts(
            group.bounds(where)[0], ends[where], committed[where], at_time.get(where)
        )
        for where in partitions
    }


def _apply(
    group: ConsumerGroupAdmin,
    name: str,
    changed: Sequence[str],
    commits: Sequence[Commit],
    action: str,
    note: str,
    *,
    was: Mapping[TopicPartition, Committed],
    dry_run: bool,
    yes: bool,
) -> None:
    """Print the changed offsets and the note, ask for confirmation, and commit.

    `was` are the group's offsets that were inspected. Raise ConfigError if they have changed since: a
    worker may have run while the question was open, and left another batch pending.
    """
    for line in changed:
        click.echo(line)
    if changed and note:
        click.echo(note)
    if not changed:
        click.echo(f"group {name} already has these offsets: nothing to do")
        return
    if dry_run:
        return
    confirm(f"set {len(changed)} offsets of group {name}?", action, yes=yes)
    if group.committed(list(was)) != was:
        raise ConfigError(
            f"the offsets of group {name} have changed since they were read: nothing was set; repeat "
            "the command"
        )
    group.commit(commits)
    click.echo(f"set {len(changed)} offsets of group {name}")
