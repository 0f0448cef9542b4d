"""Differences between an existing topic and the requested one, with the commands that fix them."""

from octane_analytics.kafka.topic_admin import TopicShape

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))


def differences(name: str, live: TopicShape, wanted: TopicShape) -> list[str]:
    """Return one line for each difference; attributes that were not requested are not compared."""
    found = []
    if wanted.partitions not in (None, live.partitions):
        difference = f"topic {name} has {live.partitions} partitions, not {wanted.partitions}"
        if (live.partitions or 0) < (wanted.partitions or 0):
            difference += (
                f": kafka-topics.sh --alter --topic {name} --partitions {wanted.partitions}"
            )
        else:
            difference += ": partitions cannot be removed"
        found.append(difference)
    if wanted.replication not in (None, live.replication):
        found.append(
            f"topic {name} has {live.replication} replicas of a partition, not {wanted.replication}: "
            "kafka-reassign-partitions.sh adds or removes them"
        )
    if wanted.retention_ms not in (None, live.retention_ms):
        found.append(
            f"topic {name} keeps records {retention_text(live.retention_ms)}, not "
            f"{retention_text(wanted.retention_ms)}: kafka-configs.sh --alter --entity-type topics "
            f"--entity-name {name} --add-config retention.ms={wanted.retention_ms}"
        )
    return found


def retention_text(milliseconds: int | None) -> str:
    """Format a retention as the options take it: `7d`, `36h`, `forever`; `unknown` for None."""
    if milliseconds is None:
        return "unknown"
    if milliseconds < 0:
        return "forever"
    for unit, length in _UNITS:
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"
