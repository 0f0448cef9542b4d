"""A Kafka cluster in a child process, for development and tests: librdkafka's mock cluster.

Owns the child and its commands. Does not depend on a Kafka client.

It implements the real protocol over real sockets: produce, fetch, consumer groups (eager and
cooperative), commits with metadata and generations, metadata with topic ids. The following
differences, observed with librdkafka 2.16.1, rule it out as evidence for the behaviour of a broker:

- All data is in memory and lost when the cluster stops.
- A partition keeps 5 MiB of batches as sent and then drops its oldest, consumed or not.
- A rebalance lasts the session timeout less a second (the first one of a group
  `initial_rebalance_delay_ms`), cooperative groups need two, and commits wait until it ends: give
  consumers a short `session.timeout.ms`.
- A member that has not joined again when a rebalance ends is neither waited for nor expelled, and may
  own partitions meanwhile that the rebalance has assigned to others: the session timeout must exceed
  the delay of a member on a busy machine.
- `group.instance.id` is accepted but ignored: a member that returns under one is a second member until
  the first one's session ends, and no member is fenced unless an error is pushed.
- Timestamps cannot be looked up, topics cannot be created over the protocol, and commit metadata is
  not limited.
"""

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import IO, Any

from octane_analytics.sandbox.engine import HOST, Engine, EngineError, is_free
from octane_analytics.sandbox.kafka_child import find_library

_CHILD = "octane_analytics.sandbox.kafka_child"
_ANSWER_SECONDS = 30.0
_ALL_BROKERS = -1


class ApiKey(IntEnum):
    """Request types, as numbered by Kafka's protocol."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14


class EmbeddedKafka(Engine):
    """One mock cluster; brokers are numbered from 1.

    `topics` maps names to partition counts. Other topics are created with four partitions when a
    producer requests their metadata. The ports change at each start unless `port` is given: then
    broker n listens on `port + n - 1` at every start.
    """

    def __init__(
        self,
        *,
        topics: Mapping[str, int] | None = None,
        brokers: int = 1,
        port: int = 0,
        initial_rebalance_delay_ms: int = 100,
    ) -> None:
        super().__init__()
        self._topics = dict(topics or {})
        self._brokers = brokers
        self._port = port
        self._initial_rebalance_delay_ms = initial_rebalance_delay_ms
        self._bootstrap_servers = ""
        self._unread = b""
        self._requests = 0

    @property
    def bootstrap_servers(self) -> str:
        """`host:port,...` of all brokers; empty until the first start."""
        return self._bootstrap_servers

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Start a cluster of empty topics, block until it listens, or raise EngineError."""
        deadline = time.monotonic() + timeout_seconds
        if self.pid is not None:
            raise EngineError(f"already running at {self._bootstrap_servers}")
        self.kill()  # reaps a cluster that ended by itself
        if find_library() is None:
            raise EngineError(
                "librdkafka is not installed: pip install 'octane-analytics[embedded]'"
            )
        for port in range(self._port, self._port + self._brokers) if self._port else ():
            if not is_free(port):
                raise EngineError(f"port {port} on {HOST} is in use: choose another")
        self._unread = b""
        with tempfile.TemporaryFile() as log:
            arguments = (str(self._brokers), str(self._port))
            self._spawn(_CHILD, *arguments, stdout=subprocess.PIPE, stderr=log)
            try:
                self._bootstrap_servers = self._read(deadline)["bootstrap_servers"]
                self._do("group_initial_rebalance_delay_ms", self._initial_rebalance_delay_ms)
                for name, partitions in self._topics.items():
                    self.create_topic(name, partitions)
            except EngineError as error:
                self.kill()
                log.seek(0)
                reason = log.read().decode(errors="replace").strip()
                raise EngineError(f"{error}\n{reason}") from error
            except BaseException:
                self.kill()
                raise

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic, its partitions spread over the brokers. EngineError if it exists."""
        self._do("topic_create", name, partitions, 1)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all offsets committed for it. EngineError if there is none."""
        self._do("topic_delete", name)

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Move the low watermark up, as retention would.

        An offset before the low watermark moves it back, to records that are gone, and fetches from
        there get "out of range". Apache Kafka leaves the low watermark where it is.
        """
        self._do("partition_delete_records", topic, partition, before_offset)

    def set_partition_leader(self, topic: str, partition: int, broker: int) -> None:
        """Move a partition to another broker.

        A partition without a leader would end the cluster at the next fetch.
        """
        self._do("partition_set_leader", topic, partition, broker)

    def set_group_coordinator(self, group: str, broker: int) -> None:
        """Make a broker the coordinator of a consumer group, whatever its name hashes to."""
        self._do("coordinator_set", "group", group, broker)

    def set_broker_down(self, broker: int | None = None) -> None:
        """Cut the connections to one broker, or to all, and refuse new ones. Leaders stay."""
        self._do("broker_set_down", _ALL_BROKERS if broker is None else broker)

    def set_broker_up(self, broker: int | None = None) -> None:
        """Accept connections again, on the same ports."""
        self._do("broker_set_up", _ALL_BROKERS if broker is None else broker)

    def set_round_trip_ms(self, milliseconds: int, broker: int | None = None) -> None:
        """Delay every response of one broker, or of all; 0 removes the delay."""
        self._do("broker_set_rtt", _ALL_BROKERS if broker is None else broker, milliseconds)

    def push_request_errors(self, api_key: ApiKey, errors: Sequence[int]) -> None:
        """Respond to the next requests of a type with these codes, one each, in this order.

        Codes are Kafka's (`KafkaError` has them); 0 lets a request through, and -195 (`_TRANSPORT`)
        closes the connection instead of responding.
        """
        self._do("push_request_errors", int(api_key), list(errors))

    def clear_request_errors(self, api_key: ApiKey) -> None:
        """Remove the errors that are still queued for requests of a type."""
        self._do("clear_request_errors", int(api_key))

    def _do(self, name: str, *arguments: object) -> None:
        if self.pid is None:
            raise EngineError("not running")
        self._requests += 1
        request = {"id": self._requests, "do": name, "with": arguments}
        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            pipe = self._pipes()[0]
            pipe.write(json.dumps(request).encode() + b"\n")
            pipe.flush()
        except OSError as error:
            raise EngineError(f"the cluster ended: {error}") from error
        # The response to a request that timed out may still arrive.
        while (answer := self._read(deadline))["id"] != self._requests:
            pass
        if "error" in answer:
            raise EngineError(f"{name}{arguments}: {answer['error']}")

    def _read(self, deadline: float) -> dict[str, Any]:
        descriptor = self._pipes()[1].fileno()
        while b"\n" not in self._unread:
            seconds = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], seconds)[0]:
                raise EngineError("the cluster did not answer in time")
            received = os.read(descriptor, 65_536)
            if not received:
                raise EngineError("the cluster ended before it answered")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._child is None or self._child.stdin is None or self._child.stdout is None:
            raise EngineError("not running")
        return self._child.stdin, self._child.stdout
