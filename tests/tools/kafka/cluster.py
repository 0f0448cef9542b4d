"""Apache Kafka as a cluster on loopback: several brokers, and one controller apart from them.

The controller is a process of its own, so that it can be away while every broker is there. Each topic
has a replica on every broker; a write needs all but one of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.ports import free_port
from tests.tools.kafka.admin import Administered
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.jars import new_id
from tests.tools.kafka.node import Node

_CONTROLLER_ID = 100


class KafkaCluster(Administered):
    """As a context manager: started on entry, killed on exit. Raises KafkaError.

    directory receives one directory for each process, and is kept; without one, a temporary
    directory is made and removed. settings are properties of every broker.
    """

    def __init__(
        self,
        brokers: int = 3,
        directory: Path | None = None,
        *,
        partitions: int = 1,
        settings: Mapping[str, str] | None = None,
        is_leashed: bool = True,
    ) -> None:
        self._is_temporary = directory is None
        directory = directory or Path(tempfile.mkdtemp(prefix="octane-kafka-"))
        self.directory = directory.absolute()
        replicas, minimum = str(brokers), str(max(1, brokers - 1))
        shared = {
            "default.replication.factor": replicas,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": minimum,
            "min.insync.replicas": minimum,
            **(settings or {}),
        }
        cluster_id, voter = new_id(), (_CONTROLLER_ID, free_port())
        self.controller = ApacheKafka(
            self.directory / "controller",
            node=Node(_CONTROLLER_ID, is_broker=False, cluster_id=cluster_id),
            controller_port=voter[1],
            partitions=partitions,
            settings=shared,
            is_leashed=is_leashed,
        )
        self.brokers = [
            ApacheKafka(
                self.directory / f"broker-{number}",
                node=Node(number, voter=voter, cluster_id=cluster_id),
                partitions=partitions,
                settings=shared,
                is_leashed=is_leashed,
            )
            for number in range(1, brokers + 1)
        ]

    @property
    def nodes(self) -> list[ApacheKafka]:
        """Return the processes: brokers, then the controller."""
        return [*self.brokers, self.controller]

    @property
    def is_running(self) -> bool:
        return all(node.is_running for node in self.nodes)

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self, deadline_seconds: float = 60) -> None:
        """Start what is not running; block until every partition has a leader.

        All start before one is waited for: a partition's leader may be the last of them.
        """
        started = [node for node in (self.controller, *self.brokers) if not node.is_running]
        for node in started:
            node.launch()
        for node in started:
            node.await_ready(deadline_seconds)

    def stop(self) -> None:
        """Stop every process cleanly, the controller last."""
        for node in self.nodes:
            node.stop()

    def resume(self) -> None:
        """Resume every process that is paused."""
        for node in self.nodes:
            node.resume()

    def close(self) -> None:
        """Kill every process, and remove the directory if it is temporary."""
        for node in self.nodes:
            node.close()
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def release(self) -> None:
        """Detach the processes and their directory from this object; all of them remain."""
        for node in self.nodes:
            node.release()
        self._is_temporary = False

    def is_in_sync(self) -> bool:
        """Return whether every broker runs and every replica is in sync. Blocks for a request."""
        return self.is_running and super().is_in_sync()

    def leader(self, topic: str, partition: int) -> ApacheKafka:
        """Return the broker that leads the partition. Blocks for a request."""
        return self.brokers[self.leader_id(topic, partition) - 1]

    def coordinator(self, group: str) -> ApacheKafka:
        """Return the broker that coordinates the group: the leader of its offsets' partition."""
        return self.brokers[self.coordinator_id(group) - 1]
