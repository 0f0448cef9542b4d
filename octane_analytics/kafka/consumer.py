"""The consumer group's member: see `types.Source` for what it promises."""

import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
)
from confluent_kafka import TopicPartition as RawPartition

from octane_analytics.errors import AssignmentLost, OctaneError, Unavailable
from octane_analytics.interfaces import RebalanceListener
from octane_analytics.kafka import offsets
from octane_analytics.kafka.client import Broker, error_of, translate
from octane_analytics.kafka.consumer_config import member_properties
from octane_analytics.kafka.conversions import from_confluent, to_confluent
from octane_analytics.kafka.poll_results import classify_messages
from octane_analytics.kafka.stall_detector import StallDetector
from octane_analytics.kafka.topic_identity import TopicIdentityClient
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import (
    Commit,
    Committed,
    LogIdentity,
    Polled,
    TopicPartition,
    UncommittedLag,
)

_PROBE_SECONDS = 5.0
_QUIET_SECONDS = 20.0
"""After this long without anything of a partition the broker is asked for its end."""
_GRACE_SECONDS = 5.0
_REVIVAL_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_ENDS_SECONDS = 1.0
_GATHER_SECONDS = 0.1
"""At most so long a poll goes on once it has something to hand out."""


class KafkaSource:
    """Not for use by several threads. `slot` names the static member; None makes a dynamic one."""

    def __init__(
        self,
        settings: KafkaSettings,
        slot: int | None,
        *,
        on_queue: Callable[[int], None] | None = None,
        on_stall: Callable[[TopicPartition, int], None] | None = None,
        quiet_seconds: float = _QUIET_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
        revival_seconds: float = _REVIVAL_SECONDS,
    ) -> None:
        """`on_queue` is told every few seconds, from within `poll`, how many bytes are fetched and
        not handed out; `on_stall` of each partition that handed out nothing for `quiet_seconds` and
        `grace_seconds` of waiting in `poll` although the broker had more, and from where it is read
        anew: behind no record that was not handed out, but what was may come again. Where nothing
        comes of it for `revival_seconds` all the same, it is read by a new client."""
        member = "" if slot is None else f"-{slot}"
        self._settings = settings
        self._slot = slot
        self._on_queue = on_queue
        self._on_stall = on_stall
        self._progress = StallDetector(quiet_seconds, grace_seconds, revival_seconds)
        self._waited = 0.0
        """Seconds that `poll` has waited: with these the progress is measured, for a partition cannot
        be blamed for what it did not hand out while nobody asked."""
        self._look_at = _LOOK_SECONDS
        self._broker = Broker(settings, f"octane-analytics{member}")
        self._consumer: Consumer | None = None
        self._logs = TopicIdentityClient(self._broker, settings.log_epoch)
        self._topic_id = ""
        """What the topic was when this client began to read it, as far as is known."""
        self._is_outdated = False
        """The next `poll` is by a new client."""
        self._progress_version = 0
        """Goes up with whatever may have changed a position or the end of a partition."""
        self._looked_arrivals = 0
        self._committed: dict[TopicPartition, int] = {}
        """Of each assigned partition; where it was read from until something is committed."""
        self._lag: int | None = None
        self._lag_arrivals = 0
        self._is_paused = False
        self._is_closing = False
        self._probe_at = 0.0
        self._unreachable: OctaneError | None = None
        self._has_joined = False
        self._join_error: OctaneError | None = None
        """Why this member is not in its group, until it is: librdkafka reports each attempt, seconds
        apart, and in between nothing has become better."""
        self._listener: RebalanceListener | None = None
        self._failure: Exception | None = None
        """What the listener raised. It must not pass through librdkafka: the records of the same
        call would be thrown away, and their partitions go on behind them."""

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener

        def on_assign(consumer: Consumer, raw: list[RawPartition]) -> None:
            # A client on its way down gets no answers any more, and would wait for the committed
            # offsets until it is killed. It gives these back at once, without having read any.
            self._has_joined, self._join_error = True, None
            partitions = [from_confluent(r) for r in raw]
            starts: Mapping[TopicPartition, int] = {}
            if not self._is_closing:
                try:
                    starts = listener.assigned(partitions)
                except Exception as error:  # see _failure
                    told = f"no positions for {len(raw)} partitions: {error}"
                    self._fail(AssignmentLost(told) if isinstance(error, Unavailable) else error)
                    raw = []
            for r in raw:
                r.offset = self._committed[from_confluent(r)] = starts.get(from_confluent(r), 0)
            self._assign(consumer, raw)

        def on_revoke(consumer: Consumer, raw: list[RawPartition]) -> None:
            give_up(consumer, raw, listener.revoked)

        def on_lost(consumer: Consumer, raw: list[RawPartition]) -> None:
            self._has_joined = False
            give_up(consumer, raw, listener.lost)

        def give_up(
            consumer: Consumer,
            raw: list[RawPartition],
            tell: Callable[[Sequence[TopicPartition]], None],
        ) -> None:
            partitions = [from_confluent(r) for r in raw]
            try:
                tell(partitions)
            except Exception as error:  # see _failure
                self._fail(error)
            self._progress.unassign(partitions)
            for partition in partitions:
                self._committed.pop(partition, None)
            self._progress_version += 1
            _unassign(consumer, raw)

        self._member().subscribe(
            [self._settings.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost
        )

    def poll(self, max_records: int, timeout_seconds: float) -> Polled:
        self._raise_failure()
        if self._waited >= self._look_at and not self._is_paused:
            self._look_at = self._waited + _LOOK_SECONDS
            self._check_progress()
        if self._is_outdated:
            self._renew()
        began = time.monotonic()
        messages = self._consume(max_records, timeout_seconds)
        # Not what the listener takes.
        self._waited += min(timeout_seconds, time.monotonic() - began)
        if messages:
            self._progress_version += 1
            self._logs.warm_up()
            self._broker.trouble = self._unreachable = None
            if self._progress.unseen:
                # Done for each record until something has come of each partition: plain pairs.
                self._progress.records_received(
                    {(m.topic(), m.partition()) for m in messages if m.error() is None}
                )
        else:
            self._raise_failure()
            if self._broker.trouble is not None:
                self._probe()
            if self._join_error is not None:
                raise self._join_error
        if not any(message.error() for message in messages):
            return Polled(messages)
        return self._sorted(messages)

    def _consume(self, max_records: int, timeout_seconds: float) -> list[Message]:
        consumer = self._member()
        if timeout_seconds <= _GATHER_SECONDS:
            return consumer.consume(max_records, timeout_seconds)
        # librdkafka waits for as many as it is asked for, however long ago the first one came.
        messages = consumer.consume(1, timeout_seconds)
        if messages and max_records > 1:
            messages += consumer.consume(max_records - 1, _GATHER_SECONDS)
        return messages

    def _fail(self, error: Exception) -> None:
        """Has `poll` or `close` raise the error; the first of several."""
        self._failure = self._failure or error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _check_progress(self) -> None:
        """Has partitions read anew that stand still; where that is of no use, by a new client.

        Lets the client go that nobody asks now. librdkafka goes by no leader epoch below one that it
        has seen, also not where the topic was made anew and its epochs begin at zero again (its issue
        4898): there it never reads on, and says nothing.
        """
        consumer, progress, now = self._member(), self._progress, self._waited
        self._logs.close_if_idle()
        if progress.is_beyond_revival(now):
            self.recreate_client()
            return
        try:
            if self._looked_arrivals != self._progress_version:
                self._looked_arrivals = self._progress_version
                at = consumer.position([to_confluent(p) for p in progress.partitions()])
                progress.moved({from_confluent(r): r.offset for r in at}, now)
            quiet = progress.quiet(now)
            short = (
                progress.ends(quiet, offsets.known_ends(consumer, quiet, _ENDS_SECONDS), now)
                if quiet
                else []
            )
            stalled = progress.stalled(now)
            if (short or stalled) and self._is_made_anew():
                return
            if stalled:
                self._assign_anew([to_confluent(p, position) for p, position in stalled.items()])
                progress.revived(stalled, now)
        except KafkaException as exception:
            raise translate(error_of(exception), "reading partitions anew") from exception
        if self._on_stall is not None:
            for partition, position in stalled.items():
                self._on_stall(partition, position)

    def _is_made_anew(self) -> bool:
        """Whether the topic is another one than this client began to read; it is of no more use then."""
        try:
            self.log_identity(self._settings.topic)
        except Unavailable:
            return False  # an outage shows elsewhere
        return self._is_outdated

    def _sorted(self, messages: Sequence[Message]) -> Polled:
        polled, trouble = classify_messages(messages)
        for end in polled.ends:
            self._progress.reached_end(end.partition, end.offset, self._waited)
        if trouble is not None:
            # librdkafka has moved on past what stands beside its complaint, and tells it only once.
            if not (polled.records or polled.ends or polled.gone):
                error = translate(trouble, f"reading {self._settings.topic}")
                if not self._has_joined and isinstance(error, Unavailable):
                    self._join_error = error
                raise error
            self._broker.trouble = trouble  # the next poll looks into it
        return polled

    def _probe(self) -> None:
        """Asks a broker whether librdkafka's complaint still holds, every few seconds."""
        complaint = self._broker.trouble
        if complaint is not None and complaint.fatal():
            raise translate(complaint, f"reading {self._settings.topic}")
        now = time.monotonic()
        if now >= self._probe_at:
            self._probe_at = now + _PROBE_SECONDS
            try:
                self._member().list_topics(self._settings.topic, timeout=1.0)
            except KafkaException as exception:
                self._unreachable = self._broker.unreachable(error_of(exception))
            else:
                self._broker.trouble = self._unreachable = None
        if self._unreachable is not None:
            raise self._unreachable

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return offsets.committed_by(self._member(), partitions)

    def commit(self, commits: Sequence[Commit]) -> None:
        offsets.commit(self._member(), commits)
        self._committed |= {commit.partition: commit.offset for commit in commits}
        self._progress_version += 1

    def log_identity(self, topic: str) -> LogIdentity:
        log = self._logs.fetch(topic)
        if log.topic_id:
            if self._topic_id and log.topic_id != self._topic_id:
                # Also where the caller takes the new log for the only one that ever existed.
                self.recreate_client()
            self._topic_id = log.topic_id
        return log

    def earliest(self, partition: TopicPartition) -> int:
        return offsets.watermarks(self._member(), partition)[0]

    def latest(self, partition: TopicPartition) -> int:
        return self._logs.log_end(partition)

    def lag(self) -> int | None:
        """Messages of the assigned partitions that are not committed, as far as the last fetches know
        the ends; see `types.PartitionLag`.

        Asks nobody. None until the first fetch of each partition has been answered.
        """
        if self._lag != 0 or self._lag_arrivals != self._progress_version:
            self._lag_arrivals = self._progress_version
            self._lag = self._count_lag()
        return self._lag

    def _count_lag(self) -> int | None:
        consumer, total = self._member(), 0
        try:
            for raw in consumer.assignment():
                _, end = consumer.get_watermark_offsets(raw, cached=True)
                committed = self._committed.get(from_confluent(raw))
                if committed is None or end < 0:
                    return None
                total += UncommittedLag(Committed(committed, ""), 0, end, end).messages
        except KafkaException:
            return None
        return total

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self._progress:
            raise Unavailable(f"{partition} is not assigned")
        raw = to_confluent(partition, offset)
        try:
            try:
                self._member().seek(raw)
            except KafkaException as exception:
                if error_of(exception).code() != KafkaError._STATE:
                    raise
                # librdkafka has given the partition up since its position was out of range, and
                # takes it up again only where it is assigned anew.
                self._assign_anew([raw])
        except KafkaException as exception:
            raise translate(error_of(exception), f"seeking in {partition}") from exception
        self._progress.assign(partition, offset, self._waited)
        self._progress_version += 1

    def _assign_anew(self, raw: list[RawPartition]) -> None:
        consumer = self._member()
        _unassign(consumer, raw)
        self._assign(consumer, raw)

    def _assign(self, consumer: Consumer, raw: list[RawPartition]) -> None:
        """From the offsets that the partitions carry."""
        is_paused = self._is_paused or self._is_closing
        if raw and not is_paused:
            # librdkafka remembers a pause beyond the assignment that it was made in: one that ended
            # while the partition was elsewhere would last for good.
            consumer.resume(raw)
        consumer.incremental_assign(raw)
        if raw and is_paused:
            consumer.pause(raw)
        for r in raw:
            self._progress.assign(from_confluent(r), r.offset, self._waited)
        self._progress_version += 1

    def recreate_client(self) -> None:
        # Not at once: this may be within a callback of the client that is to go.
        self._is_outdated = True

    def _renew(self) -> None:
        assert self._listener is not None, "renewed before subscribe"
        try:
            self.close()
        finally:
            self._is_closing = self._is_outdated = False
            self._topic_id = ""
            self.subscribe(self._listener)

    def pause(self) -> None:
        self._is_paused = True
        consumer = self._member()
        consumer.pause(consumer.assignment())

    def resume(self) -> None:
        self._is_paused = False
        consumer = self._member()
        consumer.resume(consumer.assignment())
        self._progress.restart(self._waited)

    def close(self) -> None:
        """Leaves the partitions where they are for a static member, to others for a dynamic one.

        Is done also where it raises what the listener raised.
        """
        self._logs.close()
        self._is_closing, self._has_joined, self._join_error = True, False, None
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._raise_failure()

    def _member(self) -> Consumer:
        if self._consumer is None:
            properties = member_properties(self._broker, self._settings, self._slot, self._on_queue)
            self._consumer = self._broker.connect(Consumer, **properties)
        return self._consumer


def _unassign(consumer: Consumer, raw: Sequence[RawPartition]) -> None:
    # librdkafka takes none of them for one that it has not: whose assignment failed half way.
    assigned = {from_confluent(r) for r in consumer.assignment()}
    consumer.incremental_unassign([r for r in raw if from_confluent(r) in assigned])
