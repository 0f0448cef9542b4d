"""Time limits of a worker's drain, compared with each other.

Only a worker drains: commands that read the same environment file do not depend on these limits.
"""

from collections.abc import Mapping

from octane_analytics.errors import ConfigError
from octane_analytics.settings.sections import Settings


def require_drain_time(settings: Settings) -> None:
    """Raise ConfigError unless an insert fits into a drain, and a drain into the poll interval."""
    timeout, drain = settings.clickhouse.timeout_seconds, settings.worker.drain_seconds
    if timeout >= drain:
        raise ConfigError(
            f"CLICKHOUSE_TIMEOUT ({timeout:g} s) must be shorter than DRAIN_TIMEOUT ({drain:g} s), or a "
            "drain could not finish one insert: lower CLICKHOUSE_TIMEOUT"
        )
    poll_seconds = max_poll_seconds(settings.kafka.rdkafka)
    if drain >= poll_seconds:
        raise ConfigError(
            f"DRAIN_TIMEOUT ({drain:g} s) must be shorter than librdkafka's max.poll.interval.ms "
            f"({poll_seconds:g} s), or the group would reassign the partitions during a drain: lower "
            "DRAIN_TIMEOUT"
        )


def max_poll_seconds(rdkafka: Mapping[str, str]) -> float:
    """Return librdkafka's max.poll.interval.ms in seconds. Raise ConfigError if it is not a number."""
    raw = rdkafka.get("max.poll.interval.ms", "300000")
    try:
        return int(raw) / 1000
    except ValueError:
        raise ConfigError(
            f"KAFKA_RDKAFKA_MAX_POLL_INTERVAL_MS is {raw!r}: must be a whole number of ms"
        ) from None
