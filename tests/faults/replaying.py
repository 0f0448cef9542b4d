"""`python -m tests.faults.replaying`: replay over many events, killed at random, and everything counted.

The long form of tests/acceptance/test_cli_replay.py, on a real Apache Kafka and an embedded ClickHouse.
Prints figures as it goes; exits with 1 where a table differs from what it has to hold.
"""

import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.acceptance.command import wait_until
from tests.acceptance.replaying import Multiset, Scene, kill, pool
from tests.kafka.apache import ApacheKafka

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@click.command()
@click.option("--events", default=200_000, show_default=True, help="Events in the topic.")
@click.option("--partitions", default=4, show_default=True, help="Partitions of the topic.")
@click.option("--kills", default=10, show_default=True, help="How often each replay is killed.")
@click.option("--rate", default=5_000, show_default=True, help="Live events a second.")
@click.option("--seed", default=1, show_default=True)
def main(events: int, partitions: int, kills: int, rate: int, seed: int) -> None:
    """Runs fill, fill beside live workers, killed fills, a killed append and a rebuild, and counts."""
    chance = random.Random(seed)
    different = pool(events // 3, seed)
    problems: list[str] = []

    def draw(count: int) -> list[bytes]:
        return [chance.choice(different) for _ in range(count)]

    def expect(what: str, found: Multiset, wanted: Multiset) -> None:
        missing = sum((wanted - found).values())
        surplus = sum((found - wanted).values())
        click.echo(f"{what}: {sum(wanted.values()):,} rows, {missing} missing, {surplus} too many")
        if missing or surplus:
            problems.append(what)

    with (
        tempfile.TemporaryDirectory(prefix="octane-replay-") as directory,
        EmbeddedClickHouse(Path(directory) / "clickhouse") as engine,
        ApacheKafka() as kafka,
        Scene(kafka, engine, Path(directory), partitions) as scene,
    ):
        scene.produce(draw(events))
        took = scene.ingest()
        click.echo(f"ingested in {took:.1f} s: {events / took:,.0f} events/s (two workers)")
        scene.lose()
        for procs in (1, 2):
            process = scene.start("--from-offset", "0", "--procs", str(procs))
            peak = _peak_mib(process)
            seconds, _ = _ended(process)
            click.echo(
                f"fill with {procs} in {seconds:.1f} s: {events / seconds:,.0f} events/s, "
                f"{peak():,.0f} MiB at most"
            )
            expect("fill", scene.table(), scene.log())
            if scene.replay("--from-offset", "0")["inserted"]:
                problems.append("a second fill inserted something")
            scene.clickhouse.execute(f"TRUNCATE TABLE {scene.clickhouse.table}")
        scene.replay("--from-offset", "0")

        scene.lose()
        with scene.working(), scene.producing(draw(events // 4), rate) as producing:
            wait_until(lambda: scene.rows() > events * 2 // 3 + rate, 60)
            report = scene.replay("--from-offset", "0")
            click.echo(f"beside live workers: {report['inserted']:,} in {report['seconds']} s")
            producing.join()
            wait_until(lambda: scene.lag() == 0, 120)
        expect("fill beside live workers", scene.table(), scene.log())

        log = scene.log()
        scene.lose()
        _killed(scene, chance, kills, "--from-offset", "0")
        expect("killed fill", scene.table(), log)
        _killed(scene, chance, kills, "--from-offset", "0", "--mode", "append")
        expect("killed append", scene.table(), log + log)

        seen, before = set(), sum(scene.table().values())
        is_done = threading.Event()

        def watch() -> None:
            with scene.connection() as clickhouse:
                while not is_done.is_set():
                    seen.add(sum(scene.months(clickhouse).values()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        seconds = scene.replay("--from-offset", "0", "--mode", "rebuild")["seconds"]
        is_done.set()
        watcher.join()
        expect("rebuild", scene.table(), log)
        click.echo(f"rebuild in {seconds} s; readers saw {sorted(seen)}")
        if not seen <= {before, sum(log.values())}:
            problems.append("readers saw a partial month")
        if scene.left_behind():
            problems.append(f"left behind: {scene.left_behind()}")
    click.echo("; ".join(problems) or "everything is as it has to be")
    raise SystemExit(bool(problems))


def _killed(scene: Scene, chance: random.Random, kills: int, *arguments: str) -> None:
    """Kills the replay at random moments of its life, and resumes it each time."""
    # So slowly that there is something to kill, and reading and inserting take about as long.
    paced = (*arguments, "--rate", "40000")
    process = scene.start(*paced)
    for number in range(kills):
        has_ended = _has_ended(process)
        wait_until(lambda: scene.unfinished() is not None or has_ended(), 60)  # noqa: B023
        if number % 2:
            # Within an insert: the journal has a chunk begun and not ended.
            wait_until(lambda: _is_inserting(scene) or has_ended(), 60)  # noqa: B023
            time.sleep(chance.random() * 0.1)
        else:
            time.sleep(chance.random() * 2.5)
        kill(process)
        replay_id = scene.unfinished()
        if replay_id is None:
            click.echo(f"  done after {number} kills")
            return
        click.echo(f"  killed with {scene.rows():,} rows in the table")
        process = scene.start("--resume", replay_id, "--rate", "40000")
    _, code = _ended(process)
    click.echo(f"  ended with {code}")


def _has_ended(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: process.poll() is not None


def _is_inserting(scene: Scene) -> bool:
    replay_id = scene.unfinished()
    if replay_id is None:
        return False
    journal = f"{scene.name}.octane_replay_{replay_id}_journal"
    found = scene.clickhouse.select(
        f"SELECT countIf(kind = 'chunk') > countIf(kind = 'done') FROM {journal} "
        "WHERE at > now64(3) - 1"
    )
    return bool(found.rows[0][0])


def _ended(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    started = time.monotonic()
    out, err = process.communicate(timeout=600)
    if process.returncode:
        click.echo(out + err)
    return time.monotonic() - started, process.returncode


def _peak_mib(process: subprocess.Popen[bytes]) -> Callable[[], float]:
    """Watches the largest of the command's processes; to be asked after its end."""
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            for pid in (process.pid, *_children(process.pid)):
                try:
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                peak[0] = max(peak[0], pages * _PAGE_MIB)
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return lambda: peak[0]


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
