from pathlib import Path

import pytest

from octane_analytics.api.reports.library import REPORTS, load
from octane_analytics.api.reports.parameter_types import TIME
from octane_analytics.api.reports.template import COMMON, read_template
from octane_analytics.errors import ConfigError

GOOD = """/*
title = "Title"
description = "What it shows"

[parameters.limit]
type = "UInt32"
default = 10
minimum = 1
maximum = 100
help = "Rows."

[columns]
a = "A column."
*/
SELECT 1 AS a
FROM {database:Identifier}.{table:Identifier}
WHERE timestamp >= {from:DateTime('UTC')} AND timestamp < {to:DateTime('UTC')}
    AND app_id = {app_id:String}
LIMIT {limit:UInt32}
"""


def write_template(directory: Path, text: str) -> None:
    (directory / "one.sql").write_text(text, encoding="utf-8")


def test_filters_must_apply_to_every_read(tmp_path: Path) -> None:
    path = tmp_path / "one.sql"
    built_in = (REPORTS / "active_users.sql").read_text()
    path.write_text(built_in)
    assert read_template(path).has_filters
    path.write_text(built_in.replace("{filters:And}", "", 1))
    with pytest.raises(ConfigError, match="1 times for 3 reads"):
        read_template(path)
    path.write_text(built_in.replace("{filters:And}", ""))
    assert not read_template(path).has_filters
    path.write_text(built_in.replace("[columns]", '[filters]\na = "nothing"\n[columns]'))
    with pytest.raises(ConfigError, match="unknown expression 'nothing'"):
        read_template(path)


def test_built_in_templates_load_and_are_described() -> None:
    loaded = load().templates
    assert {"overview_stats", "search_analytics", "top_content"} < set(loaded)
    for template in loaded.values():
        assert template.title
        assert template.description.endswith(".")
        assert template.columns
        assert set(COMMON) <= set(template.parameters)
        assert not template.sql.endswith(";")


def test_weeks_need_the_rollup_of_hours(tmp_path: Path) -> None:
    path = tmp_path / "one.sql"
    built_in = (REPORTS / "top_content.sql").read_text()
    path.write_text(built_in.replace('prefers = "content"\n', ""))
    with pytest.raises(ConfigError, match="weeks needs prefers"):
        read_template(path)


@pytest.mark.parametrize(("days", "reads"), [(1, 2), (13, 2), (14, 3), (90, 3)])
def test_weeks_are_read_where_the_range_holds_one(days: int, reads: int) -> None:
    template = load().templates["top_content"]
    sql = template.statement({"exact": False}, (5, 5 + days * 86_400))
    assert sql.count("{table:Identifier}") == reads
    assert bool(template.settings((5, 5 + days * 86_400))) == (reads == 2)
    assert template.settings((0, 86_400), (5, 5 + days * 86_400)) == template.settings(
        (5, 5 + days * 86_400)
    )


def test_template_has_the_fields_of_its_header(tmp_path: Path) -> None:
    write_template(tmp_path, GOOD)
    template = read_template(tmp_path / "one.sql")
    assert template.title == "Title"
    assert list(template.parameters) == ["app_id", "from", "to", "limit"]
    assert template.parameters["limit"].maximum == 100
    assert template.parameters["to"].type == TIME
    assert template.sql.startswith("SELECT 1")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("/*\n", "-- none\n", 1, "must begin with a comment"),
        ("*/\n", "", 1, "must begin with a comment"),
        ('title = "Title"', "title = Title", 2, "Invalid value"),
        ('title = "Title"\n', "", 1, "missing required field `title`"),
        ('help = "Rows."', 'hepl = "Rows."', 5, "unknown field `hepl`"),
        ('type = "UInt32"', 'type = "Int7"', 5, "type must be one of String"),
        ('type = "UInt32"', 'type = "Int8"', 5, "its type must be UInt32"),
        ('title = "Title"', 'title = "Title"\ncache_seconds = -1', 3, "`int` >= 0"),
        ('title = "Title"', 'title = "Title"\nrow_limit = "all"', 3, "Expected `int"),
        ('a = "A column."\n', "", 12, "describe at least one"),
        ("default = 10", "default = 0", 5, "must be from 1 to 100"),
        ("default = 10", 'default = "10"', 5, "its default must be a whole number"),
        ("default = 10\n", "", 5, "needs a default, or `required = true`"),
        ("[parameters.limit]", "[parameters.format]", 5, "every template already has"),
        ("maximum = 100", "allowed = [1, 2]", 5, "must be one of 1, 2"),
        ("[parameters.limit]", "[parameters.from]", 5, "every template already has"),
        ("[parameters.limit]", "[parameters.Limit]", 5, "lower-case"),
        ("LIMIT {limit:UInt32}", "LIMIT {limt:UInt32}", 19, "{limt:UInt32} is not declared"),
        ("LIMIT {limit:UInt32}", "LIMIT {limit:UInt8}", 19, "is declared as UInt32"),
        ("LIMIT {limit:UInt32}", "", 15, "{limit:UInt32} is never used"),
        ("    AND app_id = {app_id:String}\n", "", 15, "{app_id:String} is never used"),
    ],
)
def test_invalid_file_is_rejected_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert old in GOOD
    write_template(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        read_template(tmp_path / "one.sql")
    assert str(raised.value).startswith(f"{tmp_path / 'one.sql'}:{line}: ")
    assert message in str(raised.value)


def test_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"one\.sql:1: cannot be read"):
        read_template(tmp_path / "one.sql")


def test_file_with_invalid_name_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "One-More.sql").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"One-More\.sql:1: the file's name"):
        read_template(tmp_path / "One-More.sql")


def test_header_sets_cache_seconds_and_row_limit(tmp_path: Path) -> None:
    write_template(tmp_path, GOOD)
    template = read_template(tmp_path / "one.sql")
    assert (template.cache_seconds, template.row_limit) == (0, None)
    header = 'description = "What it shows"\ncache_seconds = 60\nrow_limit = 1000000'
    write_template(tmp_path, GOOD.replace('description = "What it shows"', header))
    template = read_template(tmp_path / "one.sql")
    assert (template.cache_seconds, template.row_limit) == (60, 1_000_000)


PAGED = GOOD[: GOOD.index("[parameters.limit]")] + GOOD[GOOD.index("[columns]") :].replace(
    "{limit:UInt32}", "{limit:UInt32} OFFSET {offset:UInt32}"
)


def test_page_rows_declare_limit_and_offset(tmp_path: Path) -> None:
    write_template(tmp_path, PAGED.replace('"What it shows"', '"What it shows"\npage_rows = 20'))
    parameters = read_template(tmp_path / "one.sql").parameters
    assert list(parameters) == ["app_id", "from", "to", "limit", "offset"]
    assert (parameters["limit"].default, parameters["limit"].maximum) == (20, 10_000)
    assert (parameters["offset"].default, parameters["offset"].type) == (0, "UInt32")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (PAGED, 12, "{limit:UInt32} is not declared"),
        (PAGED.replace('it shows"', 'it shows"\npage_rows = 0', 1), 4, "`int` >= 1"),
        (
            GOOD.replace('it shows"', 'it shows"\npage_rows = 20', 1),
            6,
            "already declared by page_rows",
        ),
        (
            PAGED.replace('it shows"', 'it shows"\npage_rows = 20').replace(
                "OFFSET {offset:UInt32}", ""
            ),
            9,
            "{offset:UInt32} is never used",
        ),
    ],
)
def test_page_parameters_are_declared_once_and_used(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    write_template(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_template(tmp_path / "one.sql")
    assert str(raised.value).startswith(f"{tmp_path / 'one.sql'}:{line}: ")
    assert message in str(raised.value)


SAMPLED = """/*
title = "Title"
description = "What it shows"
is_sampled = true
max_events = 5

[columns]
a = "A column."
*/
WITH
    {sample:begin}
    {sample:end}
SELECT {share:Sample} AS a
FROM {database:Identifier}.{table:Identifier}
WHERE timestamp >= {from:DateTime('UTC')} AND timestamp < {to:DateTime('UTC')}
    AND app_id = {app_id:String} AND {users:Sample}
"""


@pytest.mark.parametrize(("line", "expected"), [("max_events = 5\n", 5), ("", 2_000_000)])
def test_template_declares_events_of_its_samples(tmp_path: Path, line: str, expected: int) -> None:
    write_template(tmp_path, SAMPLED.replace("max_events = 5\n", line))
    parameters = read_template(tmp_path / "one.sql").parameters
    assert parameters["max_events"].default == expected
    assert parameters["max_events"].minimum == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SAMPLED.replace("max_events = 5", "max_events = 0"), "`int` >= 1"),
        (GOOD.replace('shows"', 'shows"\nmax_events = 5'), "max_events needs is_sampled = true"),
    ],
)
def test_events_without_a_sample_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write_template(tmp_path, text)
    number = text[: text.index("max_events")].count("\n") + 1
    with pytest.raises(ConfigError) as raised:
        read_template(tmp_path / "one.sql")
    assert str(raised.value).startswith(f"{tmp_path / 'one.sql'}:{number}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ('type = "Float64"\ndefault = 0.5\nminimum = 0\nmaximum = 1', None),
        ('type = "Float64"\ndefault = 1.5\nmaximum = 1', "its default must be from"),
        ('type = "Int8"\ndefault = -128', None),
        ('type = "Int8"\ndefault = -129', "its default must be from -128 to 127"),
        ('type = "Bool"\ndefault = false', None),
        ('type = "Bool"\ndefault = 0', "its default must be true or false"),
        ('type = "Date"\nrequired = true', None),
        ('type = "Date"\ndefault = "2026-02-30"', "its default must be a date"),
        ('type = "DateTime(\'UTC\')"\ndefault = "-7d"', None),
        ('type = "DateTime(\'UTC\')"\ndefault = "soon"', "its default must be an RFC 3339"),
        ('type = "Array(String)"\nrequired = true\nminimum = 2\nmaximum = 5', None),
        ('type = "Array(String)"\ndefault = ["a"]\nminimum = 2', "must be from 2 to 1000 items"),
        ('type = "Array(String)"\ndefault = ["a"]\nallowed = ["b"]', "item 1 must be one of b"),
        ('type = "Array(UInt8)"\ndefault = [256]', "item 1 must be from 0 to 255"),
        ('type = "String"\nformat = "timezone"\ndefault = "UTC"', None),
        ('type = "String"\nformat = "timezone"\ndefault = "Mars"', "must be an IANA time zone"),
        ('type = "String"\nformat = "timezone"', "needs a default"),
        ('type = "UInt8"\nformat = "timezone"\ndefault = 1', "is for a String"),
        ('type = "String"\nrequired = true\ndefault = "a"', "has no default"),
        ('type = "Bool"\ndefault = true\nminimum = 1', "has bounds"),
        ('type = "Float64"\ndefault = 1.0\nallowed = [1]', "cannot list allowed values"),
        ('type = "Map(String, String)"\ndefault = 1', "type must be one of String, UInt8"),
        ('type = "String"\nallowed = [1]', "1 is not of type String"),
    ],
)
def test_parameter_declaration_is_validated_by_type(
    tmp_path: Path, declared: str, message: str | None
) -> None:
    kind = declared.partition('"')[2].partition('"')[0]
    text = GOOD.replace("[columns]", f'[parameters.x]\nhelp = "X."\n{declared}\n\n[columns]')
    write_template(tmp_path, text.replace("LIMIT", f"AND {{x:{kind}}} LIMIT"))
    if message is None:
        assert read_template(tmp_path / "one.sql").parameters["x"].type == kind
    else:
        with pytest.raises(ConfigError, match=r"one\.sql:12: parameter x: ") as raised:
            read_template(tmp_path / "one.sql")
        assert message in str(raised.value)
