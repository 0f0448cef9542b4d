"""The client that is asked about a topic's log is there while somebody may ask."""

from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.topic_identity import TopicIdentityClient
from octane_analytics.settings.connections import KafkaSettings

_NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1", rdkafka={"log_level": "0"})


def test_client_rests_once_it_was_not_expected_to_be_asked_for_long() -> None:
    now = [100.0]
    logs = TopicIdentityClient(Broker(_NOBODY, "tests"), "", lambda: now[0])

    def rests_after(seconds: float) -> bool:
        now[0] += seconds
        logs.close_if_idle()
        return logs.is_resting

    assert rests_after(0.0), "nobody has asked yet"
    logs.warm_up()
    assert not rests_after(29.0)
    logs.warm_up()
    assert not rests_after(29.0), "it was expected again"
    assert rests_after(1.0)
    logs.warm_up()
    assert not rests_after(0.0)
    logs.close()
    assert rests_after(0.0)
