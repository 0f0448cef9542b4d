"""Output of `dlq purge-report`: settled offsets and the commands that delete the messages below them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octane_analytics.cli.invocation import command_line
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import OffsetRange


def purge_object(records: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return the file that `kafka-delete-records --offset-json-file` reads."""
    return {"partitions": records, "version": 1}


def purge_lines(
    records: Sequence[Mapping[str, object]],
    ranges: Mapping[int, OffsetRange],
    kafka: KafkaSettings,
) -> Iterator[str]:
    """Yield the settled range of each partition, then the commands to delete these ranges."""
    for record in records:
        first = ranges[int(str(record["partition"]))].first
        yield f"partition {record['partition']}: {first} to {record['offset']} (exclusive) settled"
    if not records:
        yield "nothing to purge: the first dead-letter message of every partition is not settled"
        return
    yield "to delete these messages permanently:"
    yield f"  {command_line('--json')} > settled.json"
    yield (
        f"  kafka-delete-records --bootstrap-server {shlex.quote(kafka.bootstrap_servers)} "
        "--offset-json-file settled.json"
    )
    if "security.protocol" in kafka.rdkafka:
        yield "  (add --command-config FILE with your TLS or SASL properties)"
