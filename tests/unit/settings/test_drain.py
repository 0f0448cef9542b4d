"""Time limits of a drain, compared with each other."""

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.settings.drain import require_drain_time
from octane_analytics.settings.loading import load


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"CLICKHOUSE_TIMEOUT": "90"}, ["CLICKHOUSE_TIMEOUT", "DRAIN_TIMEOUT", "90"]),
        ({"DRAIN_TIMEOUT": "300"}, ["DRAIN_TIMEOUT", "max.poll.interval.ms", "300"]),
        (
            {"KAFKA_RDKAFKA_MAX_POLL_INTERVAL_MS": "60000"},
            ["DRAIN_TIMEOUT", "max.poll.interval.ms", "60"],
        ),
    ],
)
def test_contradicting_limits_stop_only_a_worker(environ: dict[str, str], named: list[str]) -> None:
    settings = load(environ).settings
    with pytest.raises(ConfigError) as caught:
        require_drain_time(settings)
    for word in named:
        assert word in str(caught.value)


def test_defaults_leave_time_to_drain() -> None:
    require_drain_time(load({}).settings)
