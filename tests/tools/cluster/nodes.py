"""A ClickHouse cluster on this machine: shards of replicas with one ZooKeeper, on loopback.

Each node is clickhouse-local as in `octane_analytics.sandbox.clickhouse`, with what it lacks for
replicated tables added (see `node_child`). Differences from a cluster of clickhouse-server: ON CLUSTER
and `system.zookeeper` do not work, and `remote_servers` is read at the start only. About 240 MB for each
node, and 80 MB for ZooKeeper. Shards of one plain table each need neither that nor ZooKeeper.
"""

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from octane_analytics.runtime.closeable import Startable
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse, User
from octane_analytics.sandbox.engine import HOST
from octane_analytics.settings.connections import ClickHouseSettings
from tests.support.ports import free_port
from tests.tools.cluster import node_child
from tests.tools.cluster.zookeeper import ZooKeeper

CLUSTER = "octane"
"""Name of the cluster in every node's remote_servers."""
_NODE = """\
<clickhouse>
  <macros><shard>{shard}</shard><replica>{replica}</replica></macros>
  <remote_servers>{clusters}</remote_servers>{replication}
</clickhouse>
"""
_REPLICATION = """
  <interserver_http_host>{host}</interserver_http_host>
  <interserver_http_port>{interserver_port}</interserver_http_port>
  <announced_port>{announced_port}</announced_port>
  <interserver_listen_host>{host}</interserver_listen_host>
  <default_replica_path>/clickhouse/tables/{{uuid}}/{{shard}}</default_replica_path>
  <default_replica_name>{{replica}}</default_replica_name>
  <zookeeper>
    <node><host>{host}</host><port>{zookeeper_port}</port></node>
    <session_timeout_ms>8000</session_timeout_ms>
    <operation_timeout_ms>5000</operation_timeout_ms>
    <!-- nodes that share it end one another's sessions -->
    <sessions_path>/clickhouse/sessions/{replica}</sessions_path>
  </zookeeper>
  <merge_tree>
    <zookeeper_session_expiration_check_period>2</zookeeper_session_expiration_check_period>
  </merge_tree>"""


class Node(EmbeddedClickHouse):
    """One replica. Stop, kill, pause and start it as any engine; its ports stay the same."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        users: Sequence[User] = (),
        users_files: Mapping[str, str] | None = None,
        is_replicated: bool = True,
    ) -> None:
        super().__init__(
            directory / name,
            tcp_port=free_port(),
            http_port=free_port(),
            users=users,
            users_files=users_files,
        )
        self.name = name
        self._is_replicated = is_replicated
        self.config = ""
        """Content of its file of `config.d`, set by the cluster."""
        self.exchange_port = free_port()
        """Port from which it serves its parts."""
        self.announced_port: int | None = None
        """Port from which other replicas fetch its parts, such as a proxy's; None: `exchange_port`."""
        self.zookeeper_port: int | None = None
        """Port at which it reaches ZooKeeper, such as a proxy's; None: ZooKeeper's own."""

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.tcp_port}"

    @property
    def data_directory(self) -> Path:
        """Directory of its tables, to be removed while it is down: a disk that is lost."""
        return self._directory / "data"

    def _program(self) -> str:
        return node_child.__name__ if self._is_replicated else super()._program()

    def _write_configuration(self, identity: str) -> None:
        super()._write_configuration(identity)
        path = self._directory / node_child.CONFIG
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.config)


class ClickHouseCluster(Startable):
    """`shards` with `replicas` each.

    Without `is_replicated` there is no ZooKeeper, and tables are plain ones. `keeps_data` leaves
    ZooKeeper's directory for a later start.

    `spare_shards` are started too, but are not in the cluster: `clusters` gives further clusters by
    name, each a list of shard numbers from 0, spare ones included.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shards: int = 2,
        replicas: int = 2,
        spare_shards: int = 0,
        clusters: Mapping[str, Sequence[int]] | None = None,
        users: Sequence[User] = (),
        users_files: Mapping[str, str] | None = None,
        is_replicated: bool = True,
        keeps_data: bool = False,
    ) -> None:
        self.zookeeper = ZooKeeper(directory / "zookeeper")
        self._is_replicated = is_replicated
        self._keeps_data = keeps_data
        self._listed = range(shards)
        self._clusters = {CLUSTER: self._listed, **(clusters or {})}
        self.shards = tuple(
            tuple(
                Node(
                    directory,
                    f"s{shard}{chr(ord('a') + replica)}",
                    users=users,
                    users_files=users_files,
                    is_replicated=is_replicated,
                )
                for replica in range(replicas)
            )
            for shard in range(1, shards + spare_shards + 1)
        )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Nodes of all shards, spare ones included."""
        return tuple(node for shard in self.shards for node in shard)

    def hosts(self, shards: Sequence[int] | None = None) -> str:
        """Return CLICKHOUSE_HOST for these shards, numbered from 0; by default those of the cluster."""
        numbers = self._listed if shards is None else shards
        return ";".join(
            ",".join(node.authority for node in self.shards[number]) for number in numbers
        )

    def settings(self, shards: Sequence[int] | None = None) -> ClickHouseSettings:
        return ClickHouseSettings(host=self.hosts(shards), cluster=CLUSTER)

    def start(self) -> None:
        """Block until ZooKeeper and all nodes serve. Raises EngineError, or KafkaError without Java."""
        if self._is_replicated:
            self.zookeeper.start()
        clusters = "".join(self._cluster_xml(*cluster) for cluster in self._clusters.items())
        for number, shard in enumerate(self.shards, 1):
            for node in shard:
                node.config = _NODE.format(
                    shard=number,
                    replica=node.name,
                    clusters=clusters,
                    replication=self._replication_xml(node) if self._is_replicated else "",
                )
        for node in self.nodes:
            node.start()

    def close(self) -> None:
        """Block until all have ended."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            for node in self.nodes:
                threads.submit(node.stop)
        with contextlib.suppress(ProcessLookupError):
            if self._keeps_data:
                self.zookeeper.stop()
            else:
                self.zookeeper.close()

    def _replication_xml(self, node: Node) -> str:
        return _REPLICATION.format(
            host=HOST,
            interserver_port=node.exchange_port,
            announced_port=node.announced_port or node.exchange_port,
            replica=node.name,
            zookeeper_port=node.zookeeper_port or self.zookeeper.port,
        )

    def _cluster_xml(self, name: str, shards: Sequence[int]) -> str:
        listed = "".join(
            "<shard><internal_replication>true</internal_replication>"
            + "".join(
                f"<replica><host>{HOST}</host><port>{node.tcp_port}</port></replica>"
                for node in self.shards[number]
            )
            + "</shard>"
            for number in shards
        )
        return f"<{name}>{listed}</{name}>"
