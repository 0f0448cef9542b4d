import pytest

from octane_analytics.api.reports.rollup_blocks import expand
from octane_analytics.clickhouse.rollup_expressions import EXPRESSIONS, HOUR, WEEK

BLOCK = """SELECT countMerge(n) FROM (
    {rollup:begin}
    SELECT countState() AS n, toDate({time:Rollup}) AS day
    FROM t
    WHERE {range:Rollup}
        AND event_name = 'x' -- events only
    GROUP BY day
    {rollup:end}
)"""


def test_block_becomes_hours_and_other_events() -> None:
    whole, _, rest = expand(BLOCK, "{from:DateTime('UTC')}", "").partition("UNION ALL")
    assert f"toDate({HOUR}) AS day" in whole
    assert "event_name = 'x'" not in whole
    assert "timestamp >=" not in whole
    assert "toDate(timestamp) AS day" in rest
    assert "AND event_name = 'x'" in rest
    assert f"NOT ({HOUR} >= " in rest


def test_condition_of_hours_restricts_both_halves() -> None:
    sql = expand(BLOCK, "start", "{hour} != 5")
    assert sql.count(f"AND ({HOUR} != 5)") == 2


def test_expansion_keeps_the_number_of_lines() -> None:
    assert expand(BLOCK, "start", "").count("\n") == BLOCK.count("\n")


def test_named_expressions_stand_anywhere() -> None:
    assert expand("SELECT {session:Rollup}", "start", "") == f"SELECT {EXPRESSIONS['session']}"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("{rollup:begin}\nSELECT 1", "without {rollup:end}"),
        ("SELECT {nothing:Rollup}", "is unknown or not within a block"),
        ("SELECT {range:Rollup}", "is unknown or not within a block"),
    ],
)
def test_invalid_block_is_refused(sql: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(sql, "start", "")


def test_weeks_are_left_out_of_the_hours() -> None:
    block = BLOCK.replace(", toDate({time:Rollup}) AS day", "")
    sql = expand(block, "start", "", has_weeks=True)
    hours, weeks, rest = sql.split("UNION ALL")
    assert f"({WEEK} >= toMonday(start, 'UTC')" in weeks
    assert f"NOT ({WEEK} >= toMonday(start, 'UTC')" in hours
    assert "toMonday" not in rest
    assert sql.count("\n") == block.count("\n")


@pytest.mark.parametrize(("block", "hours"), [(BLOCK, ""), ("{rollup:begin}\n{rollup:end}", "1")])
def test_weeks_are_refused_where_hours_are_needed(block: str, hours: str) -> None:
    with pytest.raises(ValueError, match="a week has neither"):
        expand(block, "start", hours, has_weeks=True)
