"""Engines that the fault tests of a broker share, and the conditions of skipping them."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools.cluster.fixtures import require_cluster, skipped_on_unknown_build
from tests.tools.faults.engines import APACHE, CLUSTER, EMBEDDED, Engines
from tests.tools.kafka.fixtures import require_apache


def _engines(
    broker: str, directory: Path, *, shards: int = 1, replicas: int = 1
) -> Iterator[Engines]:
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    if broker != EMBEDDED:
        require_apache()
    if replicas > 1:
        require_cluster()
    with ExitStack() as stack:
        with skipped_on_unknown_build():
            engines = stack.enter_context(
                Engines(broker, directory, shards=shards, replicas=replicas)
            )
        yield engines


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    yield from _engines(APACHE, tmp_path_factory.mktemp(APACHE))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    yield from _engines(EMBEDDED, tmp_path_factory.mktemp(EMBEDDED))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    yield from _engines(CLUSTER, tmp_path_factory.mktemp(CLUSTER))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    yield from _engines(EMBEDDED, tmp_path_factory.mktemp("sharded"), shards=2)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    yield from _engines(CLUSTER, tmp_path_factory.mktemp("replicated"), shards=2, replicas=2)
