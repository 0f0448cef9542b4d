"""A stack's consumer group from outside: committed offsets, pending batches, and commits of others."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import OctaneError
from octane_analytics.events.decode import decode_all
from octane_analytics.events.event import Columns
from octane_analytics.events.packed_columns import new_columns
from octane_analytics.kafka.group_admin import ConsumerGroupAdmin
from octane_analytics.kafka.range_reader import KafkaRangeReader
from octane_analytics.pipeline.intents import Intent, pending_intent
from octane_analytics.sandbox.engine import HOST
from octane_analytics.settings.connections import ClickHouseSettings, KafkaSettings
from octane_analytics.types import Commit, Committed, PartitionRange, TopicPartition
from tests.tools.faults.audit import NUMBER, wait_until
from tests.tools.faults.stack import Stack

_READ_SECONDS = 30.0
_COMMIT_SECONDS = 30.0
"""A static member is gone only after its session timeout, and refuses commits of others until then."""


@contextmanager
def group_of(stack: Stack) -> Iterator[ConsumerGroupAdmin]:
    settings = KafkaSettings(
        bootstrap_servers=stack.bootstrap_servers, topic=stack.topic, group_id=stack.group
    )
    with ConsumerGroupAdmin(settings, client_id="octane-faults") as group:
        yield group


def committed(stack: Stack, group: ConsumerGroupAdmin) -> Mapping[TopicPartition, Committed]:
    return group.committed(group.partitions(stack.topic))


def await_pending(stack: Stack, members: int, seconds: float) -> set[Intent]:
    """Block until batches of at least that many partitions in all are pending; return them."""
    found: set[Intent] = set()

    def is_pending() -> bool:
        nonlocal found
        found = pending(stack, group)
        return sum(len(intent.ranges) for intent in found) >= members

    with group_of(stack) as group:
        wait_until(is_pending, seconds, f"a pending batch of {members} partitions")
    return found


def pending(stack: Stack, group: ConsumerGroupAdmin) -> set[Intent]:
    offsets = committed(stack, group).items()
    found = {pending_intent(stack.topic, where.partition, offset) for where, offset in offsets}
    return {intent for intent in found if intent is not None}


def commit(group: ConsumerGroupAdmin, commits: Sequence[Commit]) -> None:
    """Block until the coordinator accepts the commits: the group has no members any more."""
    deadline = time.monotonic() + _COMMIT_SECONDS
    while True:
        try:
            group.commit(commits)
        except OctaneError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.3)
        else:
            return


def rows_of(stack: Stack, ranges: Sequence[PartitionRange]) -> Columns:
    """Read the ranges from the topic and decode them."""
    settings = KafkaSettings(bootstrap_servers=stack.bootstrap_servers, topic=stack.topic)
    reader = KafkaRangeReader(settings, client_id="octane-faults-reader")
    columns = new_columns()
    try:
        reader.begin(ranges)
        deadline = time.monotonic() + _READ_SECONDS
        while not reader.is_done:
            assert time.monotonic() < deadline, f"{ranges} could not be read"
            decoded = decode_all([record.value() for record in reader.poll(1000, 0.1)])
            for column, more in zip(columns, decoded.columns, strict=True):
                column.extend(more)
    finally:
        reader.close()
    return columns


def insert_under(
    stack: Stack, token: str, ranges: Sequence[PartitionRange], *, is_torn: bool
) -> None:
    """Insert the rows of the ranges as one block, as the worker that announced them does.

    A torn insert leaves the token and every third row: as if the server was killed between the token and
    the part, of some of the table's partitions.
    """
    settings = ClickHouseSettings(
        host=HOST, port=stack.engines.clickhouse.tcp_port, database=stack.name
    )
    rows = rows_of(stack, ranges)
    with ClickHouseSink(settings, client_name="faults") as sink:
        sink.insert_block(rows, token, None)
    if is_torn:
        numbers = [int(json.loads(text)["event_id"]) for text in rows[4]]
        lost = ", ".join(str(number) for index, number in enumerate(numbers) if index % 3)
        stack.engines.execute(
            f"ALTER TABLE {stack.table} DELETE WHERE {NUMBER} IN ({lost}) SETTINGS mutations_sync = 2"
        )
