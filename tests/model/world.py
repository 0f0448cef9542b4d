"""A model of the world around the real DeliveryState: coordinator, table, network and crashes.

A world is copied for every step, so that a search can follow all of them. The log of each partition has
a few records from offset 0 on; a row is (partition, offset). Faults have budgets; without budget left
for any, the search ends because every fault-free step makes progress.

What is modelled of Kafka: commits are taken from members of the current generation, whatever they own;
a commit may be refused, its answer lost, it may be delayed until its generation ends, or be taken for
some partitions only. Of ClickHouse: a token that was noted has its insert dropped; a server that is
killed between token and part has noted the token of rows that it does not have; an insert of a dead
worker may arrive at any time; a repeat looks for its rows, inserts the shortfall and looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

from octane_analytics.pipeline.delivery_state import DeliveryState
from octane_analytics.pipeline.intents import Intent, completed
from octane_analytics.pipeline.pending_batch import PendingBatch
from octane_analytics.pipeline.start_positions import start_position
from octane_analytics.types import Commit, CommitOutcome, Committed, LogIdentity

TOPIC = "t"
Row = tuple[int, int]
Rows = frozenset[Row]
NO_ROWS: Rows = frozenset()


class Violation(AssertionError):
    """An event is in the table twice, the group has moved past one that is not, or moves back."""


@dataclass(frozen=True)
class Setup:
    """What may happen in a world, and how often."""

    workers: int = 2
    partitions: int = 2
    records: int = 2
    crashes: int = 0
    moves: int = 0
    expiries: int = 0
    """Sessions that end without the knowledge of their worker."""
    lost_commits: int = 0
    """Commits that were taken and whose answer was lost."""
    resent_commits: int = 0
    """Commits that were taken, whose answer was lost, and whose second request was refused."""
    delayed_commits: int = 0
    refused_commits: int = 0
    partial_commits: int = 0
    failed_inserts: int = 0
    """Inserts whose answer was lost, and that were or were not made."""
    half_inserts: int = 0
    """Inserts that ClickHouse was killed in, between token and part."""
    removals: int = 0
    """Retention removes the first record of a partition that it still has."""
    recreations: int = 0
    shards: int = 1
    """Shards that are listed at the beginning; one has no name, and stays the only one."""
    renewals: int = 0
    """Batches that are announced again before their insert, because it is late."""
    relistings: int = 0
    """Changes of the list of shards: one is added or removed, or the order changes."""
    follows_intent: bool = True
    """False for workers that insert into the shard that is first in the list."""
    refused_partition: int | None = None
    """The coordinator takes no commit of it before the first crash."""
    state: type[DeliveryState] = DeliveryState
    committed: Mapping[int, Committed] = field(default_factory=dict)
    late_inserts: tuple[tuple[str, str, Rows], ...] = ()
    """Inserts that a worker sent before the beginning."""


@dataclass
class Worker:
    state: DeliveryState
    is_alive: bool = True
    is_member: bool = True
    open_rows: Rows = NO_ROWS
    pending_rows: Rows = NO_ROWS

    def copy(self) -> Worker:
        return Worker(
            clone(self.state), self.is_alive, self.is_member, self.open_rows, self.pending_rows
        )

    def forget_voided(self) -> None:
        if not self.state._open:
            self.open_rows = NO_ROWS
        if self.state.pending is None:
            self.pending_rows = NO_ROWS

    def key(self) -> object:
        s, p = self.state, self.state.pending
        if not self.is_alive:
            return None
        return (
            self.is_member,
            tuple(sorted(self.open_rows)),
            tuple(sorted(self.pending_rows)),
            s.log,
            s.restart_reason,
            None
            if p is None
            else (
                p.intent,
                tuple(p.members),
                p.is_announced,
                p.is_repeat,
                tuple(p.withdrawing),
                p.may_be_announced,
                p.was_announced,
                p.is_placed,
            ),
            tuple(sorted(s._open.items())),
            tuple(
                (n, q.position, q.waits_for, q.is_confirmed, q.inserted_up_to)
                for n, q in sorted(s._partitions.items())
            ),
        )


def clone(state: DeliveryState) -> DeliveryState:
    pending = state.pending
    return type(state)(
        state.topic,
        state.has_intents,
        state.log,
        None
        if pending is None
        else PendingBatch(
            pending.intent,
            set(pending.members),
            pending.is_announced,
            pending.is_repeat,
            pending.withdrawing,
            pending.may_be_announced,
            pending.was_announced,
            pending.is_placed,
        ),
        state.restart_reason,
        state.stop_reason,
        {number: replace(p) for number, p in state._partitions.items()},
        dict(state._open),
    )


Step = tuple[str, Callable[["World"], None]]


class World:
    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.left = {
            name: getattr(setup, name)
            for name in (
                "crashes",
                "moves",
                "expiries",
                "lost_commits",
                "resent_commits",
                "delayed_commits",
                "refused_commits",
                "partial_commits",
                "failed_inserts",
                "half_inserts",
                "removals",
                "recreations",
                "renewals",
                "relistings",
            )
        }
        self.left["replacements"] = 1
        """Where nothing is left to do, new workers look at what is committed."""
        self.topic_number = 0
        numbers = range(setup.partitions)
        self.committed = [setup.committed.get(n, Committed(0, "")) for n in numbers]
        self.low = [0 for _ in numbers]
        self.owners: list[int | None] = [None for _ in numbers]
        self.targets: list[int] = [0 for _ in numbers]
        """Who gets a partition that nobody owns."""
        self.workers = [Worker(setup.state(TOPIC)) for _ in range(setup.workers)]
        self.all_shards = [""] if setup.shards == 1 else list("abcd"[: setup.shards])
        self.shards = list(self.all_shards)
        """Shards in the settings."""
        self.table: dict[Row, str] = {}
        """Shard that each row is in."""
        self.tokens: frozenset[tuple[str, str]] = frozenset(())
        """Shards and tokens that they know."""
        self.late_inserts = list(setup.late_inserts)
        self.late_commits: list[tuple[int, tuple[Commit, ...]]] = []
        """By worker; all of the current generation, for others are refused."""

    def copy(self) -> World:
        other = World.__new__(World)
        other.setup = self.setup
        other.left = dict(self.left)
        other.topic_number = self.topic_number
        other.committed = list(self.committed)
        other.low = list(self.low)
        other.owners = list(self.owners)
        other.targets = list(self.targets)
        other.workers = [worker.copy() for worker in self.workers]
        other.all_shards = list(self.all_shards)
        other.shards = list(self.shards)
        other.table = dict(self.table)
        other.tokens = self.tokens
        other.late_inserts = list(self.late_inserts)
        other.late_commits = list(self.late_commits)
        return other

    def key(self) -> object:
        return (
            tuple(self.left.values()),
            self.topic_number,
            tuple(self.committed),
            tuple(self.low),
            tuple(self.owners),
            tuple(self.targets),
            tuple(worker.key() for worker in self.workers),
            tuple(self.all_shards),
            tuple(self.shards),
            tuple(sorted(self.table.items())),
            self.tokens,
            tuple(sorted(map(repr, self.late_inserts))),
            tuple(sorted(map(repr, self.late_commits))),
        )

    # Everything that can happen next.

    @property
    def log(self) -> LogIdentity:
        return LogIdentity("c", f"t{self.topic_number}", "")

    def steps(self) -> Iterator[Step]:
        for number, worker in enumerate(self.workers):
            if worker.is_alive:
                yield from self._worker_steps(number, worker)
            else:
                yield f"start {number}", lambda w, n=number: w.start(n)  # type: ignore[misc]
        for p, owner in enumerate(self.owners):
            if owner is None and self._can_join(self.targets[p]):
                yield f"assign {p}", lambda w, p=p: w.assign(p)  # type: ignore[misc]
            elif owner is not None and self.left["moves"]:
                for to in range(len(self.workers)):
                    if to != owner:
                        yield f"move {p} to {to}", lambda w, p=p, t=to: w.move(p, t)  # type: ignore[misc]
        for at in range(len(self.late_inserts)):
            yield f"late insert {at}", lambda w, a=at: w.arrive_insert(a)  # type: ignore[misc]
        for at in range(len(self.late_commits)):
            yield f"late commit {at}", lambda w, a=at: w.arrive_commit(a)  # type: ignore[misc]
        if self.left["removals"]:
            for p, low in enumerate(self.low):
                if low < self.setup.records:
                    yield f"remove {p}:{low}", lambda w, p=p: w.remove(p)  # type: ignore[misc]
        if self.left["relistings"]:
            for listed in self._relistings():
                yield f"list {','.join(listed)}", lambda w, s=listed: w.relist(s)  # type: ignore[misc]
        if set(self.shards) < set(self.all_shards):
            yield "list all shards again", lambda w: w.list_all()
        if self.left["recreations"]:
            yield "recreate topic", lambda w: w.recreate(keeps_offsets=True)
            yield "recreate topic and forget offsets", lambda w: w.recreate(keeps_offsets=False)

    def _relistings(self) -> Iterator[list[str]]:
        if len(self.shards) > 1:
            yield self.shards[::-1]
            yield self.shards[1:]
        yield ["new", *self.shards]

    def relist(self, shards: list[str]) -> None:
        self.left["relistings"] -= 1
        self.shards = shards
        self.all_shards += [shard for shard in shards if shard not in self.all_shards]

    def list_all(self) -> None:
        """What the operator does where a batch waits for a shard that is not listed."""
        self.shards = list(self.all_shards)

    def replace_workers(self) -> None:
        self.left["replacements"] = 0
        self.workers = [Worker(self.setup.state(TOPIC)) for _ in self.workers]
        self.owners = [None for _ in self.owners]

    def _can_join(self, number: int) -> bool:
        worker = self.workers[number]
        return worker.is_alive and worker.is_member

    def _worker_steps(self, n: int, worker: Worker) -> Iterator[Step]:
        state = worker.state
        if self.left["crashes"]:
            for does_insert in (False, True) if self._insert_of(worker) else (False,):
                yield (
                    f"crash {n}{' with its insert under way' if does_insert else ''}",
                    lambda w, d=does_insert: w.crash(n, d),  # type: ignore[misc]
                )
        if self.left["expiries"] and worker.is_member and n in self.owners:
            yield f"expire {n}", lambda w: w.expire(n)
        if not worker.is_member:
            yield f"notice {n}", lambda w: w.notice(n)
        elif state.log not in (None, self.log):
            yield f"confirm {n}", lambda w: w.notice_recreation(n)
        for p in state.partitions:
            if state.is_readable(p) and state.position(p) < self.setup.records:
                yield f"read {n} {p}", lambda w, p=p: w.read(n, p)  # type: ignore[misc]
        pending = state.pending
        if state._open and pending is None:
            yield f"freeze {n}", lambda w: w.freeze(n)
        if state.withdrawal():
            yield f"withdraw {n}", lambda w: w.withdraw(n)
        elif pending is not None and not pending.is_announced:
            for shard in self.shards if pending.must_be_placed else [pending.intent.shard]:
                for mode in self._commit_modes(worker, state.announcement()):
                    yield (
                        f"announce {n} for {shard!r} {mode}",
                        lambda w, m=mode, s=shard: w.announce(n, m, s),  # type: ignore[misc]
                    )
        elif pending is not None and self._is_listed(pending.intent):
            for mode in self._insert_modes():
                yield f"insert {n} {mode}", lambda w, m=mode: w.insert(n, m)  # type: ignore[misc]
        is_fresh = pending is not None and pending.is_announced and not pending.is_repeat
        if self.left["renewals"] and is_fresh:
            yield f"renew {n}", lambda w: w.renew(n)
        for intent in filter(self._is_listed, state.recoveries()):
            for mode in self._insert_modes():
                yield (
                    f"recover {n} {'+'.join(map(str, intent.ranges))} {mode}",
                    lambda w, i=intent, m=mode: w.recover(n, i, m),  # type: ignore[misc]
                )
        if pending is None or pending.is_announced:
            commits = state.completion()
            if commits:
                for mode in self._commit_modes(worker, commits):
                    yield f"complete {n} {mode}", lambda w, m=mode: w.complete(n, m)  # type: ignore[misc]

    def _is_listed(self, intent: Intent) -> bool:
        return self._shard_of(intent) in self.shards

    def _shard_of(self, intent: Intent) -> str:
        return intent.shard if self.setup.follows_intent else self.shards[0]

    def _insert_of(self, worker: Worker) -> tuple[str, str, Rows] | None:
        pending = worker.state.pending
        if pending is None or not pending.is_announced:
            return None
        return self._shard_of(pending.intent), pending.intent.token(), worker.pending_rows

    def _commit_modes(self, worker: Worker, commits: Iterable[Commit]) -> list[str]:
        if not worker.is_member:
            return ["refused"]
        modes = ["ok"]
        modes += ["lost"] if self.left["lost_commits"] else []
        modes += ["resent"] if self.left["resent_commits"] else []
        modes += ["delayed"] if self.left["delayed_commits"] else []
        modes += ["refused"] if self.left["refused_commits"] else []
        numbers = [commit.partition.partition for commit in commits]
        if self.left["partial_commits"]:
            modes += [
                f"partial {','.join(map(str, some))}"
                for size in range(1, len(numbers))
                for some in combinations(numbers, size)
            ]
        return modes

    def renew(self, number: int) -> None:
        self.left["renewals"] -= 1
        assert self.workers[number].state.renew_announcement()

    def _insert_modes(self) -> list[str]:
        modes = ["ok"]
        modes += ["lost", "failed"] if self.left["failed_inserts"] else []
        modes += ["half"] if self.left["half_inserts"] else []
        return modes

    # The group.

    def assign(self, p: int) -> None:
        number = self.targets[p]
        self.owners[p] = number
        self.late_commits.clear()  # a new generation
        worker = self.workers[number]
        start = start_position(TOPIC, p, self.committed[p], self.log)
        offset = self.low[p] if start.offset is None else max(start.offset, self.low[p])
        worker.state.assign(p, self.log, offset, start.pending)
        self._after(number)

    def move(self, p: int, to: int) -> None:
        self.left["moves"] -= 1
        owner = self.owners[p]
        assert owner is not None
        self.targets[p] = to
        self.owners[p] = None
        self._drop(owner, [p])

    def _drop(self, number: int, partitions: list[int]) -> None:
        worker = self.workers[number]
        worker.state.drop(partitions)
        worker.forget_voided()
        self._after(number)

    def crash(self, number: int, does_insert: bool) -> None:
        self.left["crashes"] -= 1
        insert = self._insert_of(self.workers[number])
        if does_insert and insert is not None:
            self.late_inserts.append(insert)
        self.workers[number] = Worker(self.setup.state(TOPIC), is_alive=False, is_member=False)
        self._leave(number)

    def start(self, number: int) -> None:
        self.workers[number] = Worker(self.setup.state(TOPIC))

    def expire(self, number: int) -> None:
        self.left["expiries"] -= 1
        self.workers[number].is_member = False
        self._leave(number)

    def notice(self, number: int) -> None:
        worker = self.workers[number]
        self._drop(number, worker.state.partitions)
        self.workers[number].is_member = True

    def _leave(self, number: int) -> None:
        """Its partitions go to the other worker, and its delayed commits are refused."""
        for p, owner in enumerate(self.owners):
            if owner == number:
                self.owners[p] = None
                self.targets[p] = (number + 1) % len(self.workers)
        self.late_commits = [late for late in self.late_commits if late[0] != number]

    def _after(self, number: int) -> None:
        """What a worker does at once, whatever happened."""
        worker = self.workers[number]
        if worker.state.stop_reason is not None:
            raise Stopped(worker.state.stop_reason)
        if worker.state.must_restart:
            insert = self._insert_of(worker)
            if insert is not None:
                self.late_inserts.append(insert)
            self._leave(number)
            self.workers[number] = Worker(self.setup.state(TOPIC))

    # Commits.

    def _commit(self, number: int, commits: list[Commit], mode: str) -> CommitOutcome:
        numbers = frozenset(c.partition.partition for c in commits)
        if self.left["crashes"]:
            numbers -= {self.setup.refused_partition}
        if mode == "refused" or not self.workers[number].is_member:
            if self.workers[number].is_member:
                self.left["refused_commits"] -= 1
            return CommitOutcome()
        if mode == "delayed":
            self.left["delayed_commits"] -= 1
            self.late_commits.append((number, tuple(commits)))
            return CommitOutcome(is_unknown=True)
        if mode.startswith("partial"):
            self.left["partial_commits"] -= 1
            numbers &= {int(n) for n in mode.split(" ")[1].split(",")}
        self._store(c for c in commits if c.partition.partition in numbers)
        if mode == "lost":
            self.left["lost_commits"] -= 1
            return CommitOutcome(is_unknown=True)
        if mode == "resent":
            self.left["resent_commits"] -= 1
            return CommitOutcome(may_be_stored=True)
        return CommitOutcome(numbers)

    def _store(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            p = commit.partition.partition
            before, after = self.committed[p], Committed(commit.offset, commit.metadata)
            if self._is_current(before) and self._is_current(after):
                assert after.offset is not None
                if before.offset is not None and after.offset < before.offset:
                    raise Violation(f"the offset of {p} goes back to {after.offset}")
            self.committed[p] = after
        self.check()

    def arrive_commit(self, at: int) -> None:
        _, commits = self.late_commits.pop(at)
        self._store(commits)

    def freeze(self, number: int) -> None:
        worker = self.workers[number]
        if self.confirm(number):
            worker.state.freeze()
            worker.pending_rows, worker.open_rows = worker.open_rows, NO_ROWS

    def notice_recreation(self, number: int) -> None:
        self.confirm(number)

    def confirm(self, number: int) -> bool:
        """Whether the topic is the one that the worker has read; else it gives up what it read."""
        worker = self.workers[number]
        if worker.state.log in (None, self.log):
            return True
        worker.state.replace_log()
        worker.forget_voided()
        self._after(number)
        return False

    def announce(self, number: int, mode: str, shard: str) -> None:
        worker = self.workers[number]
        if self.confirm(number):
            pending = worker.state.pending
            assert pending is not None
            if pending.must_be_placed:
                pending.place(shard)
            worker.state.announced(self._commit(number, worker.state.announcement(), mode))
            self._after(number)

    def withdraw(self, number: int) -> None:
        worker = self.workers[number]
        worker.state.withdrawn(self._commit(number, worker.state.withdrawal(), "ok"))
        worker.forget_voided()
        self._after(number)

    def complete(self, number: int, mode: str) -> None:
        worker = self.workers[number]
        worker.state.completed(self._commit(number, worker.state.completion(), mode))
        self._after(number)

    # Rows.

    def read(self, number: int, p: int) -> None:
        worker = self.workers[number]
        at = worker.state.position(p)
        worker.state.extend(p, at + 1)
        if at >= self.low[p]:
            worker.open_rows |= {
                (p, at) if not self.topic_number else (p + 10 * self.topic_number, at)
            }

    def insert(self, number: int, mode: str) -> None:
        worker = self.workers[number]
        pending = worker.state.pending
        assert pending is not None
        shard, token = self._shard_of(pending.intent), pending.intent.token()
        if self._insert(shard, token, worker.pending_rows, pending.is_repeat, mode):
            worker.state.inserted(pending.intent)
            worker.pending_rows = NO_ROWS
            self._after(number)
        else:
            worker.state.insert_failed()

    def recover(self, number: int, intent: Intent, mode: str) -> None:
        if not self.confirm(number):
            return
        rows = frozenset(
            (item.partition + 10 * self.topic_number, offset)
            for item in intent.ranges
            for offset in range(max(item.first, self.low[item.partition]), item.end)
        )
        if self._insert(self._shard_of(intent), intent.token(), rows, True, mode):
            self.workers[number].state.inserted(intent)

    def _insert(self, shard: str, token: str, rows: Rows, is_repeat: bool, mode: str) -> bool:
        known = frozenset({(shard, token)})
        if mode == "half":
            self.left["half_inserts"] -= 1
            self.tokens |= known
            return False
        if mode in ("lost", "failed"):
            self.left["failed_inserts"] -= 1
        if mode != "failed":
            if is_repeat:
                self._add(shard, (row for row in rows if self.table.get(row) != shard))
            elif not known <= self.tokens:
                self._add(shard, rows)
            self.tokens |= known
        return mode == "ok"

    def _add(self, shard: str, rows: Iterable[Row]) -> None:
        for row in rows:
            if row in self.table:
                raise Violation(f"{row} is there twice: in {self.table[row]!r} and {shard!r}")
            self.table[row] = shard
        self.check()

    def arrive_insert(self, at: int) -> None:
        shard, token, rows = self.late_inserts.pop(at)
        self._insert(shard, token, rows, False, "ok")

    def remove(self, p: int) -> None:
        self.left["removals"] -= 1
        self.low[p] += 1

    def recreate(self, *, keeps_offsets: bool) -> None:
        self.left["recreations"] -= 1
        self.topic_number += 1
        self.low = [0 for _ in self.low]
        if not keeps_offsets:
            self.committed = [Committed(None, "") for _ in self.committed]
            self.late_commits.clear()

    # What must hold.

    def check(self) -> None:
        for p, committed in enumerate(self.committed):
            if committed.offset is None or not self._is_current(committed):
                continue
            for offset in range(self.low[p], committed.offset):
                if (p + 10 * self.topic_number, offset) not in self.table:
                    raise Violation(f"the group has moved past {p}:{offset}, which is not there")

    def _is_current(self, committed: Committed) -> bool:
        return self.topic_number == 0 or f";t{self.topic_number};" in committed.metadata

    def missing(self) -> list[Row]:
        """Rows of records that retention has left and that are not in the table."""
        return [
            (p, offset)
            for p, low in enumerate(self.low)
            for offset in range(low, self.setup.records)
            if (p + 10 * self.topic_number, offset) not in self.table
        ]

    def is_settled(self) -> bool:
        nothing = completed(TOPIC, self.log)
        return all(c.offset == self.setup.records and c.metadata == nothing for c in self.committed)


class TooLarge(Exception):
    """The search has not seen everything."""


class Stopped(Exception):
    """A worker asks for the operator: the rest is not the protocol's."""


def search(setup: Setup, max_states: int) -> int:
    """Follow every step of every world, breadth first; returns how many worlds there are.

    Raises Violation with the shortest way there, AssertionError if some world makes no progress,
    TooLarge where there are more than `max_states`.
    """
    first = World(setup)
    seen: dict[object, tuple[object, str] | None] = {first.key(): None}
    frontier = [first]
    while frontier:
        following: list[World] = []
        for world in frontier:
            own_key = world.key()
            steps = list(world.steps())
            if not steps and not world.is_settled() and world.left["replacements"]:
                steps.append(("replace all workers", World.replace_workers))
            has_step = False
            for name, act in steps:
                after = world.copy()
                try:
                    act(after)
                except Violation as violation:
                    raise Violation(f"{violation}: {_way(seen, own_key, name)}") from None
                except Stopped:
                    continue
                has_step = True
                key = after.key()
                if key not in seen:
                    seen[key] = (own_key, name)
                    following.append(after)
            if not has_step and not world.is_settled():
                raise AssertionError(f"no progress after: {_way(seen, own_key, 'nothing')}")
            if len(seen) > max_states:
                raise TooLarge(f"more than {max_states} worlds")
        frontier = following
    return len(seen)


def _way(seen: Mapping[object, tuple[object, str] | None], key: object, last: str) -> str:
    names = [last]
    before = seen[key]
    while before is not None:
        key, name = before
        names.append(name)
        before = seen[key]
    return f"{len(names)} steps: {'; '.join(reversed(names))}"
