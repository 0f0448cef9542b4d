"""Life of the client that fetches topic identities."""

from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.topic_identity import TopicIdentityClient
from octane_analytics.settings.connections import KafkaSettings

_NO_BROKER = KafkaSettings(bootstrap_servers="127.0.0.1:1", rdkafka={"log_level": "0"})


def test_identity_client_closes_after_idle_time() -> None:
    now = [100.0]
    client = TopicIdentityClient(Broker(_NO_BROKER, "tests"), "", lambda: now[0])

    def is_closed_after(seconds: float) -> bool:
        now[0] += seconds
        client.close_if_idle()
        return client.is_closed

    assert is_closed_after(0.0), "not used yet"
    client.warm_up()
    assert not is_closed_after(29.0)
    client.warm_up()
    assert not is_closed_after(29.0), "warmed up again"
    assert is_closed_after(1.0)
    client.warm_up()
    assert not is_closed_after(0.0)
    client.close()
    assert is_closed_after(0.0)
