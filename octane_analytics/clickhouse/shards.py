"""Shards of the table: one sink for each, found by the identity that its servers state.

A batch belongs to one shard, and its intent names it. Which shards there are, in which order, and under
which host names may change while batches are pending.
"""

import time
from collections.abc import Callable, Sequence

from octane_analytics.clickhouse.schema import TableName
from octane_analytics.clickhouse.shard_sink import ShardSink
from octane_analytics.clickhouse.shard_turns import ShardTurns
from octane_analytics.errors import NeedsOperator, Unavailable
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import Shard

_SKIP_SECONDS = 15.0
"""Time for which a shard that could not be reached gets no new batches while another one can be."""


class ClickHouseShards(Closeable):
    """Connections to all shards; implements `interfaces.Shards`.

    A table with one shard needs no identity, and its batches name none, unless CLICKHOUSE_CLUSTER is
    set: then further shards can be added while batches are pending.
    """

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        client_name: str,
        first: int = 0,
        traceparent: Callable[[], str | None] | None = None,
        on_statement: Callable[[float], None] = lambda patience_seconds: None,
        on_skip: Callable[[str, Unavailable], object] = lambda shard, error: None,
        check: Callable[[ShardSink, ClickHouseSettings], object] = lambda sink, own: None,
        sorts_rows: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`first` is the number of turns to skip, so that workers begin with different shards.

        `on_statement` is called before each statement, with the longest time for which that may block;
        `on_skip` if a shard cannot be reached at its turn, and another one may get the batch. `check` is
        called with each of several shards and its settings before its first use, and raises to keep
        batches from it. For `sorts_rows` see `ClickHouseSink`.
        """
        self._shards = settings.topology().shards
        self._names_batches = len(self._shards) > 1 or settings.cluster is not None
        self._turns = ShardTurns([shard.weight for shard in self._shards], first)
        self._on_skip = on_skip
        self._check = check
        self._now = now
        self._skipped_until = [0.0] * len(self._shards)
        self._sinks = [
            _sink(own, client_name, traceparent, on_statement, sorts_rows=sorts_rows)
            for own in settings.of_each_shard()
        ]

    def choose(self) -> str:
        """See `interfaces.Shards`."""
        if not self._names_batches:
            self._sinks[0].return_to_preferred()
            return ""
        now, errors = self._now(), []
        for number in sorted(self._turns.next_order(), key=lambda n: self._skipped_until[n] > now):
            try:
                return self._ready(number)
            except Unavailable as error:
                self._skipped_until[number] = now + _SKIP_SECONDS
                self._on_skip(_described(self._shards[number]), error)
                errors.append(error)
        raise errors[0]

    def sink(self, shard: str) -> ShardSink:
        """See `interfaces.Shards`."""
        if not shard:
            if len(self._sinks) > 1:
                raise NeedsOperator(
                    "a batch was announced while CLICKHOUSE_HOST listed one shard, and does not name "
                    f"it; now there are {len(self._sinks)}: start the worker once with only that shard "
                    "in CLICKHOUSE_HOST and stop it with SIGTERM, which finishes the batch"
                )
            return self._sinks[0]
        if (sink := self._known(shard)) is not None:
            return sink  # without asking a shard that may be away
        error = self._identify()
        if (sink := self._known(shard)) is not None:
            return sink
        if error is not None:
            raise Unavailable(
                f"cannot know which servers are of shard {shard!r}, for which a batch is pending: "
                f"{error}"
            ) from error
        known = ", ".join(repr(sink.known_identity) for sink in self._sinks)
        raise NeedsOperator(
            f"a batch is pending for shard {shard!r}, which CLICKHOUSE_HOST does not list (it lists "
            f"{known}): its partitions wait; add the servers of that shard again, if only with weight 0 "
            "in CLICKHOUSE_SHARD_WEIGHTS until nothing is pending for it"
        )

    def require_identities(self) -> None:
        """Raise NeedsOperator if a shard has no identity although its batches need one, or if two have
        the same. Blocks; a shard that cannot be reached is left out."""
        if not self._names_batches:
            return
        for number in range(len(self._sinks)):
            try:
                self._ready(number)
            except NeedsOperator:
                raise
            except Unavailable as error:
                self._on_skip(_described(self._shards[number]), error)

    @property
    def table(self) -> TableName:
        return self._sinks[0].table

    def count_equal(self, columns: Sequence[Sequence[object]]) -> list[int]:
        """Return, for each of these rows, the number of equal rows in all shards. Raise Unavailable."""
        return list(
            map(sum, zip(*(sink.count_equal(columns) for sink in self._sinks), strict=True))
        )

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def _ready(self, number: int) -> str:
        """Return the identity of a shard that can be reached. Raise Unavailable."""
        sink = self._sinks[number]
        sink.return_to_preferred()
        identity = self._identity(sink)
        sink.probe()
        if not identity and len(self._sinks) > 1:
            raise NeedsOperator(
                f"{_described(self._shards[number])} has no identity, and a batch must name its shard: "
                "give its servers a `shard` macro, or make the table a ReplicatedMergeTree"
            )
        self._require_distinct()
        return identity

    def _known(self, shard: str) -> ShardSink | None:
        self._require_distinct()
        return next((sink for sink in self._sinks if sink.known_identity == shard), None)

    def _identify(self) -> Unavailable | None:
        """Ask every shard for its identity; return the error of one that cannot be reached."""
        error = None
        for sink in self._sinks:
            try:
                self._identity(sink)
            except Unavailable as found:
                error = found
        return error

    def _identity(self, sink: ShardSink) -> str:
        """Return the shard's identity, after its check if it is one of several."""
        if sink.known_identity is None and len(self._sinks) > 1:
            self._check(sink, sink.settings)
        return sink.identity()

    def _require_distinct(self) -> None:
        """Raise NeedsOperator if two shards state the same identity."""
        seen: dict[str, Shard] = {}
        for shard, sink in zip(self._shards, self._sinks, strict=True):
            if not sink.known_identity:
                continue
            other = seen.setdefault(sink.known_identity, shard)
            if other is not shard:
                raise NeedsOperator(
                    f"{_described(other)} and {_described(shard)} both state that they are shard "
                    f"{sink.known_identity!r}: give each shard a `shard` macro of its own, or separate "
                    "replicas of one shard by commas in CLICKHOUSE_HOST"
                )


def _sink(
    settings: ClickHouseSettings,
    client_name: str,
    traceparent: Callable[[], str | None] | None,
    on_statement: Callable[[float], None],
    *,
    sorts_rows: bool,
) -> ShardSink:
    sink = ShardSink(
        settings,
        client_name=client_name,
        traceparent=traceparent,
        on_statement=lambda: on_statement(sink.patience_seconds),
        sorts_rows=sorts_rows,
    )
    return sink


def _described(shard: Shard) -> str:
    return f"shard {shard.number} of CLICKHOUSE_HOST ({','.join(shard.authorities)})"
