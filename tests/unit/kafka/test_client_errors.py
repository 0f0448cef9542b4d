"""Errors of librdkafka, translated into what the caller does next."""

from confluent_kafka import KafkaError

from octane_analytics.errors import NeedsOperator
from octane_analytics.kafka.client import translate


def test_refused_metadata_names_the_setting_of_brokers() -> None:
    refused = translate(KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE), "committing offsets")
    assert isinstance(refused, NeedsOperator)
    assert "offset.metadata.max.bytes" in str(refused)
