"""Variant of `octane_analytics.sandbox.clickhouse_child` for one node of a cluster.

Announces an address to the other replicas, and serves the node's parts to them, on the ports of its
configuration. The announced one may be a proxy's.
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from octane_analytics.sandbox import clickhouse_child
from tests.tools import replica_child
from tests.tools.cluster import part_exchange

CONFIG = "config.d/cluster.xml"
"""Configuration of the node, in its directory."""


def main() -> None:
    directory = Path(sys.argv[1])
    config = directory / CONFIG
    load = clickhouse_child.load_engine
    engine = load()
    replica_child.announce_address(_port(config, "announced_port"))
    part_exchange.serve(
        _port(config, "interserver_http_port"), _port(directory / "config.xml", "http_port")
    )
    clickhouse_child.load_engine = lambda: engine
    clickhouse_child.main()


def _port(path: Path, name: str) -> int:
    text = ET.parse(path).getroot().findtext(name)  # noqa: S314  the parent has written it
    if text is None:
        sys.exit(f"{path} does not have {name}")
    return int(text)


if __name__ == "__main__":
    main()
