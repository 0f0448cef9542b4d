"""Whether Apache Kafka can be had: where not, tests that need it are skipped, or fail where CI=true."""

import os

import pytest

from tests.tools.kafka.apache import KafkaError, prepare


def require_apache() -> None:
    """Fetches it where that is still to be done. Skips the test, or raises KafkaError."""
    try:
        prepare()
    except KafkaError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
