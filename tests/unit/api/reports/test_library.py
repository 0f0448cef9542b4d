from pathlib import Path

import pytest

from octane_analytics.api.reports.library import REPORTS, load
from octane_analytics.errors import ConfigError
from tests.unit.api.reports.test_template import GOOD

OTHER = GOOD.replace('"Title"', '"Other"')


def test_built_in_templates_are_sorted() -> None:
    library = load()
    assert list(library.templates) == sorted(path.stem for path in REPORTS.glob("*.sql"))
    assert library.refused == ()


def test_operator_templates_add_and_override(tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text(GOOD)
    (tmp_path / "overview_stats.sql").write_text(OTHER)
    (tmp_path / "notes.txt").write_text("not a template")
    library = load(tmp_path)
    assert library.templates["mine"].title == "Title"
    assert library.templates["overview_stats"].title == "Other"
    assert "top_content" in library.templates
    assert "notes" not in library.templates
    assert library.refused == ()


def test_invalid_file_is_rejected_and_others_served(tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text(GOOD.replace("default = 10", "default = 0"))
    (tmp_path / "overview_stats.sql").write_text("SELECT 1")
    (tmp_path / "yours.sql").write_text(OTHER)
    library = load(tmp_path)
    assert "mine" not in library.templates
    assert library.templates["overview_stats"].title == "Overview"
    assert library.templates["yours"].title == "Other"
    first, second = library.refused
    assert first.startswith(f"{tmp_path / 'mine.sql'}:5: parameter limit: ")
    assert first.endswith("; it is not served")
    assert second.startswith(f"{tmp_path / 'overview_stats.sql'}:1: ")
    assert second.endswith("; the built-in one is served")


def test_file_that_becomes_invalid_keeps_previous_version(tmp_path: Path) -> None:
    file = tmp_path / "mine.sql"
    file.write_text(GOOD)
    first = load(tmp_path)
    file.write_text("SELECT 1")
    second = load(tmp_path, first.templates)
    assert second.templates == first.templates
    assert second.refused[0].endswith("; its previous version is served")
    file.write_text(OTHER)
    assert load(tmp_path, second.templates).templates["mine"].title == "Other"
    file.unlink()
    assert "mine" not in load(tmp_path, second.templates).templates


def test_missing_directory_fails_the_first_load_only(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(ConfigError, match="REPORTS_DIR: cannot read"):
        load(absent)
    previous = load().templates
    again = load(absent, previous)
    assert again.templates == previous
    assert "previous templates are kept" in again.refused[0]
