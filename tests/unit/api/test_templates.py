from pathlib import Path

import pytest

from octane_analytics.api import templates
from octane_analytics.api.templates import COMMON, TIME, load
from octane_analytics.errors import ConfigError

GOOD = """/*
title = "Title"
description = "What it is"

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


def write(directory: Path, text: str) -> None:
    (directory / "one.sql").write_text(text, encoding="utf-8")


def test_shipped_templates_load_and_say_what_they_are() -> None:
    loaded = load()
    assert {"overview_stats", "search_analytics", "top_content"} < set(loaded)
    for template in loaded.values():
        assert template.title
        assert template.description.endswith(".")
        assert template.columns
        assert set(COMMON) <= set(template.parameters)
        assert not template.sql.endswith(";")


def test_template_has_what_its_header_says(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    template = load(tmp_path)["one"]
    assert template.title == "Title"
    assert list(template.parameters) == ["app_id", "from", "to", "limit"]
    assert template.parameters["limit"].maximum == 100
    assert template.parameters["to"].type == TIME
    assert template.sql.startswith("SELECT 1")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("/*\n", "-- none\n", 1, "must begin with a comment"),
        ("*/\n", "", 1, "must begin with a comment"),
        ('title = "Title"', "title = Title", 2, "Invalid value"),
        ('title = "Title"\n', "", 1, "missing required field `title`"),
        ('help = "Rows."', 'hepl = "Rows."', 5, "unknown field `hepl`"),
        ('type = "UInt32"', 'type = "Int8"', 5, "type must be String or UInt32"),
        ("default = 10", "default = 0", 5, "must be from 1 to 100"),
        ("default = 10", 'default = "10"', 5, "not of type UInt32"),
        ("default = 10\n", "", 5, "needs a default"),
        ("maximum = 100", "allowed = [1, 2]", 5, "must be one of 1, 2"),
        ("[parameters.limit]", "[parameters.from]", 5, "every template has already"),
        ("[parameters.limit]", "[parameters.Limit]", 5, "lower-case"),
        ("LIMIT {limit:UInt32}", "LIMIT {limt:UInt32}", 19, "{limt:UInt32} is not declared"),
        ("LIMIT {limit:UInt32}", "LIMIT {limit:UInt8}", 19, "is declared as UInt32"),
        ("LIMIT {limit:UInt32}", "", 15, "{limit:UInt32} is never used"),
        ("    AND app_id = {app_id:String}\n", "", 15, "{app_id:String} is never used"),
    ],
)
def test_broken_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    assert old in GOOD
    write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        load(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'one.sql'}:{line}: ")
    assert said in str(raised.value)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"one\.sql: cannot be read"):
        load(tmp_path)


def test_directory_without_templates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no report templates"):
        load(tmp_path)


def test_reports_lie_in_the_package() -> None:
    assert templates.REPORTS.is_dir()
