"""Client for inspecting a consumer group and its topic, and for setting the group's offsets.

Never joins the group: its commits are accepted only while the group has no members, so a repair cannot
interfere with a worker.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as RawPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.cimpl import NewTopic

from octane_analytics.errors import NeedsOperator, Rebalancing, Unavailable
from octane_analytics.kafka.client import error_of, translate
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.kafka.offsets import log_ends, offsets_at
from octane_analytics.kafka.standalone_client import StandaloneClient
from octane_analytics.kafka.topic_settings import topic_settings
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import Commit, Committed, LogIdentity, TopicPartition

_ADMIN_SECONDS = 4.0
_SMALL_FETCH_BYTES = 65_536
_STATIC_MEMBERS = "(a static member is gone only after its session timeout, 45 s by default)"
_NO_GROUP = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID})
_MOVING = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
_MOVING_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    member_id: str
    instance_id: str | None
    """None for a dynamic member."""
    client_id: str
    host: str
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class GroupState:
    state: str
    """State reported by the coordinator, in lower case: stable, empty, dead, preparing_rebalance …"""
    members: tuple[Member, ...]

    @property
    def exists(self) -> bool:
        return self.state != "dead"

    def owner(self, partition: TopicPartition) -> Member | None:
        return next((m for m in self.members if partition in m.partitions), None)


class ConsumerGroupAdmin(StandaloneClient):
    """Client for the configured group.

    Every method blocks on a broker, for up to some seconds, and raises Unavailable if none answers,
    NeedsOperator for a missing topic or right.
    """

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__(settings, client_id)
        self._source = KafkaSource(settings, None)
        self._admin: AdminClient | None = None

    def close(self) -> None:
        super().close()
        self._source.close()
        self._admin = None

    def brokers(self, topic: str) -> int:
        """Return the number of brokers, whether or not the topic exists."""
        return len(self._metadata(topic).brokers)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return the topic's partitions, in order."""
        return [TopicPartition(topic, number) for number in self._partition_numbers(topic)]

    def cleanup_policy(self, topic: str) -> str:
        """Return the topic's `cleanup.policy`; empty if the broker does not report it to this user."""
        return topic_settings(self._administration(), topic).get("cleanup.policy", "")

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return self._committed(partitions)

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the first offset that the log holds, and the offset of its next record."""
        return self._source.earliest(partition), self._source.latest(partition)

    def stable_ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the last stable offsets, up to which consumers read."""
        return log_ends(self._administration(), partitions, is_stable=True)

    def offsets_at(
        self, partitions: Sequence[TopicPartition], epoch_seconds: float
    ) -> dict[TopicPartition, int | None]:
        """Return offsets by time; see `kafka.offsets.offsets_at`."""
        return offsets_at(self._connected(), partitions, epoch_seconds)

    def identity(self, topic: str) -> LogIdentity:
        return self._source.log_identity(topic)

    def commit(self, commits: Sequence[Commit]) -> None:
        """Set the group's offsets; all of them, or an error. Raise NeedsOperator also while the group
        has members: the coordinator then refuses."""
        outcome = self._source.commit(commits)
        if isinstance(outcome.error, Rebalancing):
            raise NeedsOperator(
                f"group {self._settings.group_id} has active members: stop every worker first "
                f"{_STATIC_MEMBERS}"
            ) from outcome.error
        if outcome.error is not None:
            raise outcome.error

    def require_no_members(self) -> None:
        """Raise NeedsOperator if the group has members, Unavailable if no broker reports them."""
        members = self.state().members
        if members:
            hosts = ", ".join(sorted({member.host for member in members}))
            raise NeedsOperator(
                f"group {self._settings.group_id} has {len(members)} active members ({hosts}): stop "
                f"every worker first {_STATIC_MEMBERS}"
            )

    def state(self) -> GroupState:
        """Return state and members. Raise Unavailable also if the broker does not report them (no
        controller, an old version)."""
        group = self._settings.group_id
        doing = f"asking for the members of group {group}"
        try:
            answer = self._described(group)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() in _NO_GROUP:
                return GroupState("dead", ())
            raise translate(error, doing) from exception
        except TimeoutError as error:
            raise Unavailable(f"{doing}: no answer in time") from error
        members = (
            Member(
                member.member_id,
                member.group_instance_id,
                member.client_id,
                member.host.lstrip("/"),
                frozenset(
                    TopicPartition(raw.topic, raw.partition)
                    for raw in (member.assignment.topic_partitions if member.assignment else ())
                ),
            )
            for member in answer.members
        )
        return GroupState(answer.state.name.lower(), tuple(members))

    def _described(self, group: str) -> ConsumerGroupDescription:
        """Asks again while the group's coordinator is about to be another broker, or the first one."""
        admin, deadline = self._administration(), time.monotonic() + _ADMIN_SECONDS
        # librdkafka aborts the process if the connection fails during a request to the coordinator (its
        # issue 4605): ask only while a broker answers.
        self._metadata(self._settings.topic)
        while True:
            described = admin.describe_consumer_groups([group], request_timeout=_ADMIN_SECONDS)
            try:
                answer: ConsumerGroupDescription = described[group].result(_ADMIN_SECONDS + 1.0)
            except KafkaException as exception:
                if error_of(exception).code() not in _MOVING or time.monotonic() >= deadline:
                    raise
                time.sleep(_MOVING_PAUSE_SECONDS)
            else:
                return answer

    def may_create(self, topic: str) -> None:
        """Have the broker validate the creation of the topic, without creating it. Raise the error that
        creating it would."""
        wanted = NewTopic(topic, num_partitions=-1, replication_factor=-1)
        admin = self._administration()
        try:
            answers = admin.create_topics(
                [wanted], validate_only=True, request_timeout=_ADMIN_SECONDS
            )
            answers[topic].result(timeout=_ADMIN_SECONDS + 1.0)
        except KafkaException as exception:
            raise translate(error_of(exception), f"creating topic {topic}") from exception
        except TimeoutError as error:
            raise Unavailable(f"creating topic {topic}: no answer in time") from error

    def timestamps(
        self, positions: Mapping[TopicPartition, int], seconds: float
    ) -> dict[TopicPartition, int]:
        """Return the timestamp of the first record at or after each position, in epoch milliseconds.

        Blocks for up to `seconds`. Partitions are missing if no record was received in time, if there
        is none, or if it has no timestamp.
        """
        if not positions:
            return {}
        consumer = self._broker.connect(
            Consumer,
            **{
                "group.id": self._settings.group_id,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                # One record of each partition is needed: limit the fetches.
                "max.partition.fetch.bytes": _SMALL_FETCH_BYTES,
                "queued.min.messages": 1,
            },
        )
        found: dict[TopicPartition, int] = {}
        waiting = set(positions)
        deadline = time.monotonic() + seconds
        try:
            consumer.assign([RawPartition(*where, offset) for where, offset in positions.items()])
            while waiting and (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(1000, min(left, 0.2)):
                    topic, number = message.topic(), message.partition()
                    if topic is None or number is None:
                        continue
                    where = TopicPartition(topic, number)
                    if where not in waiting:
                        continue
                    waiting.discard(where)
                    consumer.incremental_unassign([RawPartition(*where)])
                    kind, milliseconds = message.timestamp()
                    if message.error() is None and kind and milliseconds > 0:
                        found[where] = milliseconds
        finally:
            consumer.close()
        return found

    def _administration(self) -> AdminClient:
        if self._admin is None:
            self._admin = self._broker.connect(AdminClient)
        return self._admin
