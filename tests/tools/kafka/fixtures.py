"""Fixtures of Apache Kafka: without it the tests that need it are skipped, or fail if CI=true."""

import os

import pytest

from tests.tools.kafka.apache import KafkaError, prepare


def require_apache() -> None:
    """Fetch Apache Kafka unless it is cached. Skip the test, or raise KafkaError."""
    try:
        prepare()
    except KafkaError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
