"""Life of the client that fetches topic identities."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from octane_analytics.errors import Unavailable
from octane_analytics.kafka.client import Broker
from octane_analytics.kafka.topic_identity import TopicIdentityClient, log_identity
from octane_analytics.settings.connections import KafkaSettings
from octane_analytics.types import LogIdentity

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


class _Cluster:
    """Admin client of a cluster with one topic, which counts the requests for metadata."""

    def __init__(self) -> None:
        self.topic_id = "first"
        self.cluster_id = "cluster"
        self.metadata_requests = 0
        self.failure: Exception | None = None

    def describe_topics(self, topics: TopicCollection, **_: object) -> dict[str, Future[object]]:
        described: Future[object] = Future()
        if self.failure is None:
            described.set_result(SimpleNamespace(topic_id=self.topic_id))
        else:
            described.set_exception(self.failure)
        return dict.fromkeys(topics.topic_names, described)

    def list_topics(self, topic: str, **_: object) -> object:
        self.metadata_requests += 1
        return SimpleNamespace(cluster_id=self.cluster_id)


@pytest.mark.parametrize("has_topic_ids", [True, False])
def test_cluster_is_requested_for_a_new_topic_id(has_topic_ids: bool) -> None:
    cluster = _Cluster()
    if not has_topic_ids:
        cluster.topic_id = "AAAAAAAAAAAAAAAAAAAAAA"
    admin = cast(AdminClient, cluster)
    first = log_identity(admin, "t", "e")
    assert first == LogIdentity("cluster", "first" if has_topic_ids else "", "e")
    assert log_identity(admin, "t", "e", first) == first
    assert cluster.metadata_requests == (1 if has_topic_ids else 2)
    cluster.cluster_id = "other"
    if has_topic_ids:
        cluster.topic_id = "second"
    assert log_identity(admin, "t", "e", first).cluster_id == "other"
    assert log_identity(admin, "t", "e2", first).epoch == "e2"


@pytest.mark.parametrize(
    ("failure", "requests"),
    [
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), 1),
        (TimeoutError(), 1),
        (KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)), 0),
    ],
)
def test_metadata_is_requested_after_a_timeout(failure: Exception, requests: int) -> None:
    cluster = _Cluster()
    cluster.failure = failure
    with pytest.raises(Unavailable, match="asking what t is"):
        log_identity(cast(AdminClient, cluster), "t", "")
    assert cluster.metadata_requests == requests
