"""Consumer client that can be replaced by a new one, which knows nothing of the topic."""

from collections.abc import Callable

from confluent_kafka import Consumer


class RecreatableConsumer:
    """Lazily created client, and the reasons to replace it. Creating it joins no group."""

    def __init__(self, create: Callable[[], Consumer]) -> None:
        self._create = create
        self._consumer: Consumer | None = None
        self._topic_id = ""
        """Topic id seen first by this client; empty if none is known."""
        self.is_outdated = False
        """True if the next poll must use a new client."""

    def get(self) -> Consumer:
        if self._consumer is None:
            self._consumer = self._create()
        return self._consumer

    def request_recreation(self) -> None:
        # Deferred: this may be called within a callback of the client to be closed.
        self.is_outdated = True

    def observe_topic_id(self, topic_id: str) -> None:
        """Request a new client if the topic was recreated since this client began to read it, even if
        the caller knows no other topic id."""
        if self._topic_id and topic_id != self._topic_id:
            self.request_recreation()
        self._topic_id = topic_id

    def forget_topic(self) -> None:
        """Start over for a new client, after `close`."""
        self.is_outdated = False
        self._topic_id = ""

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
