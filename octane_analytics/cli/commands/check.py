"""`octane-analytics check`: the prerequisites of `worker` and `api`."""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import click

from octane_analytics.cli.help_format import Command
from octane_analytics.cli.options import (
    CLICKHOUSE,
    KAFKA,
    json_option,
    setting_options,
    unknown_settings,
)
from octane_analytics.cli.output.table import terminal_width, wrapped
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import ConfigError, OctaneError
from octane_analytics.events.decoders import choose
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.topic_reader import TopicReader
from octane_analytics.operations.checks.clickhouse import check_clickhouse
from octane_analytics.operations.checks.cluster import CheckedReplica, check_cluster
from octane_analytics.operations.checks.finding import Finding, Level, fail, ok, warn, worst
from octane_analytics.operations.checks.host import check_descriptors, check_port
from octane_analytics.operations.checks.kafka import check_kafka
from octane_analytics.operations.checks.query_user import check_no_query_user, check_query_user
from octane_analytics.operations.checks.runner import Check, downgrade_redundant_failures, run_all
from octane_analytics.operations.expired_offsets import SAMPLE_FETCH_BYTES, find_stored_record
from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.drain import require_drain_time
from octane_analytics.settings.loading import Loaded
from octane_analytics.settings.sections import Settings
from octane_analytics.settings.topology import authority
from octane_analytics.worker.table_mark import read_table_mark

_NAME = "octane-analytics-check"
_SECONDS = 12.0
_QUERY_SECONDS = 5.0
_SAMPLE_SECONDS = 5.0
_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command(cls=Command)
@setting_options(
    "WORKER_PROCS",
    *KAFKA,
    "KAFKA_GROUP_ID",
    "KAFKA_DLQ_TOPIC",
    *CLICKHOUSE,
    "CLICKHOUSE_QUERY_USER",
    "API_QUERY_TABLES",
    "FLUSH_INTERVAL",
    "INSERTS_PER_SECOND",
    "DELIVERY",
    "DECODER",
    "CLICKHOUSE_INSERT_QUORUM",
    "METRICS_HOST",
    "METRICS_PORT",
    "API_HOST",
    "API_PORT",
    should_warn=False,
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there are only warnings.")
@json_option()
def check(loaded: Loaded, strict: bool, as_json: bool) -> int:
    """Check the prerequisites of the worker and the API.

    Checks the settings, Kafka (topics, group, clock), ClickHouse (table, deduplication window, rights
    of CLICKHOUSE_USER and CLICKHOUSE_QUERY_USER, clock, disk; with several servers that they are the
    replicas and shards of CLICKHOUSE_HOST) and this host (ports, open files,
    decoder). Each line is OK, WARN or FAIL and says what to do. Changes nothing. Ends within 15 seconds,
    also if servers are unreachable.

    \b
    Exit codes: 0 no failure (with --strict: and no warning, otherwise 1),
      69 a server cannot be reached, 78 something must be fixed first.
    """
    settings = loaded.settings
    checks: dict[str, Check] = {
        "settings": partial(_settings, loaded, unknown_settings()),
        "host": partial(_host, settings),
        "kafka": partial(_kafka, settings),
    }
    shards = [
        [authority(*address) for address in shard.hosts()]
        for shard in settings.clickhouse.of_each_shard()
    ]
    servers = [where for shard in shards for where in shard]
    for shard, own in zip(shards, settings.clickhouse.of_each_shard(), strict=True):
        for where in shard:
            checks[f"clickhouse {where}"] = partial(
                _clickhouse, replace(settings, clickhouse=own), where
            )
    if len(servers) > 1 or settings.clickhouse.cluster is not None:
        checks["cluster"] = partial(_cluster, settings)
    checks["table and offsets"] = partial(_table_and_offsets, settings)
    checks["raw SQL"] = partial(_raw_sql, settings, servers)
    findings, have_ended = run_all(checks, _SECONDS)
    for shard in shards:
        subjects = [f"clickhouse {where}" for where in shard]
        findings = downgrade_redundant_failures(findings, subjects)
    code = exit_code(findings, strict)
    _print(findings, code, as_json)
    if not have_ended:
        # A thread that still waits for a server would block the clients' shutdown.
        sys.stdout.flush()
        os._exit(code)
    return code


def exit_code(findings: list[Finding], strict: bool) -> Exit:
    """Return the code of the worst finding; an unreachable server is less than a failure to be fixed."""
    level = worst(findings)
    if level is Level.FAIL:
        failures = (f for f in findings if f.level is Level.FAIL)
        return Exit.UNAVAILABLE if all(f.may_pass for f in failures) else Exit.CONFIG
    return Exit.FAILED if strict and level is Level.WARN else Exit.OK


def check_decoder(settings: Settings) -> Finding:
    """Check that DECODER can be had, and warn if it is `auto` and the compiled one was not built."""
    try:
        decoder = choose(settings.worker.decoder)
    except ConfigError as error:
        return fail("decoder", f"a worker would not start: {error}")
    if decoder.missing:
        return warn(
            "decoder",
            f"{decoder.name}, at several times the CPU time: {decoder.missing}; install a C compiler "
            "and Python's headers and repeat the installation, or accept it with DECODER=python",
        )
    return ok("decoder", decoder.name)


def _settings(loaded: Loaded, unknown: Sequence[str]) -> Iterator[Finding]:
    sources = Counter(origin.source for origin in loaded.origins)
    del sources["default"]
    counts = ", ".join(f"{count} by {source}" for source, count in sources.items())
    yield ok("settings", f"valid; {counts or 'all are defaults'} (see `octane-analytics config`)")
    for line in unknown:
        yield warn("settings", line)
    try:
        require_drain_time(loaded.settings)
    except ConfigError as error:
        yield fail("settings", f"a worker would not start: {error}")


def _host(settings: Settings) -> Iterator[Finding]:
    yield check_port("METRICS_PORT", settings.metrics.host, settings.metrics.port)
    yield check_port("API_PORT", settings.api.host, settings.api.port)
    yield check_descriptors()
    yield check_decoder(settings)


def _kafka(settings: Settings) -> Iterator[Finding]:
    own = read_table_mark(settings)
    with ConsumerGroupAdmin(settings.kafka, client_id=_NAME) as group:
        yield from check_kafka(group, settings, time.time(), own)


def _clickhouse(settings: Settings, where: str) -> Iterator[Finding]:
    single = _single_server(settings.clickhouse, where)
    with ClickHouse(single, client_name=_NAME) as server:
        yield from check_clickhouse(server, where, settings, time.time)


def _cluster(settings: Settings) -> Iterator[Finding]:
    with contextlib.ExitStack() as stack:
        servers = [
            CheckedReplica(
                where := authority(*address),
                shard.number,
                stack.enter_context(
                    ClickHouse(_single_server(settings.clickhouse, where), client_name=_NAME)
                ),
            )
            for shard in settings.clickhouse.topology().shards
            for address in shard.hosts
        ]
        yield from check_cluster(servers, settings.clickhouse)


def _table_and_offsets(settings: Settings) -> Iterator[Finding]:
    """Yield a finding if a worker would refuse to start; other checks report unreachable servers."""
    quick = replace(
        settings.clickhouse,
        timeout_seconds=min(settings.clickhouse.timeout_seconds, _QUERY_SECONDS),
    )
    for shard in quick.of_each_shard():
        with (
            TopicReader(settings.kafka, client_id=_NAME, fetch_bytes=SAMPLE_FETCH_BYTES) as log,
            ClickHouseSink(shard, client_name=_NAME) as table,
            contextlib.suppress(OctaneError),
        ):
            stored = find_stored_record(log, table, _SAMPLE_SECONDS)
            if stored is not None:
                yield warn(
                    "offsets",
                    f"{stored.explain(log.group, table.table)}; until then it exits with 78",
                )
                return


def _raw_sql(settings: Settings, servers: list[str]) -> Iterator[Finding]:
    finding = check_no_query_user(settings)
    if finding is not None:
        yield finding
        return
    queries = settings.queries
    querying = replace(settings.clickhouse, user=str(queries.user), password=queries.password)
    for where in servers:
        single = _single_server(querying, where)
        with ClickHouse(single, client_name=_NAME, is_confined=True) as server:
            yield from check_query_user(server, where, settings)


def _single_server(settings: ClickHouseSettings, where: str) -> ClickHouseSettings:
    """Return the settings for one server of the list, with a short timeout."""
    return replace(
        settings,
        host=where,
        shard_weights=(),
        timeout_seconds=min(settings.timeout_seconds, _QUERY_SECONDS),
    )


def _print(findings: list[Finding], code: Exit, as_json: bool) -> None:
    counts = Counter(finding.level for finding in findings)
    if as_json:
        result = {
            "exit_code": int(code),
            "failures": counts[Level.FAIL],
            "warnings": counts[Level.WARN],
            "checks": [
                {"level": f.level.name, "subject": f.subject, "message": f.message}
                for f in findings
            ],
        }
        click.echo(json.dumps(result, indent=2))
        return
    longest = max(len(finding.subject) for finding in findings)
    width = terminal_width()
    for finding in findings:
        name = finding.level.name.ljust(4)
        line = wrapped(
            finding.message,
            width,
            first=f"{name}  {finding.subject:<{longest}}  ",
            indent=longest + 8,
        )
        click.echo(click.style(name, fg=_COLOURS[finding.level]) + line.removeprefix(name))
    click.echo(f"{counts[Level.FAIL]} failures, {counts[Level.WARN]} warnings")
