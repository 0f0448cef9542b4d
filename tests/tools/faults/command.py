"""The command line of bin/faults: injects faults while events flow, then counts rows."""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.tools.cluster import zookeeper
from tests.tools.faults.audit import Report
from tests.tools.faults.engines import APACHE, CLUSTER, EMBEDDED, Engines
from tests.tools.faults.scenarios import SCENARIOS, Scenario
from tests.tools.faults.stack import AT_LEAST_ONCE, EXACTLY_ONCE, Shape, Stack, directory_for_logs
from tests.tools.kafka.apache import available

BREAK_SECONDS = 20.0
SETTLE_SECONDS = 60.0
_RANDOM_TURN_SECONDS = 8.0


@dataclass(frozen=True)
class Result:
    scenario: str
    broker: str
    breaks: int
    report: Report
    seconds: float


def run_scenario(
    engines: Engines,
    scenario: Scenario,
    shape: Shape,
    seed: int,
    *,
    break_seconds: float,
    settle_seconds: float,
    logs: Path,
) -> Result:
    """Run one scenario on a new stack. Raise the error that prevented it."""
    started = time.monotonic()
    with Stack(engines, shape, seed, logs) as stack:
        stack.begin()
        breaks = scenario.run(stack, random.Random(seed), time.monotonic() + break_seconds)
        report = stack.finish(settle_seconds)
    return Result(scenario.name, engines.broker, breaks, report, time.monotonic() - started)


def run_at_random(
    engines: Engines,
    scenarios: Sequence[Scenario],
    shape: Shape,
    seed: int,
    *,
    seconds: float,
    settle_seconds: float,
    logs: Path,
    say: Console,
) -> Result:
    """Run scenario after scenario on one stack that is never recreated; count at the end.

    A failed scenario is a problem of the report; what it left broken is repaired.
    """
    started, rng, breaks = time.monotonic(), random.Random(seed), 0
    problems = []
    with Stack(engines, shape, seed, logs) as stack:
        stack.begin()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            scenario = rng.choice(scenarios)
            say.print(f"{time.monotonic() - started:6.0f} s  {scenario.name}", highlight=False)
            turn = rng.uniform(1.0, _RANDOM_TURN_SECONDS)
            try:
                breaks += scenario.run(stack, rng, time.monotonic() + turn)
            except Exception as error:
                traceback.print_exc()
                problems.append(f"{scenario.name}: {type(error).__name__}: {error}")
                stack.mend()
            time.sleep(rng.uniform(0.0, 2.0))
        report = stack.finish(settle_seconds)
        report.problems += problems
    return Result(f"random {seed}", engines.broker, breaks, report, time.monotonic() - started)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:22} {scenario.description} ({', '.join(scenario.brokers)})")
        return 0
    brokers = [APACHE, EMBEDDED] if options.broker == "both" else [options.broker]
    reasons = [available()] if brokers != [EMBEDDED] else []
    reasons += [zookeeper.available()] if options.replicas > 1 else []
    for reason in filter(None, reasons):
        print(f"faults: {reason}", file=sys.stderr)
        return 1
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    say = Console(stderr=True)
    say.print(f"seed {seed}", highlight=False)
    has_intents = options.delivery == EXACTLY_ONCE
    chosen = [SCENARIOS[name] for name in options.scenario or SCENARIOS]
    chosen = [scenario for scenario in chosen if has_intents or not scenario.needs_intents]
    shape = Shape(
        delivery=options.delivery,
        rate=options.rate,
        hosts=options.hosts,
        procs=options.procs,
        partitions=options.partitions,
        batch_size=options.batch_size,
        log_level=options.log_level,
        settings={"CLICKHOUSE_INSERT_QUORUM": str(options.insert_quorum)},
    )
    results: list[Result] = []
    with directory_for_logs(options.logs) as logs:
        for broker in brokers:
            shards, replicas = options.shards, options.replicas
            fitting = [s for s in chosen if s.fits(broker, shards, replicas)]
            with Engines(broker, logs / broker, shards=shards, replicas=replicas) as engines:
                results += _run(engines, fitting, shape, seed, options, logs, say)
    Console(width=None if sys.stdout.isatty() else 150).print(_table(results))
    for result in results:
        for number, counts in enumerate(result.report.by_server, start=1):
            if len(counts) > 1:
                print(f"{result.scenario}: shard {number}: {'; '.join(map(str, counts))}")
        for problem in result.report.problems:
            print(f"{result.scenario} ({result.broker}): {problem}")
    return 1 if any(result.report.problems for result in results) else 0


def _run(
    engines: Engines,
    scenarios: Sequence[Scenario],
    shape: Shape,
    seed: int,
    options: argparse.Namespace,
    logs: Path,
    say: Console,
) -> list[Result]:
    if options.random:
        seconds = 60.0 * (options.minutes or 5.0)
        return [
            run_at_random(
                engines,
                scenarios,
                shape,
                seed,
                seconds=seconds,
                settle_seconds=SETTLE_SECONDS,
                logs=logs,
                say=say,
            )
        ]
    break_seconds = BREAK_SECONDS
    if options.minutes is not None and scenarios:
        break_seconds = 60.0 * options.minutes / len(scenarios)
    results = []
    for scenario in scenarios:
        say.print(f"{engines.broker}: {scenario.name}", highlight=False)
        started = time.monotonic()
        try:
            result = run_scenario(
                engines,
                scenario,
                shape,
                seed,
                break_seconds=break_seconds,
                settle_seconds=SETTLE_SECONDS,
                logs=logs,
            )
        except Exception as error:  # a failed scenario does not end the run
            traceback.print_exc()
            report = Report(problems=[f"{type(error).__name__}: {error}"])
            seconds = time.monotonic() - started
            result = Result(scenario.name, engines.broker, 0, report, seconds)
        results.append(result)
        for problem in result.report.problems:
            say.print(f"    {problem}", highlight=False)
    return results


def _table(results: Sequence[Result]) -> Table:
    table = Table()
    for column in ("scenario", "broker"):
        table.add_column(column, no_wrap=True)
    for column in (
        *("breaks", "produced", "count", "unique", "missing", "duplicates", "poison", "dead"),
        "seconds",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for result in results:
        report = result.report
        figures = (
            *(result.breaks, report.produced, report.count, report.unique, report.missing),
            *(report.duplicates, report.poison, report.dead_letters, round(result.seconds)),
        )
        verdict = "[red]FAILED[/red]" if report.problems else "[green]ok[/green]"
        table.add_row(
            result.scenario, result.broker, *(f"{figure:,}" for figure in figures), verdict
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/faults",
        description="Breaks what can break while events flow from Kafka into ClickHouse, then counts "
        "every one of them. The exit code is 1 when one is missing or, where exactly once is "
        "promised, there twice.",
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument(
        "--scenario",
        nargs="+",
        choices=list(SCENARIOS),
        metavar="NAME",
        help="only these (default: all)",
    )
    parser.add_argument(
        "--broker",
        choices=[APACHE, EMBEDDED, CLUSTER, "both"],
        default=APACHE,
        help="Apache Kafka (needs Java and Maven), the embedded mock cluster, a cluster of Apache Kafka "
        "with three brokers, or the first two one after the other",
    )
    parser.add_argument("--delivery", choices=[EXACTLY_ONCE, AT_LEAST_ONCE], default=EXACTLY_ONCE)
    parser.add_argument(
        "--random",
        action="store_true",
        help="scenarios at random on one running stack, counted at the end",
    )
    parser.add_argument("--seed", type=int, help="of what is left to chance (default: a new one)")
    parser.add_argument(
        "--minutes",
        type=float,
        help="how long things are broken, altogether for each broker (default: 20 seconds for each "
        "scenario; 5 with --random)",
    )
    parser.add_argument("--rate", type=float, default=1500.0, help="events per second")
    parser.add_argument("--procs", type=int, default=3, help="worker processes of each host")
    parser.add_argument("--partitions", type=int, default=8, help="of the topic (default: 8)")
    parser.add_argument("--shards", type=int, default=1, help="of the table (default: 1)")
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        help="ClickHouse servers of each shard; several need Java and Maven for ZooKeeper (default: 1)",
    )
    parser.add_argument(
        "--hosts", type=int, choices=(1, 2, 3), default=1, help="worker commands in the group"
    )
    parser.add_argument(
        "--insert-quorum", type=int, default=0, help="CLICKHOUSE_INSERT_QUORUM (default: 0)"
    )
    parser.add_argument("--batch-size", type=int, default=150, help="of the workers (default: 150)")
    parser.add_argument("--logs", type=Path, help="directory to keep all logs in")
    parser.add_argument("--log-level", default="info", help="of the workers")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
