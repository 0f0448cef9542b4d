"""Output of the commands that send events: the counts and the reasons of failures."""

import click

from octane_analytics.cli.produce.sender import SendStats


def format_counts(stats: SendStats) -> str:
    """Return the delivered and failed lines in one phrase."""
    return f"{stats.delivered:,} delivered, {stats.failed:,} failed"


def print_result(stats: SendStats, seconds: float) -> None:
    """Print why lines failed on standard error, and the counts on standard output."""
    for why, reason in stats.reasons.items():
        click.echo(f"{reason.count:,} failed, first line {reason.first_line:,}: {why}", err=True)
    unacknowledged = f", {stats.outstanding:,} not acknowledged" if stats.outstanding else ""
    rate = f" ({stats.delivered / seconds:,.0f} events/s)" if stats.delivered and seconds else ""
    click.echo(f"{format_counts(stats)}{unacknowledged} in {seconds:.1f} s{rate}")
