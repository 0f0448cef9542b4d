"""Output of `replay`: the plan before it, the report after it."""

import json
from datetime import UTC, datetime

import click

from octane_analytics.cli.replay.report import ReplayReport
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan

_SHOWN_PARTITIONS = 32
_READ_RATE = 50_000.0
"""Events that one process reads and stages per second, for the estimate before the first read."""


def print_plan(
    plan: ReplayPlan,
    *,
    shards: int,
    sees_inserts: bool,
    is_dry: bool,
    as_json: bool,
    procs: int,
    rate: float | None,
) -> None:
    """Print the plan on standard output, or on standard error if the report is printed as JSON.

    `sees_inserts` means that the user may see the running inserts of the workers.
    """

    def echo(text: str) -> None:
        click.echo(text, err=as_json)

    echo(f"{plan.mode.value} {plan.database}.{plan.table} from {plan.topic} (replay {plan.id})")
    for p, span in list(plan.wanted.items())[:_SHOWN_PARTITIONS]:
        echo(f"  partition {p}: offsets {span.first:,} to {span.end:,}, {span.end - span.first:,}")
    if len(plan.wanted) > _SHOWN_PARTITIONS:
        echo(f"  and {len(plan.wanted) - _SHOWN_PARTITIONS} more partitions")
    echo(f"  {plan.events:,} events at most")
    extra = plan.to_read - plan.events
    if extra > 0:
        hint = ""
        if plan.mode is Mode.FILL and plan.compare is Compare.LOG and extra > plan.events:
            hint = " (not with --compare range)"
        echo(f"  {extra:,} more are read to count equal events{hint}")
    seconds = plan.to_read / min(_READ_RATE * procs, rate or float("inf"))
    echo(f"  about {max(1, round(seconds)):,} s to read")
    if plan.mode is Mode.REBUILD and shards > 1:
        echo(
            f"  a month is replaced in {shards} shards one after the other, not in one step: until the "
            "last one, readers see the new month of some and the old one of others"
        )
    if plan.mode is Mode.REBUILD and plan.is_live and not sees_inserts:
        echo(
            "  an insert that stalls meanwhile may be in the table twice afterwards: GRANT SELECT ON "
            "system.processes, with which the replay waits for it, or stop the workers"
        )
    if is_dry and not as_json:
        echo("  dry run: everything is read and compared, the table is not changed")


def print_report(report: ReplayReport, *, as_json: bool) -> None:
    """Print the report on standard output; rejected and undecided events on standard error."""
    if as_json:
        click.echo(json.dumps(as_dict(report)))
        return
    counts, plan = report.counts, report.plan
    click.echo(f"{counts.read:,} read, {counts.valid:,} valid")
    if counts.first_epoch is not None:
        click.echo(f"events from {_time(counts.first_epoch)} to {_time(counts.last_epoch)}")
    if counts.expired:
        click.echo(f"{counts.expired:,} older than the table's retention: not inserted")
    rejected = sum(counts.rejected.values())
    if rejected:
        reasons = ", ".join(f"{name} {n:,}" for name, n in sorted(counts.rejected.items()))
        click.echo(f"{rejected:,} invalid events, which the workers dead-lettered: {reasons}")
    if plan.mode is Mode.FILL:
        click.echo(f"{report.already_present:,} already present")
    would = "would be " if report.is_dry else ""
    click.echo(f"{report.inserted:,} {would}inserted in {report.seconds:.1f} s")
    if report.is_dry:
        click.echo(f"estimated duration: {_estimate(report):,.0f} s")
    if report.refused:
        click.echo(f"{report.refused:,} rejected by ClickHouse: {report.refusal}", err=True)
    if report.undecided:
        click.echo(
            f"{report.undecided:,} distinct events could not be counted, because the workers keep "
            "inserting equal events or have announced some and not finished: repeat the replay while "
            "the workers are idle",
            err=True,
        )


def as_dict(report: ReplayReport) -> dict[str, object]:
    """Return the report as an object for JSON."""
    counts, plan = report.counts, report.plan
    return {
        "id": plan.id,
        "mode": plan.mode.value,
        "target": f"{plan.database}.{plan.table}",
        "dry_run": report.is_dry,
        "partitions": {str(p): [span.first, span.end] for p, span in plan.wanted.items()},
        "first_timestamp": _time(counts.first_epoch),
        "last_timestamp": _time(counts.last_epoch),
        "read": counts.read,
        "valid": counts.valid,
        "already_present": report.already_present,
        "inserted": report.inserted,
        "dead_lettered": sum(counts.rejected.values()),
        "rejected": dict(counts.rejected),
        "expired": counts.expired,
        "refused": report.refused,
        "undecided": report.undecided,
        "seconds": round(report.seconds, 3),
    }


def _time(epoch_seconds: int | None) -> str | None:
    if epoch_seconds is None:
        return None
    return f"{datetime.fromtimestamp(epoch_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _estimate(report: ReplayReport) -> float:
    """Return the seconds of the replay: those of the dry run and the time to insert."""
    if not report.counts.read:
        return report.seconds
    seconds_per_event = report.read_seconds / max(1, report.plan.to_read)
    return report.seconds + report.inserted * seconds_per_event
