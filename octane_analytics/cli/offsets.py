"""`octane-analytics offsets`: the group's offsets with their intents, saved and set."""

import json
from typing import IO

import click

from octane_analytics.cli.confirmation import confirm
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.errors import ConfigError, NeedsOperator
from octane_analytics.kafka.group import Group
from octane_analytics.operations.offsets import Snapshot, changes, parse_snapshot, plan
from octane_analytics.settings.loading import Loaded

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
    with Group(kafka, client_id=_CLIENT_ID) as group:
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
    with Group(kafka, client_id=_CLIENT_ID) as group:
        partitions = group.partitions(kafka.topic)
        members = group.state().members
        if members:
            hosts = ", ".join(sorted({member.host for member in members}))
            raise NeedsOperator(
                f"group {kafka.group_id} has {len(members)} active members ({hosts}): stop every "
                "worker first (a static member is gone only after its session timeout, 45 s by "
                "default)"
            )
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
        for line in moving:
            click.echo(line)
        if not moving:
            click.echo(f"group {kafka.group_id} is there already: nothing to do")
            return
        if dry_run:
            return
        if not yes:
            if source.name == "<stdin>":
                raise click.UsageError(
                    "standard input is the export: say --yes, nobody can be asked"
                )
            confirm(
                f"set {len(moving)} offsets of group {kafka.group_id}?", "offsets import", yes=yes
            )
        group.commit(commits)
    click.echo(f"set {len(moving)} offsets of group {kafka.group_id}")
