"""`octane-analytics dlq`: count, show and retry dead-letter messages, and report what can be deleted."""

import json
from collections.abc import Sequence

import click

from octane_analytics.cli.dlq.counts import counts_by_reason, counts_table
from octane_analytics.cli.dlq.messages import SHOWN_CHARACTERS, message_lines, message_object
from octane_analytics.cli.dlq.options import (
    KAFKA_SETTINGS,
    Ranges,
    kafka_options,
    offsets_option,
    reason_option,
)
from octane_analytics.cli.dlq.outcome import format_plan, outcome_lines, outcome_object
from octane_analytics.cli.dlq.purge import purge_lines, purge_object
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.options import CLICKHOUSE, json_option, setting_options
from octane_analytics.cli.output.confirmation import confirm, dry_run_option, yes_option
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.output.table import terminal_width
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.shards import ClickHouseShards
from octane_analytics.events.decode import decode
from octane_analytics.kafka.dlq_topic import DeadLetterTopic
from octane_analytics.operations.dead_letter_retry import (
    DeadLetterRetry,
    RetryOutcome,
    StoredRows,
    read_index,
    select,
)
from octane_analytics.operations.dead_letters import (
    DeadLetterIndex,
    Selection,
    parse_dead_letter,
    parse_retry_marker,
)
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded
from octane_analytics.types import OffsetRange, TopicPartition
from octane_analytics.worker.preflight import check_shards

_CLIENT_ID = "octane-analytics-dlq"


@click.group(cls=CommandGroup)
def dlq() -> None:
    """Count, show and retry dead-letter messages."""


@dlq.command("list")
@kafka_options
@json_option()
def list_messages(loaded: Loaded, as_json: bool) -> None:
    """Count the dead-letter messages by reason: all, retried with success, and left.

    Reads the whole topic; one that does not exist yet counts as empty. A message without its value,
    which was too large, cannot be retried.
    """
    with _open_topic(loaded) as topic:
        index = _read(topic, _ranges(topic), loaded)
    rows = counts_by_reason(index.by_state())
    if as_json:
        click.echo(json.dumps({"topic": topic.topic, "reasons": rows}, indent=2))
        return
    for line in counts_table(rows, terminal_width()):
        click.echo(line)
    left = sum(row["left"] for row in rows)
    click.echo(f"{len(index.messages):,} dead-letter messages in {topic.topic}, {left:,} left")


@dlq.command()
@kafka_options
@reason_option
@offsets_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="MESSAGES",
    help="Show at most this many messages.",
)
@click.option(
    "--full",
    is_flag=True,
    help=f"Print whole payloads instead of their first {SHOWN_CHARACTERS} characters.",
)
@json_option("Print one JSON object per line.")
def show(
    loaded: Loaded,
    reasons: Sequence[str],
    ranges: Ranges,
    limit: int,
    full: bool,
    as_json: bool,
) -> None:
    """Show dead-letter messages: position, origin, error and payload.

    Shows the first ones that the options select, retried or not. With --json, the value is text in
    which bytes that are not UTF-8 are replaced.
    """
    selection = Selection(frozenset(reasons), ranges)
    left = limit
    with _open_topic(loaded) as topic:
        for records in topic.read(_ranges(topic)):
            for record in records:
                if not left or parse_retry_marker(record) is not None:
                    continue
                message = parse_dead_letter(record)
                if not selection.includes(message):
                    continue
                left -= 1
                value = record.value()
                if as_json:
                    click.echo(json.dumps(message_object(message, value)))
                else:
                    click.echo("\n".join(message_lines(message, value, is_full=full)))
            if not left:
                break
    if left == limit:
        click.echo("no such dead-letter messages", err=True)


@dlq.command()
@setting_options(*KAFKA_SETTINGS, *CLICKHOUSE)
@reason_option
@offsets_option
@click.option(
    "--present",
    type=click.Choice([present.value for present in StoredRows]),
    default=StoredRows.REFUSE.value,
    show_default=True,
    help="What to do if the table has rows equal to the messages' events, as after a replay of their "
    "range: refuse to insert anything, skip these messages (settled, not inserted), or insert them too.",
)
@dry_run_option("Print what would be retried and exit.")
@yes_option
@json_option()
def retry(
    loaded: Loaded,
    reasons: Sequence[str],
    ranges: Ranges,
    present: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> Exit:
    """Decode dead-letter messages with this version and insert those that are valid events now.

    Retries all messages that are left, or those that --reason and --offsets select. A message that
    fails again stays as it is. Each record is inserted once: progress is kept in the dead-letter topic
    itself, so a retry can be repeated, also after a crash; a second retry at the same time ends the
    first one. Ctrl-C stops between two chunks. The exit code is 1 if selected messages stay.

    After a `replay` of their range the events of these messages are in the table already. The command
    checks this first and inserts nothing until --present is given. Do not retry while a replay runs.
    """
    selection = Selection(frozenset(reasons), ranges)
    settings = loaded.settings
    with (
        _open_topic(loaded) as topic,
        ClickHouseShards(settings.clickhouse, client_name="octane-analytics dlq retry") as table,
    ):
        check_shards(settings)
        held = _ranges(topic)
        index = _read(topic, held, loaded)
        state = index.by_state()
        chosen, duplicates, not_retryable = select(state, selection)
        plan = format_plan(
            topic.topic,
            str(table.table),
            chosen=len(chosen),
            duplicates=len(duplicates),
            not_retryable=len(not_retryable),
            pending=len(state.pending),
        )
        if dry_run:
            in_table = len(DeadLetterRetry(topic, table, decode, index).find_stored(chosen))
            if in_table:
                plan += f"; {in_table:,} have equal rows in the table (see --present)"
        if dry_run or not held or not (yes or chosen or state.pending):
            click.echo(plan)
            return Exit.OK
        confirm(f"retry {plan}?", "dlq retry", yes=yes)
        with StopSignal() as stop:
            topic.open()
            outcome = _retry(
                topic, table, selection, StoredRows(present), stop, len(chosen), loaded
            )
        if as_json:
            click.echo(json.dumps(outcome_object(outcome), indent=2))
        else:
            click.echo("\n".join(outcome_lines(outcome)))
        if stop.is_set():
            return stop.exit_code
    return Exit.FAILED if outcome.remaining else Exit.OK


def _retry(
    topic: DeadLetterTopic,
    table: ClickHouseShards,
    selection: Selection,
    present: StoredRows,
    stop: StopSignal,
    expected: int,
    loaded: Loaded,
) -> RetryOutcome:
    # Opening the topic fences other retries; only an index read afterwards has all their markers.
    index = _read(topic, topic.spans(), loaded)
    bar = reporter(f"from {topic.topic}", expected)
    with bar:
        run = DeadLetterRetry(
            topic,
            table,
            decode,
            index,
            on_progress=lambda o: bar.update(
                o.processed, f"{o.inserted:,} inserted, {o.remaining:,} stay"
            ),
            is_stopping=stop.is_set,
        )
        run.recover()
        run.run(selection, present)
    return run.outcome


@dlq.command("purge-report")
@kafka_options
@click.option(
    "--give-up",
    "reasons",
    multiple=True,
    metavar="REASON",
    help="Count messages of this reason as settled; repeatable.  [default: none]",
)
@json_option("Print the JSON file that kafka-delete-records takes.")
def purge_report(loaded: Loaded, reasons: Sequence[str], as_json: bool) -> None:
    """Report up to which offsets the dead-letter topic is settled, and how to delete that range.

    Every message below these offsets was retried with success, or has a reason given with --give-up.
    Deletes nothing: prints the commands. A later message of the same record is recognised as a
    duplicate only while the retried message is still in the topic, so let the workers run for a while
    before deleting.
    """
    with _open_topic(loaded) as topic:
        held = _ranges(topic)
        state = _read(topic, held, loaded).by_state()
    state.left = [message for message in state.left if message.reason not in reasons]
    by_number = {where.partition: span for where, span in held.items()}
    records = [
        {"topic": topic.topic, "partition": number, "offset": offset}
        for number, offset in state.settled_before(by_number).items()
        if offset > by_number[number].first
    ]
    if as_json:
        click.echo(json.dumps(purge_object(records), indent=2))
        return
    click.echo("\n".join(purge_lines(records, by_number, loaded.settings.kafka)))


def _open_topic(loaded: Loaded) -> DeadLetterTopic:
    return DeadLetterTopic(loaded.settings.kafka, client_id=_CLIENT_ID)


def _ranges(topic: DeadLetterTopic) -> dict[TopicPartition, OffsetRange]:
    """Return the offsets that the topic holds; empty, with a note, if it does not exist yet."""
    if topic.has_topic():
        return topic.spans()
    click.echo(
        f"topic {topic.topic} does not exist: no record was rejected yet, or KAFKA_DLQ_TOPIC is wrong",
        err=True,
    )
    return {}


def _read(
    topic: DeadLetterTopic, ranges: dict[TopicPartition, OffsetRange], loaded: Loaded
) -> DeadLetterIndex:
    clickhouse = loaded.settings.clickhouse
    table = str(TableName(clickhouse.database, clickhouse.table))
    total = sum(span.end - span.first for span in ranges.values())
    with reporter(f"reading {topic.topic}", total) as bar:
        return read_index(
            topic, ranges, lambda read: bar.update(read, f"{read:,} messages"), table=table
        )
