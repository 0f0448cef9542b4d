"""Consumer group member: implements `interfaces.GroupMember` with librdkafka.

Stall recovery, client recreation, broker probing and the assignment each have a module of their own;
this one subscribes, polls, commits and seeks.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, Unavailable
from octane_analytics.interfaces import RebalanceListener
from octane_analytics.kafka import commit_outcome, offsets
from octane_analytics.kafka.assignment import PartitionAssignment
from octane_analytics.kafka.broker_probe import BrokerProbe
from octane_analytics.kafka.client import Broker, error_of, translate
from octane_analytics.kafka.client_ids import TableMark, worker_client_id
from octane_analytics.kafka.consumer_config import member_properties
from octane_analytics.kafka.conversions import from_confluent, to_confluent
from octane_analytics.kafka.poll_results import classify_messages
from octane_analytics.kafka.recreatable_consumer import RecreatableConsumer
from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.kafka.stall_recovery import StallRecovery
from octane_analytics.kafka.topic_identity import TopicIdentityClient
from octane_analytics.kafka.unread_tail import search_tails
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import (
    Commit,
    CommitOutcome,
    Committed,
    LogIdentity,
    Polled,
    TopicPartition,
)

_QUIET_SECONDS = 20.0
"""Time without records after which the broker is asked for a partition's end."""
_GRACE_SECONDS = 5.0
_REVIVAL_SECONDS = 5.0
_SEARCH_SECONDS = 3.0
_GATHER_SECONDS = 0.1
"""Time for which a poll continues after its first record, at least."""


class KafkaSource:
    """Group member; not thread-safe. `slot` names the static member; None makes a dynamic one."""

    def __init__(
        self,
        settings: KafkaSettings,
        slot: int | None,
        *,
        table: TableMark | None = None,
        flush_seconds: float = 5.0,
        on_queue: Callable[[int], None] | None = None,
        on_stall: Callable[[TopicPartition, int], None] | None = None,
        quiet_seconds: float = _QUIET_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
        revival_seconds: float = _REVIVAL_SECONDS,
    ) -> None:
        """`table` is shown to the other members of the group. `flush_seconds` limits the time for which
        brokers gather records for a fetch. `on_queue` is called every half minute, within `poll`, with
        the bytes fetched and not yet returned. `on_stall` is called for each partition that returned
        nothing during `quiet_seconds` and `grace_seconds` of waiting in `poll` although the broker had
        more, with the position at which it is reassigned: it skips no record that was not returned, but
        may repeat some that were. If nothing is received for `revival_seconds` after that, the client is
        recreated."""
        self._settings = settings
        self._broker = Broker(settings, worker_client_id(slot, table))
        self._client = RecreatableConsumer(
            lambda: self._broker.connect(
                Consumer,
                **member_properties(self._broker, settings, slot, flush_seconds, on_queue),
            )
        )
        self._identities = TopicIdentityClient(self._broker, settings.log_epoch)
        self._probe = BrokerProbe(self._broker, settings.topic)
        detector = StallDetector(quiet_seconds, grace_seconds, revival_seconds)
        self._assignment = PartitionAssignment(detector)
        self._stalls = StallRecovery(
            self._assignment,
            self._client,
            lambda: self.log_identity(settings.topic),
            lambda ranges: search_tails(settings, ranges, _SEARCH_SECONDS),
            on_stall,
        )
        self._is_paused = False
        self._is_closing = False
        self._listener: RebalanceListener | None = None
        self._failure: Exception | None = None
        """Exception raised by the listener. It must not pass through librdkafka: the records of the
        same call would be discarded, and their partitions would continue after them."""

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener

        def on_assign(consumer: Consumer, raw: list[RawPartition]) -> None:
            # A client that is closing receives no responses any more, and would wait for the committed
            # offsets until it is killed. It gives these back at once, without having read any.
            self._probe.joined()
            partitions = [from_confluent(r) for r in raw]
            starts: Mapping[TopicPartition, int] = {}
            if not self._is_closing:
                try:
                    starts = listener.assigned(partitions)
                except Exception as error:  # see _failure
                    text = f"no positions for {len(raw)} partitions: {error}"
                    self._fail(AssignmentLost(text) if isinstance(error, Unavailable) else error)
                    raw = []
            for r in raw:
                r.offset = starts.get(from_confluent(r), 0)
            self._assignment.add(consumer, raw, is_paused=self._is_paused or self._is_closing)

        def on_revoke(consumer: Consumer, raw: list[RawPartition]) -> None:
            give_up(consumer, raw, listener.revoked)

        def on_lost(consumer: Consumer, raw: list[RawPartition]) -> None:
            self._probe.left()
            give_up(consumer, raw, listener.lost)

        def give_up(
            consumer: Consumer,
            raw: list[RawPartition],
            notify: Callable[[Sequence[TopicPartition]], None],
        ) -> None:
            try:
                notify([from_confluent(r) for r in raw])
            except Exception as error:  # see _failure
                self._fail(error)
            self._assignment.remove(consumer, raw)

        self._client.get().subscribe(
            [self._settings.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost
        )

    def poll(self, max_records: int, timeout_seconds: float, gather_seconds: float = 0.0) -> Polled:
        self._raise_failure()
        if not self._is_paused and self._stalls.is_due():
            self._identities.close_if_idle()
            if ends := self._stalls.check():
                return Polled([], ends)
        if self._client.is_outdated:
            self._recreate()
        began = time.monotonic()
        gather_seconds = max(gather_seconds, _GATHER_SECONDS)
        messages = self._consume(max_records, timeout_seconds, gather_seconds)
        # Bounded, because the listener's time counts in `consume` too.
        self._assignment.waited_seconds += min(timeout_seconds, time.monotonic() - began)
        if messages:
            self._identities.warm_up()
            self._probe.clear()
            self._assignment.records_received(messages)
        else:
            self._raise_failure()
            self._probe.check(self._client.get)
        if not any(message.error() for message in messages):
            return Polled(messages)
        return self._classify(messages)

    def _consume(
        self, max_records: int, timeout_seconds: float, gather_seconds: float
    ) -> list[Message]:
        consumer = self._client.get()
        if timeout_seconds <= gather_seconds:
            return consumer.consume(max_records, timeout_seconds)
        # librdkafka waits until it has the requested number, however early the first one arrived.
        messages = consumer.consume(1, timeout_seconds)
        if messages and max_records > 1:
            messages += consumer.consume(max_records - 1, gather_seconds)
        return messages

    def _fail(self, error: Exception) -> None:
        """Have `poll` or `close` raise the error; the first of several."""
        self._failure = self._failure or error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _classify(self, messages: Sequence[Message]) -> Polled:
        polled, error = classify_messages(messages)
        for end in polled.ends:
            self._assignment.reached_end(end)
        if error is not None:
            # librdkafka has moved past the records beside its error, and reports it only once.
            if not (polled.records or polled.ends or polled.gone):
                self._probe.raise_read_error(error)
            self._broker.last_error = error  # the next poll probes it
        return polled

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return offsets.committed_by(self._client.get(), self._settings.group_id, partitions)

    def commit(self, commits: Sequence[Commit]) -> CommitOutcome:
        outcome = commit_outcome.commit(self._client.get(), commits)
        self._assignment.committed(
            [c for c in commits if c.partition.partition in outcome.accepted]
        )
        return outcome

    def log_identity(self, topic: str) -> LogIdentity:
        log = self._identities.fetch(topic)
        if log.topic_id:
            self._client.observe_topic_id(log.topic_id)
        return log

    def earliest(self, partition: TopicPartition) -> int:
        return offsets.watermarks(self._client.get(), partition)[0]

    def latest(self, partition: TopicPartition) -> int:
        return self._identities.log_end(partition)

    def lag(self) -> int | None:
        """Return the uncommitted messages of the assigned partitions, by the ends of the last fetches;
        see `types.UncommittedLag`.

        Sends no request. None until the first fetch of each partition was answered.
        """
        return self._assignment.lag(self._client.get)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._assignment.detector:
            raise Unavailable(f"{partition} is not assigned")
        raw, consumer = to_confluent(partition, offset), self._client.get()
        try:
            try:
                consumer.seek(raw)
            except KafkaException as exception:
                if error_of(exception).code() != KafkaError._STATE:
                    raise
                # librdkafka has dropped the partition since its position was out of range, and
                # fetches it again only after it is reassigned.
                is_paused = self._is_paused or self._is_closing
                self._assignment.reassign(consumer, [raw], is_paused=is_paused)
        except KafkaException as exception:
            raise translate(error_of(exception), f"seeking in {partition}") from exception
        self._assignment.sought(partition, offset)

    def recreate_client(self) -> None:
        self._client.request_recreation()

    def _recreate(self) -> None:
        assert self._listener is not None, "recreated before subscribe"
        try:
            self.close()
        finally:
            self._is_closing = False
            self._client.forget_topic()
            self.subscribe(self._listener)

    def pause(self) -> None:
        self._is_paused = True
        consumer = self._client.get()
        consumer.pause(consumer.assignment())

    def resume(self) -> None:
        self._is_paused = False
        consumer = self._client.get()
        consumer.resume(consumer.assignment())
        self._assignment.restart_stall_detection()

    def close(self) -> None:
        """Leave the group: a static member keeps its partitions, those of a dynamic one move on.

        The client is closed even if this raises the listener's exception.
        """
        self._identities.close()
        self._is_closing = True
        self._probe.reset()
        self._client.close()
        self._raise_failure()
