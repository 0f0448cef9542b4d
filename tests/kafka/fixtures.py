"""Whether Apache Kafka can be had: where not, tests that need it are skipped, or fail where CI=true."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kafka.apache import ApacheKafka, KafkaError, prepare


def require_apache() -> None:
    """Fetches it where that is still to be done. Skips the test, or raises KafkaError."""
    try:
        prepare()
    except KafkaError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@contextmanager
def apache_kafka() -> Iterator[ApacheKafka]:
    """One broker. As `require_apache`."""
    require_apache()
    with ApacheKafka() as broker:
        yield broker
