"""`octane-analytics offsets`: the group's offsets with their intents, saved and set."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

import click

from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.cli.output.confirmation import confirm
from octane_analytics.errors import ConfigError
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
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
from octane_analytics.settings.loading import Loaded
from octane_analytics.types import Commit, TopicPartition

_CLIENT_ID = "octane-analytics-offsets"
_settings = setting_options(*KAFKA, "KAFKA_GROUP_ID")


@click.group(cls=CommandGroup)
def offsets() -> None:
    """Save the group's offsets with their intents, and set them."""


@offsets.command()
@_settings
def export(loaded: Loaded) -> None:
    """Print the group's offsets and intents as JSON.

    Changes nothing. While workers run the offsets move on; stop the workers first where the export is
    to be the last word.
    """
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        partitions = group.partitions(kafka.topic)
        committed = group.committed(partitions)
        if all(told.offset is None for told in committed.values()):
            click.echo(
                f"group {kafka.group_id} has committed nothing of {kafka.topic}: check KAFKA_GROUP_ID "
                "and KAFKA_TOPIC",
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
    help="The topic is another one than was exported (a new cluster, made anew) and holds the same "
    "records at the same offsets.",
)
@click.option(
    "--drop-intents",
    is_flag=True,
    help="With --other-log: forget announced ranges; what of them was inserted is inserted again.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be set.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def import_offsets(
    loaded: Loaded,
    source: IO[str],
    other_log: bool,
    drop_intents: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Set the group's offsets and intents from an export (- for standard input).

    Refuses while the group has members, for another topic or number of partitions, and for offsets
    that the topic does not hold. Into the log it was exported from, everything goes back as it was.
    """
    try:
        snapshot = parse_snapshot(json.load(source))
    except ValueError as error:
        raise ConfigError(f"{source.name} is not JSON: {error}") from error
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        partitions = group.partitions(kafka.topic)
        group.require_no_members()
        commits = plan(
            snapshot,
            kafka.topic,
            group.identity(kafka.topic),
            {partition: group.bounds(partition) for partition in partitions},
            other_log=other_log,
            drop_intents=drop_intents,
        )
        moving = changes(group.committed(partitions), commits)
        if snapshot.group != kafka.group_id:
            click.echo(f"the export is of group {snapshot.group}", err=True)
        if source.name == "<stdin>" and moving and not (yes or dry_run):
            raise click.UsageError("standard input is the export: say --yes, nobody can be asked")
        _apply(group, kafka.group_id, moving, commits, "offsets import", dry_run=dry_run, yes=yes)


@offsets.command("set")
@_settings
@click.option(
    "--to",
    "target",
    required=True,
    metavar="WHERE",
    help="beginning (earliest), end (latest), PARTITION:OFFSET,… for those named, a time as "
    "2026-02-02T12:00:00Z, or as far back as -6h (s, m, h, d), by Kafka's timestamps.  "
    "[default: none; has to be given]",
)
@click.option(
    "--drop-intents",
    is_flag=True,
    help="Also where a range is announced: what of it was inserted may be there twice.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be set.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def set_offsets(loaded: Loaded, target: str, drop_intents: bool, dry_run: bool, yes: bool) -> None:
    """Set where the group goes on reading, in all partitions or in those named.

    For a group whose offsets have expired: `--to end`, and then `octane-analytics replay --from-offset
    beginning` inserts what the table lacks. `--to beginning` reads everything again that the topic
    retains; what the deduplication window has forgotten is then in the table twice. Refuses while the
    group has members, and where a range is announced and perhaps inserted.
    `octane-analytics offsets export` before it keeps a way back.
    """
    try:
        wanted = parse_target(target, datetime.now(UTC))
    except BadRange as error:
        raise click.BadParameter(str(error), param_hint="--to") from error
    kafka = loaded.settings.kafka
    with ConsumerGroupAdmin(kafka, client_id=_CLIENT_ID) as group:
        group.require_no_members()
        facts = _facts(group, kafka.topic, wanted)
        commits = set_to(wanted, group.identity(kafka.topic), facts, drop_intents=drop_intents)
        moving = changes({where: known.committed for where, known in facts.items()}, commits)
        note = consequences(commits, facts)
        _apply(
            group, kafka.group_id, moving, commits, "offsets set", note, dry_run=dry_run, yes=yes
        )


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
    moving: Sequence[str],
    commits: Sequence[Commit],
    action: str,
    note: str = "",
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Print what moves and a note on it, ask, and commit."""
    for line in moving:
        click.echo(line)
    if moving and note:
        click.echo(note)
    if not moving:
        click.echo(f"group {name} is there already: nothing to do")
        return
    if dry_run:
        return
    confirm(f"set {len(moving)} offsets of group {name}?", action, yes=yes)
    group.commit(commits)
    click.echo(f"set {len(moving)} offsets of group {name}")
