"""Fence between replays: one at a time into a target, over all replicas and shards of its table.

A replay writes its own journal first and then looks at the journals of all servers, so that of two that
begin at the same moment one at least finds the other, wherever each of them keeps its tables.
"""

from collections.abc import Iterable, Mapping, Sequence

import click

from octane_analytics.cli.replay.owners import is_known_here, running_process
from octane_analytics.clickhouse import replay_tables
from octane_analytics.clickhouse.replay_survey import JournalCopy, ReplayServers
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import ConfigError, Unavailable
from octane_analytics.replay.plan import Mode, ReplayPlan, from_json
from octane_analytics.replay.ranges import BadRange

ENDED, DRY, PLAN = "ended", "dry", "plan"
"""Kinds of journal entries: the replay is done and its tables can be dropped; a dry run; the plan."""


class ReplayFence:
    """Replays into `table` on all servers. Blocks on each of them."""

    def __init__(self, servers: ReplayServers, table: TableName) -> None:
        self._servers = servers
        self._table = table

    def clean_up(self) -> None:
        """Drop the tables of dead replays on all servers. Raises ConfigError if a running one has the
        same target, Unavailable if a server that may run one cannot be reached."""
        found = self._servers.survey()
        _require_reachable(found.unreachable, self._table)
        for replay_id, copies in found.journals.items():
            plan, process = _plan_of(copies), running_process(copies)
            has_same_target = self._has_same_target(plan)
            if process is not None:
                if has_same_target:
                    raise ConfigError(f"replay {replay_id} works on {self._table}: {process}")
                continue
            is_done = any(_body_of(copies, kind) is not None for kind in (ENDED, DRY))
            is_resumable = plan is not None and plan.mode is Mode.APPEND and not is_done
            if is_resumable and has_same_target:
                click.echo(
                    f"an append was interrupted: resume it with --resume {replay_id}, or give it up "
                    f"and drop the tables {replay_tables.PREFIX}{replay_id}_…",
                    err=True,
                )
            if not is_resumable:
                self._drop(replay_id)
                click.echo(f"dropped the tables of replay {replay_id}, which was killed", err=True)

    def require_alone(self, replay_id: str, *, is_resumed: bool) -> None:
        """Raise ConfigError if another process runs a replay with the same target.

        Called with the own process in the journal of `replay_id`. Raises Unavailable if a server that
        may run one cannot be reached, except where `_may_lack_servers` holds for a resumed replay.
        """
        found = self._servers.survey()
        own = found.journals.get(replay_id, ())
        if not (is_resumed and _may_lack_servers(own)):
            _require_reachable(found.unreachable, self._table)
        for other_id, copies in found.journals.items():
            process = running_process(copies)
            if process is not None and self._has_same_target(_plan_of(copies)):
                raise ConfigError(f"replay {other_id} works on {self._table}: {process}")

    def load_interrupted(
        self, replay_id: str, address: str, *, is_live: bool
    ) -> tuple[ReplayPlan, str | None]:
        """Return the plan of an interrupted replay and, if it was done, the journal entry of its report.

        `address` is the server on which it would go on. Drops the tables of a replay that was done.
        Raises BadRange if it cannot be resumed.
        """
        found = self._servers.survey()
        copies = found.journals.get(replay_id)
        if copies is None:
            raise BadRange(
                f"interrupted replay {replay_id} not found in the database of {self._table}: it was "
                "finished, or a later replay dropped its tables; start a new one"
            )
        plan = _plan_of(copies)
        if plan is None:
            raise BadRange(f"replay {replay_id} was killed before it began: start a new one")
        if _body_of(copies, DRY) is not None:
            raise BadRange(
                f"replay {replay_id} was a dry run and cannot be resumed: start a new one"
            )
        if not self._has_same_target(plan) or plan.is_live != is_live:
            raise BadRange(
                f"replay {replay_id} has the target {plan.database}.{plan.table}: give the same "
                "--target"
            )
        process = running_process(copies)
        if process is not None:
            raise BadRange(f"replay {replay_id} is running: {process}")
        ended = _body_of(copies, ENDED)
        if ended is not None:
            self._drop(replay_id)
            return plan, ended
        if address not in {copy.address for copy in copies}:
            raise BadRange(
                f"replay {replay_id} has its journal on {copies[0].address}, not on {address}: list "
                "that server first in CLICKHOUSE_HOST"
            )
        if not _may_lack_servers(copies):
            _require_reachable(found.unreachable, self._table)
        return plan, None

    def _drop(self, replay_id: str) -> None:
        """Drop the tables of a replay on all servers. Raise ConfigError if it was resumed meanwhile.

        A process that resumes it has its entry in the journal before it goes on, and writes to the
        journal before each insert: without one it ends.
        """
        self._servers.drop_staging(replay_id)
        process = running_process(self._servers.survey().journals.get(replay_id, ()))
        if process is not None:
            raise ConfigError(f"replay {replay_id} was resumed meanwhile: {process}")
        self._servers.drop_journals(replay_id)

    def _has_same_target(self, plan: ReplayPlan | None) -> bool:
        return plan is None or (plan.database, plan.table) == (
            self._table.database,
            self._table.table,
        )


def _may_lack_servers(copies: Sequence[JournalCopy]) -> bool:
    """Return whether a replay can be resumed while a server cannot be reached.

    That is so if all its processes ran on this machine, and a new replay would have dropped its tables:
    then none has begun since.
    """
    plan = _plan_of(copies)
    return plan is not None and plan.mode is not Mode.APPEND and is_known_here(copies)


def _require_reachable(unreachable: Mapping[str, Unavailable], table: TableName) -> None:
    for address, error in unreachable.items():
        raise Unavailable(
            f"{address} cannot be reached, and a replay into {table} may run there: repeat the command "
            "when it answers, or leave it out of CLICKHOUSE_HOST if it is gone"
        ) from error


def _plan_of(copies: Iterable[JournalCopy]) -> ReplayPlan | None:
    body = _body_of(copies, PLAN)
    return None if body is None else from_json(body)


def _body_of(copies: Iterable[JournalCopy], kind: str) -> str | None:
    return next((e.body for copy in copies for e in copy.entries if e.kind == kind), None)
