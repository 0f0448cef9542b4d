"""Checks of Kafka: brokers, topics, group, offsets and clock. Changes nothing and joins no group."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from octane_analytics.errors import NeedsOperator, OctaneError, Unavailable
from octane_analytics.kafka.client_ids import TableMark
from octane_analytics.kafka.group_admin import GroupState, Member
from octane_analytics.kafka.group_conflicts import conflicting_members, explain
from octane_analytics.operations.checks.finding import Finding, fail, failed, ok, warn
from octane_analytics.pipeline.intents import parse_intent, pending_intent
from octane_analytics.pipeline.start_positions import start_position
from octane_analytics.settings.sections import Settings
from octane_analytics.types import Committed, LogIdentity, TopicPartition

CLIENT_ID_PREFIX = "octane-analytics"
"""Prefix of the client id of every client of this program."""
MAX_SKEW_SECONDS = 5.0
_TIMESTAMP_SECONDS = 2.0


class CheckedCluster(Protocol):
    """Methods of `kafka.group_admin.ConsumerGroupAdmin` needed here."""

    def brokers(self, topic: str) -> int: ...
    def partitions(self, topic: str) -> list[TopicPartition]: ...
    def cleanup_policy(self, topic: str) -> str: ...
    def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Committed]: ...
    def bounds(self, partition: TopicPartition) -> tuple[int, int]: ...
    def identity(self, topic: str) -> LogIdentity: ...
    def state(self) -> GroupState: ...
    def may_create(self, topic: str) -> None: ...
    def timestamps(
        self, positions: Mapping[TopicPartition, int], seconds: float
    ) -> dict[TopicPartition, int]: ...


def check_kafka(
    cluster: CheckedCluster, settings: Settings, now: float, own: TableMark | None = None
) -> Iterator[Finding]:
    """Yield the findings; stops at a failure that makes later checks impossible. Blocks on brokers.

    `now` is in epoch seconds, `own` the table of this service.
    """
    kafka = settings.kafka
    try:
        brokers = cluster.brokers(kafka.topic)
    except OctaneError as error:
        yield failed("kafka", error)
        return
    yield ok("kafka", f"{kafka.bootstrap_servers} answers; brokers: {brokers}")
    yield _dead_letter_topic(cluster, kafka.dlq_topic)
    try:
        partitions = cluster.partitions(kafka.topic)
    except OctaneError as error:
        yield failed("topic", error)
        return
    yield _partition_count(kafka.topic, len(partitions), settings.worker.procs)
    yield from _compaction(cluster, kafka.topic)
    yield from _group(cluster, settings, partitions, own)
    yield _newest_record(cluster, partitions, now)


def _partition_count(topic: str, partitions: int, procs: int) -> Finding:
    text = f"{topic} has {partitions} partitions for {procs} processes"
    if partitions < procs:
        return warn(
            "topic", f"{text}: {procs - partitions} of them will idle; lower WORKER_PROCS (--procs)"
        )
    return ok("topic", text)


def _compaction(cluster: CheckedCluster, topic: str) -> Iterator[Finding]:
    try:
        policy = cluster.cleanup_policy(topic)
    except OctaneError:
        return  # a broker that does not report settings, such as the sandbox's
    if "compact" in map(str.strip, policy.split(",")):
        yield warn(
            "topic",
            f"{topic} is compacted (cleanup.policy={policy}): Kafka removes an event once its key "
            "occurs again, stored or not; run kafka-configs.sh --alter --entity-type topics "
            f"--entity-name {topic} --add-config cleanup.policy=delete",
        )


def _dead_letter_topic(cluster: CheckedCluster, topic: str) -> Finding:
    subject = "dead-letter topic"
    halts = "an invalid record would halt its partition"
    try:
        partitions = cluster.partitions(topic)
    except NeedsOperator as missing:
        try:
            cluster.may_create(topic)
        except OctaneError as error:
            return warn(subject, f"{missing}; and the worker cannot create it ({error}): {halts}")
        return ok(subject, f"{topic} does not exist; the worker will create it")
    except OctaneError as error:
        return failed(subject, error)
    return ok(subject, f"{topic} has {len(partitions)} partitions")


def _group(
    cluster: CheckedCluster,
    settings: Settings,
    partitions: Sequence[TopicPartition],
    own: TableMark | None,
) -> Iterator[Finding]:
    group = settings.kafka.group_id
    try:
        committed = cluster.committed(partitions)
    except OctaneError as error:
        yield failed("group", error)
        return
    try:
        state = cluster.state()
    except NeedsOperator as error:
        yield failed("group", error)
        return
    except Unavailable as error:
        yield warn("group", f"{group}: its members are not known ({error})")
    else:
        yield _members(group, state, own)
    yield _offsets(cluster, settings.kafka.topic, committed)


def _members(group: str, state: GroupState, own: TableMark | None) -> Finding:
    foreign = [
        member for member in state.members if not member.client_id.startswith(CLIENT_ID_PREFIX)
    ]
    if foreign:
        return fail(
            "group",
            f"{group} has members that are not of this service ({_list_members(foreign)}): they take "
            "partitions away and move their offsets; stop them or set another KAFKA_GROUP_ID",
        )
    if others := conflicting_members(state.members, own):
        return fail("group", f"{explain(group, others)}; until then a worker exits with 78")
    if not state.exists:
        return ok("group", f"{group} is new: it begins with the earliest records")
    if state.members:
        return ok("group", f"{group} is {state.state}, members: {_list_members(state.members)}")
    return ok("group", f"{group} is {state.state}")


def _list_members(members: Sequence[Member]) -> str:
    return ", ".join(sorted({f"{member.client_id}@{member.host}" for member in members}))


def _offsets(
    cluster: CheckedCluster, topic: str, committed: Mapping[TopicPartition, Committed]
) -> Finding:
    try:
        log = cluster.identity(topic)
        bounds = {p: cluster.bounds(p) for p, c in committed.items() if c.offset is not None}
        intents = {p: parse_intent(topic, p.partition, c.metadata) for p, c in committed.items()}
        batches = {pending_intent(topic, p.partition, c) for p, c in committed.items()}
    except OctaneError as error:
        return failed("offsets", error)
    gone = [p for p, (first, _) in bounds.items() if _offset(committed, p) < first]
    after_end = [p for p, (_, end) in bounds.items() if _offset(committed, p) > end]
    others = [
        p
        for p, intent in intents.items()
        if intent is not None and intent.log.cluster_id != log.cluster_id
    ]
    if gone:
        return warn(
            "offsets",
            f"retention has removed unread records of partitions {_numbers(gone)}: lengthen it",
        )
    if after_end:
        return warn(
            "offsets",
            f"the offsets of partitions {_numbers(after_end)} are after the end of the log: either they "
            "belong to another log, and the worker reads from the beginning, or the log has lost its "
            "newest records, and the worker continues from the end; set them with "
            "`octane-analytics offsets set`",
        )
    if others:
        return warn(
            "offsets",
            f"the offsets of partitions {_numbers(others)} were committed for another cluster: use "
            "`octane-analytics offsets import --other-log` to move a group",
        )
    moved = [p for p, c in committed.items() if start_position(topic, p.partition, c, log).is_moved]
    if moved:
        listed = ", ".join(f"{p.partition}: {_offset(committed, p)}" for p in moved)
        return warn(
            "offsets",
            f"another tool has set the committed offsets of some partitions ({listed}): the worker "
            "reads from there, whatever was inserted before; see `octane-analytics manual runbook`, "
            "The group's offsets are wrong",
        )
    pending = sorted({n for intent in batches if intent is not None for n in intent.partitions})
    if pending:
        return ok(
            "offsets",
            f"a batch is pending for partitions {', '.join(map(str, pending))}: it is inserted first, "
            "once",
        )
    return ok("offsets", "none is outside the log, nothing is pending")


def _offset(committed: Mapping[TopicPartition, Committed], partition: TopicPartition) -> int:
    return committed[partition].offset or 0


def _numbers(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(str(partition.partition) for partition in partitions)


def _newest_record(
    cluster: CheckedCluster, partitions: Sequence[TopicPartition], now: float
) -> Finding:
    subject = "clock and kafka"
    try:
        bounds = {partition: cluster.bounds(partition) for partition in partitions}
        last = {partition: end - 1 for partition, (first, end) in bounds.items() if first < end}
        timestamps_ms = cluster.timestamps(last, _TIMESTAMP_SECONDS)
    except OctaneError as error:
        return failed(subject, error)
    if not timestamps_ms:
        return ok(subject, "no record to compare with")
    age_seconds = now - max(timestamps_ms.values()) / 1000
    if age_seconds < -MAX_SKEW_SECONDS:
        return warn(
            subject,
            f"the newest record is {-age_seconds:.0f} s ahead of this host: set the clocks by NTP, "
            "here and on the hosts of the producers",
        )
    return ok(subject, f"the newest record is {max(0.0, age_seconds):,.0f} s old")
