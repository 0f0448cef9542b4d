"""Programs of the manual's page on sending: through Apache Kafka, a worker and ClickHouse to a report.

A program whose language or library is missing is skipped, also in CI, which installs Java only.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer
from starlette.types import ASGIApp

from octane_analytics.cli.commands.manual import read_page
from octane_analytics.events.decode import decode
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.api_fixtures import app_over
from tests.support.asgi_calls import call
from tests.support.command import running, wait_until
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.jars import CACHE, JVM_OPTIONS, fetch

TOPIC = "octane.events"
USER = "user_550e8400"
PARTITIONS = 32
"""As many that two partitioners choose the same one by chance in 3 % of the cases."""
KAFKAJS = "kafkajs@2"
NODE = CACHE / "node"
"""Cache of what npm installs, so that a machine downloads it once."""
JARS = ("kafka-clients", "jackson-", "slf4j-api", "lz4-", "snappy-", "zstd-")
"""Of the broker's jars those of the program; the compiler opens every one."""


def program(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", read_page("sending"), re.DOTALL | re.M)
    return str(text)


def python(directory: Path) -> list[str]:
    return [sys.executable, "-c", program("python")]


def javascript(directory: Path) -> list[str]:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm not found")
    NODE.mkdir(parents=True, exist_ok=True)
    if not (NODE / "node_modules" / "kafkajs" / "package.json").exists():
        install = ["npm", "install", "--no-audit", "--no-fund", KAFKAJS]
        try:
            done = subprocess.run(install, cwd=NODE, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install {KAFKAJS} in time")
        if done.returncode:
            pytest.skip(f"npm cannot install {KAFKAJS}: {done.stderr[-300:]}")
    (directory / "send.js").write_text(program("js"))
    return ["node", "send.js"]


def java(directory: Path) -> list[str]:
    if shutil.which("javac") is None:
        pytest.skip("javac not found, without which java runs no source file")
    (directory / "Send.java").write_text(program("java"))
    installation = fetch()
    jars = [jar for jar in installation.jars.split(":") if Path(jar).name.startswith(JARS)]
    return [str(installation.java), *JVM_OPTIONS, "-cp", ":".join(jars), "Send.java"]


def kcat(directory: Path) -> list[str]:
    if shutil.which("kcat") is None:
        pytest.skip("kcat not found: apt-get install kcat")
    texts = re.findall(r"^```sh\n(.*?)^```$", read_page("sending"), re.DOTALL | re.M)
    (text,) = (each for each in texts if "kcat" in each)
    return ["sh", "-e", "-c", text]


@pytest.fixture
def topic(kafka: ApacheKafka) -> str:
    """Return a topic of the test's own; the programs name another one."""
    name = f"sent-{uuid.uuid4().hex}"
    kafka.create_topic(name, partitions=PARTITIONS)
    return name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [python, javascript, java, kcat])
def test_example_is_counted_by_a_report(
    kafka: ApacheKafka,
    clickhouse_settings: ClickHouseSettings,
    topic: str,
    tmp_path: Path,
    prepare: Callable[[Path], list[str]],
) -> None:
    command = [part.replace(TOPIC, topic) for part in prepare(tmp_path)]
    for source in tmp_path.glob("[sS]end.*"):
        source.write_text(source.read_text().replace(TOPIC, topic))
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "NODE_PATH": str(NODE / "node_modules"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"}
    )
    reference.produce(topic, key=USER, value=json.dumps(event()))
    assert reference.flush(30) == 0
    sent, expected = read(kafka, topic, 2)
    assert (sent.key(), sent.partition()) == (USER.encode(), expected.partition())
    value = sent.value()
    assert value is not None
    row = decode(value)
    assert (row.app_id, row.event_name, row.user_id) == ("openstream", "video_start", USER)
    assert json.loads(row.properties)["view_id"] == "v-1"
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_TOPIC": topic,
        "KAFKA_GROUP_ID": f"{topic}-workers",
        "CLICKHOUSE_HOST": clickhouse_settings.host,
        "CLICKHOUSE_PORT": str(clickhouse_settings.port),
        "CLICKHOUSE_DATABASE": clickhouse_settings.database,
        "FLUSH_INTERVAL": "0.2",
        "METRICS_PORT": "0",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
    }
    with (
        running(tmp_path / "worker.log", "worker", "--procs", "1", settings=settings),
        app_over(clickhouse_settings) as app,
    ):
        wait_until(lambda: views(app) == {("openstream", 1, 1)})


def views(app: ASGIApp) -> set[tuple[str, int, int]]:
    """Return app, plays and viewers of the example's application in the last hour."""
    answer = call(app, "GET", "/report/views?by=app_id&app_id=openstream&from=-1h")
    assert answer.status_code == 200, answer.text
    return {(row["value"], row["plays"], row["viewers"]) for row in answer.json()["rows"]}


def event() -> dict[str, object]:
    now = datetime.now(UTC).isoformat()
    return {"app_id": "a", "event_name": "e", "user_id": USER, "timestamp": now, "properties": {}}


def read(kafka: ApacheKafka, topic: str, count: int) -> list[Message]:
    """Return the first messages of the topic in the order of their times."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": topic,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    messages: list[Message] = []
    try:
        while len(messages) < count:
            message = consumer.poll(30)
            assert message is not None, f"{len(messages)} of {count} messages arrived in time"
            assert message.error() is None
            messages.append(message)
    finally:
        consumer.close()
    return sorted(messages, key=lambda each: each.timestamp()[1])
