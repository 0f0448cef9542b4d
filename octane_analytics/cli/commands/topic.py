"""`octane-analytics topic`: create and check the topic and its dead-letter topic."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import click

from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import KAFKA, setting_options
from octane_analytics.kafka.topic_admin import TopicAdmin, TopicShape
from octane_analytics.operations.topic_differences import differences, retention_text
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.loading import Loaded

R = TypeVar("R")

_CLIENT_ID = "octane-analytics-topic"
_PARTITIONS = 16
_FOREVER = "forever"
_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _milliseconds(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return the milliseconds of `7d` or `36h`; -1 for forever."""
    if text is None:
        return None
    if text == _FOREVER:
        return -1
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(
            f"{text!r}: write a number with s, m, h or d, as in 7d, or {_FOREVER}"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def _shape_options(command: Callable[..., R]) -> Callable[..., R]:
    for option in (
        click.option(
            "--dlq-retention",
            callback=_milliseconds,
            metavar="DURATION",
            help="Retention of the dead-letter topic: a number with s, m, h or d such as 30d, or "
            "forever.  [default: the broker's]",
        ),
        click.option(
            "--retention",
            callback=_milliseconds,
            metavar="DURATION",
            help="Retention of the topic: a number with s, m, h or d such as 7d, or forever.  "
            "[default: the broker's]",
        ),
        click.option(
            "--replication",
            type=click.IntRange(1, 32_767),
            metavar="REPLICAS",
            help="Number of replicas of each partition of both topics.  [default: the broker's]",
        ),
        click.option(
            "--partitions",
            type=click.IntRange(1, 100_000),
            metavar="PARTITIONS",
            help="Number of partitions of the topic, at least the number of worker processes.  "
            f"[default: {_PARTITIONS} for a new topic, any for one that exists]",
        ),
        setting_options(*KAFKA, "KAFKA_DLQ_TOPIC"),
    ):
        command = option(command)
    return command


@click.group(cls=CommandGroup)
def topic() -> None:
    """Create or check the topic and its dead-letter topic."""


@topic.command()
@_shape_options
def apply(
    loaded: Loaded,
    partitions: int | None,
    replication: int | None,
    retention: int | None,
    dlq_retention: int | None,
) -> Exit:
    """Create the topic and the dead-letter topic if they are missing.

    Safe to repeat. A topic that exists is not changed: each difference from the given options is
    printed with the command that changes it, and the exit code is 1.
    """
    shape = TopicShape(partitions, replication, retention)
    kafka = loaded.settings.kafka
    with TopicAdmin(kafka, client_id=_CLIENT_ID) as admin:
        found = [
            *_ensure(
                admin, kafka.topic, shape, replace(shape, partitions=partitions or _PARTITIONS)
            ),
            *_ensure(
                admin, kafka.dlq_topic, dead := TopicShape(None, replication, dlq_retention), dead
            ),
        ]
    return _report(found)


@topic.command()
@_shape_options
def check(
    loaded: Loaded,
    partitions: int | None,
    replication: int | None,
    retention: int | None,
    dlq_retention: int | None,
) -> Exit:
    """Compare the topic and the dead-letter topic with the given options; both must exist.

    Changes nothing. Prints each difference; the exit code is 1 if there is one.
    """
    kafka = loaded.settings.kafka
    shapes = {
        kafka.topic: TopicShape(partitions, replication, retention),
        kafka.dlq_topic: TopicShape(None, replication, dlq_retention),
    }
    found: list[str] = []
    with TopicAdmin(kafka, client_id=_CLIENT_ID) as admin:
        for name, shape in shapes.items():
            live = admin.describe(name)
            if live is None:
                found.append(f"topic {name} does not exist: run `octane-analytics topic apply`")
                continue
            click.echo(f"topic {name}: {_shape_text(live)}")
            found += differences(name, live, shape)
    return _report(found)


def _ensure(admin: TopicAdmin, name: str, expected: TopicShape, initial: TopicShape) -> list[str]:
    """Create the topic in the shape `initial` if it is missing; otherwise return its differences."""
    live = admin.describe(name)
    if live is None and admin.create(name, initial):
        live = admin.describe(name)
        click.echo(f"created topic {name}" + (f": {_shape_text(live)}" if live else ""))
        return []
    live = live or admin.describe(name) or TopicShape()
    click.echo(f"topic {name} exists: {_shape_text(live)}")
    return differences(name, live, expected)


def _shape_text(shape: TopicShape) -> str:
    return (
        f"partitions {shape.partitions}, replication {shape.replication}, "
        f"retention {retention_text(shape.retention_ms)}"
    )


def _report(found: list[str]) -> Exit:
    for difference in found:
        click.echo(f"difference: {difference}")
    return Exit.FAILED if found else Exit.OK
