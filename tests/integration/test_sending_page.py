"""Programs of the manual's page on sending, against a real broker protocol."""

import os
import re
import subprocess
import sys

from confluent_kafka import Consumer

from octane_analytics.cli.commands.manual import read_page
from octane_analytics.events.decode import decode
from octane_analytics.sandbox.kafka import EmbeddedKafka

TOPIC = "octane.events"


def test_python_example_sends_a_valid_event() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", read_page("sending"), re.DOTALL | re.M)
    with EmbeddedKafka(topics={TOPIC: 4}) as kafka:
        servers = kafka.bootstrap_servers
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": servers},
            check=True,
            timeout=60,
        )
        consumer = Consumer(
            {"bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([TOPIC])
        try:
            message = consumer.poll(30)
        finally:
            consumer.close()
    assert message is not None
    value = message.value()
    assert value is not None
    row = decode(value)
    assert (row.event_name, row.user_id) == ("video_start", "user_550e8400")
    assert message.key() == b"user_550e8400"
