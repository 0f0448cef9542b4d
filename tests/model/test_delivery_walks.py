"""Random walks through worlds that are too large to search: every event is inserted once in the end."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.world import Setup, Stopped, World

budgets = st.integers(0, 3)
setups = st.builds(
    Setup,
    workers=st.integers(2, 4),
    partitions=st.integers(1, 4),
    records=st.integers(1, 5),
    crashes=budgets,
    moves=budgets,
    expiries=budgets,
    lost_commits=budgets,
    delayed_commits=budgets,
    refused_commits=budgets,
    failed_inserts=budgets,
    half_inserts=budgets,
    renewals=budgets,
    removals=budgets,
    recreations=st.integers(0, 1),
    shards=st.integers(1, 3),
)
shard_setups = st.builds(
    Setup,
    workers=st.integers(2, 3),
    partitions=st.integers(1, 4),
    records=st.integers(1, 5),
    shards=st.integers(2, 3),
    relistings=st.integers(1, 5),
    crashes=budgets,
    moves=budgets,
    lost_commits=budgets,
    refused_commits=budgets,
    failed_inserts=budgets,
    half_inserts=budgets,
)
partial_setups = st.builds(
    # No policy survives a partial commit and a crash together, so there is none here.
    Setup,
    workers=st.integers(2, 3),
    partitions=st.integers(2, 4),
    records=st.integers(1, 4),
    moves=budgets,
    partial_commits=budgets,
    refused_commits=budgets,
    renewals=budgets,
    failed_inserts=budgets,
    half_inserts=budgets,
)
walks = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@walks
@given(setup=setups, choices=st.lists(st.integers(0, 999), min_size=60, max_size=200))
def test_random_walk_inserts_each_event_once(setup: Setup, choices: list[int]) -> None:
    walk(setup, choices)


@walks
@given(setup=partial_setups, choices=st.lists(st.integers(0, 999), min_size=20, max_size=150))
def test_walk_with_partial_commits_inserts_once(setup: Setup, choices: list[int]) -> None:
    walk(setup, choices)


@walks
@given(setup=shard_setups, choices=st.lists(st.integers(0, 999), min_size=30, max_size=200))
def test_walk_with_changed_shards_inserts_once(setup: Setup, choices: list[int]) -> None:
    walk(setup, choices)


FAULTS = ("crash", "move", "expire", "remove", "recreate", "list")
"""What happens to a worker; what a worker does is a fault unless it goes well."""


def is_fault(name: str) -> bool:
    words = name.split()
    return words[0] in FAULTS or words[-1] in ("lost", "delayed", "refused", "failed", "half")


def walk(setup: Setup, choices: list[int]) -> None:
    world = World(setup)
    try:
        for choice in choices:
            steps = [step for step in world.steps() if is_fault(step[0]) == (choice % 8 == 0)]
            if steps:
                steps[choice // 8 % len(steps)][1](world)
        world.left = dict.fromkeys(world.left, 0)
        turns = 0
        while steps := list(world.steps()):
            steps[turns % len(steps)][1](world)
            turns += 1
            assert turns < 2_000, "no progress"
    except Stopped:
        return
    assert world.is_settled()
    world.replace_workers()
    while steps := list(world.steps()):
        steps[0][1](world)
    assert world.is_settled()
    assert not world.missing()
