import dataclasses
import re

import pytest

from octane_analytics.clickhouse import rollups
from octane_analytics.clickhouse.rollup_expressions import HOUR, WEEK
from octane_analytics.clickhouse.rollups import ROLLUPS, Rollup
from octane_analytics.clickhouse.schema import TableName

TABLE = TableName("default", "events")


def test_names_differ_and_lead_back_to_labels() -> None:
    assert len({rollup.name for rollup in ROLLUPS}) == len(ROLLUPS)
    assert [rollups.label_of(rollup.name) for rollup in ROLLUPS] == [each.label for each in ROLLUPS]


def test_changed_definition_has_another_name() -> None:
    changed = dataclasses.replace(ROLLUPS[0], states=("countState()",))
    assert changed.name != ROLLUPS[0].name
    assert rollups.label_of(changed.name) == ROLLUPS[0].label


@pytest.mark.parametrize(
    "name", ["other", "octane_", "octane_users", "octane__12345678", "p_12345678"]
)
def test_foreign_projection_has_no_label(name: str) -> None:
    assert rollups.label_of(name) is None


@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.label)
def test_definition_is_one_that_clickhouse_can_match(rollup: Rollup) -> None:
    """It matches neither a lambda nor multiIf, and combines only states with other events."""
    assert "->" not in rollup.select
    assert "multiIf" not in rollup.select
    assert "\n" not in rollup.select
    assert all(re.match(r"\w+State\(|\w+State\([0-9., ]+\)\(", state) for state in rollup.states)
    assert rollup.keys[:2] in ((HOUR, "app_id"), (WEEK, "app_id"))
    # In queries it is replaced by notEmpty.
    assert "!= ''" not in rollup.select


def test_sets_choose_rollups_in_their_order() -> None:
    assert rollups.of_sets(["search", "totals"]) == tuple(
        each for each in ROLLUPS if each.set_name in ("totals", "search")
    )
    assert set(rollups.DEFAULT_SETS) < set(rollups.SETS)


def test_statement_adds_the_projection_to_the_table() -> None:
    statement = rollups.add(TABLE, ROLLUPS[0])
    assert statement.startswith(
        f"ALTER TABLE default.events ADD PROJECTION IF NOT EXISTS {ROLLUPS[0].name} (SELECT "
    )
