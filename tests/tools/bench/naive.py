"""Baseline for comparison: the simplest loop.

One message at a time, json.loads, rows of Python objects, a commit after each insert.
`python -m tests.tools.bench.naive BOOTSTRAP_SERVERS TOPIC GROUP HOST PORT TABLE ROWS`
"""

import json
import sys
from datetime import datetime

from clickhouse_driver import Client
from confluent_kafka import Consumer


def main(servers: str, topic: str, group: str, host: str, port: str, table: str, size: str) -> None:
    client = Client(host, int(port), compression="lz4")
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    batch = []
    while True:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            event = json.loads(message.value() or b"")
            batch.append(
                (
                    datetime.fromisoformat(event["timestamp"]),
                    event["app_id"],
                    event["event_name"],
                    event["user_id"],
                    json.dumps(event.get("properties") or {}),
                )
            )
        if len(batch) >= int(size) or (batch and message is None):
            client.execute(
                f"INSERT INTO {table} (timestamp, app_id, event_name, user_id, properties) VALUES",
                batch,
            )
            consumer.commit(asynchronous=False)
            batch = []


if __name__ == "__main__":
    main(*sys.argv[1:])
