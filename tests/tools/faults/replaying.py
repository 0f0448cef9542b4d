"""Replay over many events, killed at random, and everything counted.

`python -m tests.tools.faults.replaying` is the long form of tests/acceptance/test_cli_replay.py, on a
real Apache Kafka and an embedded ClickHouse. Prints figures as it goes; exits with 1 where a
table differs from what it has to hold.
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

from octane_analytics.errors import StatementRejected
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.support.command import wait_until
from tests.support.replay_runs import Multiset, Scene, kill, pool
from tests.tools.kafka.apache import ApacheKafka

_RATE = "40000"
"""Rate low enough that a kill meets a running replay; reading and inserting take equally long."""
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@click.command()
@click.option("--events", default=200_000, show_default=True, help="Events in the topic.")
@click.option("--partitions", default=4, show_default=True, help="Partitions of the topic.")
@click.option("--kills", default=10, show_default=True, help="How often each replay is killed.")
@click.option("--rate", default=5_000, show_default=True, help="Live events a second.")
@click.option("--seed", default=1, show_default=True)
def main(events: int, partitions: int, kills: int, rate: int, seed: int) -> None:
    """Run fill, also with live workers, then kill fill, append and rebuild; count the rows each time."""
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
        for mode in ("fill", "append", "rebuild"):
            appended = _Kills(scene, chance, mode).land(kills)
            wanted = log
            for _ in range(appended if mode == "append" else 0):
                wanted = wanted + log
            expect(f"killed {mode}", scene.table(), wanted)
            scene.clickhouse.execute(f"TRUNCATE TABLE {scene.clickhouse.table}")
            scene.replay("--from-offset", "0")

        scene.lose()
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
            problems.append(f"not removed: {scene.left_behind()}")
    click.echo("; ".join(problems) or "everything is as it has to be")
    raise SystemExit(bool(problems))


class _Kills:
    """Test one mode: `kill -9` of a replay at random moments, each followed by --resume.

    A moment is drawn from the duration of an undisturbed replay, from first journal entry to end.
    A moment after the end of the replay is not counted; a new replay is started then.
    """

    def __init__(self, scene: Scene, chance: random.Random, mode: str) -> None:
        self._scene = scene
        self._chance = chance
        self._mode = mode
        self._ended = 0

    def land(self, kills: int) -> int:
        """Return the number of replays that ended, each after its last resumption."""
        process = self._begin()
        begun_at = self._begun(process)
        assert begun_at is not None
        seconds = self._end(process) - begun_at
        click.echo(f"{self._mode} undisturbed: {seconds:.1f} s")
        landed = missed = 0
        process = self._begin()
        while landed < kills:
            begun_at = self._begun(process)
            moment = self._chance.random() * seconds
            if begun_at is None or not _lives(process, begun_at + moment):
                missed += 1
                self._end(process)
                process = self._begin()
                continue
            where = self._where()
            kill(process)
            replay_id = self._scene.unfinished()
            if replay_id is None:
                missed += 1  # it had already dropped its last table
                self._ended += 1
                process = self._begin()
                continue
            landed += 1
            click.echo(f"  kill {landed} after {moment:.1f} s, {where}")
            process = self._scene.start("--resume", replay_id, "--rate", _RATE)
        self._end(process)
        click.echo(f"  {landed} kills landed, {missed} came too late; {self._ended} replays ended")
        return self._ended

    def _begin(self) -> subprocess.Popen[bytes]:
        if self._mode != "append":
            self._scene.lose()
        arguments = ("--from-offset", "0", "--mode", self._mode, "--rate", _RATE)
        return self._scene.start(*arguments, "--procs", str(self._chance.randint(1, 2)))

    def _begun(self, process: subprocess.Popen[bytes]) -> float | None:
        """When this process, not one before it, had noted that it is at work; None if it has ended."""
        has_begun = False

        def look() -> bool:
            nonlocal has_begun
            has_begun = f'"pid": {process.pid},' in self._journal("argMax(body, at)", "'owner'")
            return has_begun or process.poll() is not None

        wait_until(look, 60)
        return time.monotonic() if has_begun else None

    def _end(self, process: subprocess.Popen[bytes]) -> float:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, (process.returncode, out, err)
        self._ended += 1
        return time.monotonic()

    def _where(self) -> str:
        """Return the step that the replay was at, by its journal."""
        last = self._journal("argMax(kind, at)", "'owner', 'planned', 'pass', 'chunk', 'done'")
        return f"last note {last or 'none'}, {self._scene.rows():,} rows in the table"

    def _journal(self, what: str, kinds: str) -> str:
        replay_id = self._scene.unfinished()
        if replay_id is None:
            return ""
        journal = f"{self._scene.name}.octane_replay_{replay_id}_journal"
        try:
            found = self._scene.clickhouse.select(
                f"SELECT toString({what}) FROM {journal} WHERE kind IN ({kinds})"
            )
        except StatementRejected:
            return ""  # not created yet, or just dropped
        return str(found.rows[0][0])


def _lives(process: subprocess.Popen[bytes], until: float) -> bool:
    """Block until that moment; return whether the replay is still running."""
    while time.monotonic() < until:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return process.poll() is None


def _ended(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    started = time.monotonic()
    out, err = process.communicate(timeout=600)
    if process.returncode:
        click.echo(out + err)
    return time.monotonic() - started, process.returncode


def _peak_mib(process: subprocess.Popen[bytes]) -> Callable[[], float]:
    """Sampler of the largest process of the command; read it after the end."""
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
