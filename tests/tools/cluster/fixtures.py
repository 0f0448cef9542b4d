"""Fixture of a ClickHouse cluster.

Without Java or Maven, or on another build of chdb-core, the tests that need it are skipped with the
reason, or fail if CI=true.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from octane_analytics.sandbox.engine import EngineError
from tests.tools import replica_child
from tests.tools.cluster import zookeeper
from tests.tools.cluster.nodes import ClickHouseCluster
from tests.tools.kafka.jars import KafkaError


def require_cluster() -> None:
    """Fetch ZooKeeper unless it is cached. Skip the test, or fail it if CI=true."""
    if importlib.util.find_spec("chdb") is None:
        _skip("pip install 'octane-analytics[embedded]'")
    try:
        zookeeper.fetch()
    except KafkaError as error:
        _skip(str(error))


@contextlib.contextmanager
def running(cluster: ClickHouseCluster) -> Iterator[ClickHouseCluster]:
    """Run the cluster; skip the test, or fail it if CI=true, where it cannot run."""
    require_cluster()
    with contextlib.ExitStack() as stack:
        with skipped_on_unknown_build():
            stack.enter_context(cluster)
        yield cluster


@contextlib.contextmanager
def skipped_on_unknown_build() -> Iterator[None]:
    """Skip the test, or fail it if CI=true, if a server does not start in the block for that reason."""
    try:
        yield
    except EngineError as error:
        if replica_child.UNKNOWN_BUILD not in str(error):
            raise
        _skip(replica_child.UNKNOWN_BUILD)


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
