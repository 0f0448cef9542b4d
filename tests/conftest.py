"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from octane_analytics.sandbox import engine
from tests.support import ports
from tests.tools.kafka.apache import ApacheKafka
from tests.tools.kafka.fixtures import require_apache

# An example that took long met a busy machine; how long things take is measured elsewhere.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

engine.PORT_RANGE = ports.FOR_ENGINES

# Whoever starts the tests in the background of a shell has them, and all commands that they start,
# ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka() -> Iterator[ApacheKafka]:
    """Apache Kafka itself, for all tests that want it: whoever stops it has to start it again."""
    require_apache()
    with ApacheKafka() as broker:
        yield broker
