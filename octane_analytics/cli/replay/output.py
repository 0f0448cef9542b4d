"""What `replay` tells: its plan before, its report after."""

import json
from datetime import UTC, datetime

import click

from octane_analytics.cli.replay.run import ReplayReport
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan

_SHOWN = 32
_READ_RATE = 50_000.0
"""Events that one process reads and stages in a second, for an estimate before anything is read."""


def print_plan(
    plan: ReplayPlan, *, is_dry: bool, is_json: bool, procs: int, rate: float | None
) -> None:
    """On standard error where standard output is for the report alone."""

    def say(text: str) -> None:
        click.echo(text, err=is_json)

    say(f"{plan.mode.value} {plan.database}.{plan.table} from {plan.topic} (replay {plan.id})")
    for p, span in list(plan.wanted.items())[:_SHOWN]:
        say(f"  partition {p}: offsets {span.first:,} to {span.end:,}, {span.end - span.first:,}")
    if len(plan.wanted) > _SHOWN:
        say(f"  and {len(plan.wanted) - _SHOWN} more partitions")
    say(f"  {plan.events:,} events at most")
    extra = plan.to_read - plan.events
    if extra > 0:
        hint = ""
        if plan.mode is Mode.FILL and plan.compare is Compare.LOG and extra > plan.events:
            hint = " (--compare range does without them)"
        say(f"  {extra:,} more are read to tell equal events apart{hint}")
    seconds = plan.to_read / min(_READ_RATE * procs, rate or float("inf"))
    say(f"  about {max(1, round(seconds)):,} s to read")
    if is_dry and not is_json:
        say("  a dry run: everything is read and compared, the table stays as it is")


def print_report(report: ReplayReport, *, is_json: bool) -> None:
    if is_json:
        click.echo(json.dumps(as_dict(report)))
        return
    counts, plan = report.counts, report.plan
    click.echo(f"{counts.read:,} read, {counts.valid:,} valid")
    if counts.first_epoch is not None:
        click.echo(f"events of {_time(counts.first_epoch)} to {_time(counts.last_epoch)}")
    if counts.expired:
        click.echo(f"{counts.expired:,} older than the table keeps rows: left alone")
    rejected = sum(counts.rejected.values())
    if rejected:
        reasons = ", ".join(f"{name} {n:,}" for name, n in sorted(counts.rejected.items()))
        click.echo(f"{rejected:,} dead-lettered by the workers before, as no events: {reasons}")
    if plan.mode is Mode.FILL:
        click.echo(f"{report.already_present:,} already present")
    would = "would be " if report.is_dry else ""
    click.echo(f"{report.inserted:,} {would}inserted in {report.seconds:.1f} s")
    if report.is_dry:
        click.echo(f"estimated duration: {_estimate(report):,.0f} s")
    if report.refused:
        click.echo(f"{report.refused:,} refused by ClickHouse: {report.refusal}", err=True)
    if report.undecided:
        click.echo(
            f"{report.undecided:,} different events could not be counted, for the workers insert "
            "equal ones all the time, or have announced some and not finished: run it again when "
            "they are idle",
            err=True,
        )


def as_dict(report: ReplayReport) -> dict[str, object]:
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
    """A dry run has done all but inserting."""
    if not report.counts.read:
        return report.seconds
    each = report.read_seconds / max(1, report.plan.to_read)
    return report.seconds + report.inserted * each
