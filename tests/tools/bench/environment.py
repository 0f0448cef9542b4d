"""Environment of a benchmark: one ClickHouse, one Kafka, and topics with a backlog of events.

Each topic is filled once and read many times, each time by a new group.
"""

import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import click

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.sandbox.kafka import EmbeddedKafka
from octane_analytics.settings.connections import ClickHouseSettings
from tests.tools.bench.backlog import Backlog, Shape, fill
from tests.tools.bench.contenders import CONTENDERS, Job
from tests.tools.bench.layouts import PLAIN, Target, in_cluster, single, start_cluster
from tests.tools.bench.measure import BenchError, Run, measure
from tests.tools.cluster.nodes import ClickHouseCluster
from tests.tools.kafka.apache import ApacheKafka, available

_DEADLINE_SECONDS = 300.0
_MOCK_PARTITIONS = 64
"""Partitions of a topic in the mock cluster, which keeps 5 MiB of each."""


class Place:
    """Engines and topics; entering starts and fills them, which takes some tens of seconds."""

    def __init__(
        self,
        backlogs: Sequence[Backlog],
        compression: str = "lz4",
        layouts: Sequence[str] = (PLAIN,),
    ) -> None:
        self._backlogs = list(dict.fromkeys(backlogs))
        self._compression = compression
        self._layouts = layouts
        self._cluster: ClickHouseCluster | None = None
        self._stack = ExitStack()
        self._fewest_partitions = 1
        self._remarked: set[Shape] = set()
        self.broker = ""
        """Description of the Kafka broker for the report."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="octane-bench-"))
            self.engine = stack.enter_context(EmbeddedClickHouse(Path(directory)))
            self._cluster = start_cluster(stack, Path(directory), self._layouts)
            self.bootstrap_servers = self._start_broker(stack)
            for backlog in self._backlogs:
                if backlog.events:
                    click.echo(f"producing {backlog.events:,} events …", err=True)
                    fill(
                        self.bootstrap_servers,
                        backlog,
                        self.partitions_of(backlog),
                        self._compression,
                    )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start_broker(self, stack: ExitStack) -> str:
        reason = available()
        if reason is None:
            kafka = stack.enter_context(ApacheKafka())
            for backlog in self._backlogs:
                kafka.create_topic(backlog.topic, backlog.partitions)
            self.broker = "Apache Kafka"
            return kafka.bootstrap_servers
        self.broker = f"the embedded mock cluster ({reason}), {_MOCK_PARTITIONS} partitions or more"
        click.echo(f"measuring on {self.broker}", err=True)
        self._fewest_partitions = _MOCK_PARTITIONS
        topics = {backlog.topic: self.partitions_of(backlog) for backlog in self._backlogs}
        return stack.enter_context(EmbeddedKafka(topics=topics)).bootstrap_servers

    def partitions_of(self, backlog: Backlog) -> int:
        """Return the number of partitions of its topic."""
        return max(backlog.partitions, self._fewest_partitions)

    def table(self, title: str) -> ClickHouse:
        """Return a connection whose table has that name, created empty."""
        clickhouse = ClickHouse(
            ClickHouseSettings(host=self.engine.host, port=self.engine.tcp_port, table=title),
            client_name="bench",
        )
        clickhouse.execute(schema.create_table(clickhouse.table))
        return clickhouse

    def run(self, contender: str, shape: Shape, layout: str | None = None) -> Run:
        """Let one contender consume the backlog into a new table.

        A layout becomes part of the contender's name in the result.
        """
        name = f"bench_{uuid.uuid4().hex[:12]}"
        full_events = shape.full_events(self.partitions_of(shape.backlog))
        self._remark(shape, full_events)
        label = contender if layout is None else labelled(contender, layout)
        with self._target(layout or PLAIN, name) as target:
            job = Job(
                name,
                self.bootstrap_servers,
                shape.backlog.topic,
                target.first,
                self.engine.host,
                self.engine.tcp_port,
                shape.batch_size,
                shape.processes,
                may_grow=shape.may_grow,
                settings=target.settings,
            )
            try:
                with CONTENDERS[contender](job) as clients:
                    run = measure(
                        target,
                        clients,
                        contender=label,
                        shape=shape,
                        full_events=full_events,
                        deadline_seconds=_DEADLINE_SECONDS,
                    )
            except BenchError as error:
                raise click.ClickException(str(error)) from error
        click.echo(
            f"{label:>13} {shape.batch_size:>6,} x{shape.processes} "
            f"{run.events_per_second:>9,.0f}/s {run.cpu_us:6.2f} µs",
            err=True,
        )
        return run

    def _target(self, layout: str, table: str) -> AbstractContextManager[Target]:
        if layout == PLAIN:
            return single(self.engine, table)
        assert self._cluster is not None, "the place was made without this layout"
        return in_cluster(self._cluster, layout, table)

    def _remark(self, shape: Shape, full_events: int) -> None:
        rest = shape.backlog.events - full_events
        if rest and shape not in self._remarked:
            self._remarked.add(shape)
            click.echo(
                f"{rest:,} of {shape.backlog.events:,} events fill no batch of {shape.batch_size:,} in "
                f"their partition and wait for FLUSH_INTERVAL: {shape.batch_size:,} times "
                f"{self.partitions_of(shape.backlog)} or a multiple of it measures better",
                err=True,
            )


def labelled(contender: str, layout: str) -> str:
    """Return the name of a contender on a layout."""
    return f"{contender}, {layout}"
