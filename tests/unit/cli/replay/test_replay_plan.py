"""Plan of a replay as it is printed before the confirmation."""

import pytest

from octane_analytics.cli.replay.output import print_plan
from octane_analytics.replay.plan import Compare, Mode, ReplayPlan
from octane_analytics.types import LogIdentity, OffsetRange

LOG = LogIdentity("cluster", "topic", "")
SPANS = {0: OffsetRange(0, 10)}


@pytest.mark.parametrize(
    ("mode", "is_live", "sees_inserts", "is_advised"),
    [
        (Mode.REBUILD, True, False, True),
        (Mode.REBUILD, True, True, False),
        (Mode.REBUILD, False, False, False),
        (Mode.FILL, True, False, False),
    ],
)
def test_rebuild_without_sight_of_inserts_is_advised(
    mode: Mode,
    is_live: bool,
    sees_inserts: bool,
    is_advised: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = ReplayPlan(
        "id",
        mode,
        Compare.LOG,
        "t",
        "g",
        LOG,
        "d",
        "t",
        is_live=is_live,
        wanted=SPANS,
        reading=SPANS,
    )
    print_plan(
        plan,
        shards=1,
        sees_inserts=sees_inserts,
        is_dry=False,
        as_json=False,
        procs=1,
        rate=None,
    )
    assert ("GRANT SELECT ON system.processes" in capsys.readouterr().out) is is_advised
