"""`octane-analytics dlq`: dead letters counted, shown, retried, and what of them may go."""

import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import click

from octane_analytics.cli.dlq.counts import counts_by_reason, counts_table
from octane_analytics.cli.help_format import CommandGroup
from octane_analytics.cli.invocation import typed
from octane_analytics.cli.options import CLICKHOUSE, KAFKA, setting_options
from octane_analytics.cli.output.confirmation import confirm
from octane_analytics.cli.output.progress import reporter
from octane_analytics.cli.output.table import terminal_width
from octane_analytics.cli.output.timestamps import utc
from octane_analytics.clickhouse.inserts import ClickHouseSink
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
    DeadLetter,
    DeadLetterIndex,
    Selection,
    parse_dead_letter,
    parse_retry_marker,
)
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal
from octane_analytics.settings.loading import Loaded
from octane_analytics.types import OffsetRange, Record, TopicPartition
from octane_analytics.worker.preflight import check_table

_CLIENT_ID = "octane-analytics-dlq"
_SHOWN_CHARACTERS = 400
_RANGE = re.compile(r"(?:(\d+):)?(\d+)(?:-(\d+))?")

_kafka = setting_options(*KAFKA, "KAFKA_GROUP_ID", "KAFKA_DLQ_TOPIC")
_json = click.option("--json", "as_json", is_flag=True, help="JSON, for a program to read.")


def _ranges(
    ctx: click.Context, param: click.Parameter, texts: Sequence[str]
) -> list[tuple[int | None, int, int]]:
    found = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None or (match[3] and int(match[3]) < int(match[2])):
            raise click.BadParameter(
                f"{text!r} is no range: write FIRST-LAST, or PARTITION:FIRST-LAST, as in 0:100-199"
            )
        number, first, last = match.groups()
        found.append((None if number is None else int(number), int(first), int(last or first)))
    return found


_reason = click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    help="Only these; may be repeated.  [default: all]",
)
_offsets = click.option(
    "--offsets",
    "ranges",
    multiple=True,
    metavar="[PARTITION:]FIRST[-LAST]",
    callback=_ranges,
    help="Only letters at these offsets of the dead-letter topic; may be repeated.  [default: all]",
)


@click.group(cls=CommandGroup)
def dlq() -> None:
    """Count, show and retry dead letters."""


@dlq.command("list")
@_kafka
@_json
def list_letters(loaded: Loaded, as_json: bool) -> None:
    """Count the dead letters by reason: all, retried with success, and left.

    Reads the whole topic; one that does not exist yet counts as empty. A letter without its value,
    which was too large, cannot be retried.
    """
    with _log(loaded) as log:
        shelf = _read(log, _spans(log))
    rows = counts_by_reason(shelf.sorted())
    if as_json:
        click.echo(json.dumps({"topic": log.topic, "reasons": rows}, indent=2))
        return
    for line in counts_table(rows, terminal_width()):
        click.echo(line)
    left = sum(row["left"] for row in rows)
    click.echo(f"{len(shelf.letters):,} letters in {log.topic}, {left:,} left")


@dlq.command()
@_kafka
@_reason
@_offsets
@click.option(
    "--limit", type=click.IntRange(min=1), default=10, show_default=True, help="How many letters."
)
@click.option("--full", is_flag=True, help=f"All of a payload, not {_SHOWN_CHARACTERS} characters.")
@_json
def show(
    loaded: Loaded,
    reasons: Sequence[str],
    ranges: list[tuple[int | None, int, int]],
    limit: int,
    full: bool,
    as_json: bool,
) -> None:
    """Show letters: where each lies and came from, its error, its payload.

    The first ones of those that are asked for, retried or not. With --json one object a line, its
    value as text (what is not UTF-8 replaced).
    """
    choice = Selection(frozenset(reasons), ranges)
    left = limit
    with _log(loaded) as log:
        for records in log.read(_spans(log)):
            for record in records:
                if not left or parse_retry_marker(record) is not None:
                    continue
                letter = parse_dead_letter(record)
                if choice.includes(letter):
                    left -= 1
                    _show(letter, record, full, as_json)
            if not left:
                break
    if left == limit:
        click.echo("no such letters", err=True)


def _show(letter: DeadLetter, record: Record, full: bool, as_json: bool) -> None:
    value = record.value()
    payload = None if value is None else value.decode(errors="replace")
    origin = letter.origin
    if as_json:
        told = {
            "letter": str(letter.place),
            "time": utc(letter.made_ms),
            "reason": letter.reason,
            "detail": letter.detail,
            "origin": None if origin is None else dict(zip(_ORIGIN, origin, strict=True)),
            "retryable": letter.is_retryable,
            "bytes": letter.size,
            "dropped_bytes": letter.dropped,
            "value": payload,
        }
        click.echo(json.dumps(told))
        return
    came = "no worker sent it" if origin is None else f"from {origin[0]}[{origin[1]}]@{origin[2]}"
    click.echo(f"{letter.place}  {utc(letter.made_ms)}  {came}")
    click.echo(f"  {letter.reason}: {_printable(letter.detail)}")
    for part, size in letter.dropped.items():
        click.echo(f"  (without its {part}, too large to be kept: {size:,} bytes)")
    if payload is None:
        cut = f"too large to be kept: {letter.size:,} bytes" if letter.is_cut else "no value"
        click.echo(f"  ({cut})")
        return
    text = _printable(payload)
    is_short = full or len(text) <= _SHOWN_CHARACTERS
    click.echo(f"  {text if is_short else f'{text[:_SHOWN_CHARACTERS]}… ({letter.size:,} bytes)'}")


_ORIGIN = ("topic", "partition", "offset")


def _printable(text: str) -> str:
    """What came from outside must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dlq.command()
@setting_options(*KAFKA, "KAFKA_GROUP_ID", "KAFKA_DLQ_TOPIC", *CLICKHOUSE)
@_reason
@_offsets
@click.option(
    "--present",
    type=click.Choice([present.value for present in StoredRows]),
    default=StoredRows.REFUSE.value,
    show_default=True,
    help="Where letters have equal rows in the table, as after a replay of their range: refuse to "
    "insert anything, skip them (they are settled, not inserted), or insert them too.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be retried.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def retry(
    loaded: Loaded,
    reasons: Sequence[str],
    ranges: list[tuple[int | None, int, int]],
    present: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> Exit:
    """Put dead letters through this version's decoder and insert those that are events now.

    All that are left, or those that --reason and --offsets pick. What fails again stays as it is.
    Each record goes in once: progress is kept in the dead-letter topic itself, so this can be
    repeated, also after a crash, and a second retry at the same time makes the first one end. Ctrl-C
    stops between two chunks. The exit code is 1 when letters that were asked for stay.

    After a `replay` of their range letters are in the table already. That is looked for first, and
    nothing is inserted until --present says what to do about it. Do not retry while a replay runs.
    """
    choice = Selection(frozenset(reasons), ranges)
    settings = loaded.settings
    with (
        _log(loaded) as log,
        ClickHouseSink(settings.clickhouse, client_name="octane-analytics dlq retry") as sink,
    ):
        check_table(sink, settings)
        spans = _spans(log)
        shelf = _read(log, spans)
        found = shelf.sorted()
        chosen, duplicates, hopeless = select(found, choice)
        plan = (
            f"{len(chosen):,} letters of {log.topic} into {sink.table}; {len(duplicates):,} "
            f"duplicates left out, {len(hopeless):,} not retryable"
        )
        if found.pending:
            plan += f"; {len(found.pending):,} that an earlier retry announced come first"
        if dry_run:
            there = len(DeadLetterRetry(log, sink, decode, shelf).find_present(chosen))
            if there:
                plan += f"; {there:,} have equal rows in the table (see --present)"
        if dry_run or not spans or not (yes or chosen or found.pending):
            click.echo(plan)
            return Exit.OK
        confirm(f"retry {plan}?", "dlq retry", yes=yes)
        with StopSignal() as stop:
            log.open()
            outcome = _retry(log, sink, choice, StoredRows(present), stop, len(chosen))
        if as_json:
            click.echo(json.dumps(_outcome_object(outcome), indent=2))
        else:
            _tell(outcome)
        if stop.is_set():
            return stop.exit_code
    return Exit.FAILED if outcome.stayed else Exit.OK


def _retry(
    log: DeadLetterTopic,
    sink: ClickHouseSink,
    choice: Selection,
    present: StoredRows,
    stop: StopSignal,
    expected: int,
) -> RetryOutcome:
    # Only what stands there after the log was opened says what others have done.
    shelf = _read(log, log.spans())
    bar = reporter(f"from {log.topic}", expected)
    with bar:
        run = DeadLetterRetry(
            log,
            sink,
            decode,
            shelf,
            on_progress=lambda o: bar.update(o.done, f"{o.inserted:,} inserted, {o.stayed:,} stay"),
            is_stopping=stop.is_set,
        )
        run.recover()
        run.run(choice, present)
    return run.outcome


def _outcome_object(outcome: RetryOutcome) -> dict[str, Any]:
    return {
        "chosen": outcome.chosen,
        "inserted": outcome.inserted,
        "finished_of_an_earlier_retry": outcome.finished,
        "failed_again": dict(outcome.failed),
        "refused_by_clickhouse": outcome.refused,
        "not_retryable": outcome.not_retryable,
        "duplicates": outcome.duplicates,
        "present": outcome.present,
    }


def _tell(outcome: RetryOutcome) -> None:
    click.echo(f"{outcome.inserted:,} inserted, {outcome.stayed:,} stay")
    for told, count in (
        ("of those inserted, announced by an earlier retry", outcome.finished),
        *((f"stay: {reason}", count) for reason, count in outcome.failed.most_common()),
        ("stay: refused_by_clickhouse", outcome.refused),
        ("stay: without their value, or sent by no worker", outcome.not_retryable),
        ("left out: their record is inserted already", outcome.duplicates),
        ("settled: the table has them", outcome.present),
    ):
        if count:
            click.echo(f"  {count:,} {told}")


@dlq.command("purge-report")
@_kafka
@click.option(
    "--give-up",
    "reasons",
    multiple=True,
    metavar="REASON",
    help="Count letters of this reason as settled; may be repeated.  [default: none]",
)
@_json
def purge_report(loaded: Loaded, reasons: Sequence[str], as_json: bool) -> None:
    """Say up to which offsets the dead-letter topic is settled, and how to delete that.

    Everything below those offsets was retried with success, or has a reason that is given up.
    Deletes nothing itself: prints what kafka-delete-records takes. Letters that were retried are also
    what tells a later letter of the same record from a new one, so let the workers run for a while in
    between.
    """
    with _log(loaded) as log:
        spans = _spans(log)
        found = _read(log, spans).sorted()
    found.left = [letter for letter in found.left if letter.reason not in reasons]
    by_number = {where.partition: span for where, span in spans.items()}
    before = found.settled_before(by_number)
    records = [
        {"topic": log.topic, "partition": number, "offset": offset}
        for number, offset in before.items()
        if offset > by_number[number].first
    ]
    if as_json:
        click.echo(json.dumps({"partitions": records, "version": 1}, indent=2))
        return
    for record in records:
        first = by_number[int(str(record["partition"]))].first
        click.echo(
            f"partition {record['partition']}: {first} to {record['offset']} (exclusive) settled"
        )
    if not records:
        click.echo("nothing to purge: every partition begins with a letter that waits")
        return
    kafka = loaded.settings.kafka
    click.echo("to delete that, for good:")
    click.echo(f"  {typed('--json')} > settled.json")
    click.echo(
        f"  kafka-delete-records --bootstrap-server {shlex.quote(kafka.bootstrap_servers)} "
        "--offset-json-file settled.json"
    )
    if "security.protocol" in kafka.rdkafka:
        click.echo("  (add --command-config FILE with the properties of your TLS or SASL)")


@contextlib.contextmanager
def _log(loaded: Loaded) -> Iterator[DeadLetterTopic]:
    with DeadLetterTopic(loaded.settings.kafka, client_id=_CLIENT_ID) as log:
        yield log


def _spans(log: DeadLetterTopic) -> dict[TopicPartition, OffsetRange]:
    """What the topic holds; nothing, with a note, where it does not exist yet."""
    if log.has_topic():
        return log.spans()
    click.echo(
        f"topic {log.topic} does not exist: nothing was refused yet, or KAFKA_DLQ_TOPIC is another one",
        err=True,
    )
    return {}


def _read(log: DeadLetterTopic, spans: dict[TopicPartition, OffsetRange]) -> DeadLetterIndex:
    total = sum(span.end - span.first for span in spans.values())
    with reporter(f"reading {log.topic}", total) as bar:
        return read_index(log, spans, lambda letters: bar.update(letters, f"{letters:,} letters"))
