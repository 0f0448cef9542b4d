"""Compiled parts are optional, and complete in what is shipped."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
    "ext-modules"
]


def test_every_c_source_is_an_optional_extension() -> None:
    assert {source for extension in EXTENSIONS for source in extension["sources"]} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "octane_analytics").rglob("*.c")
    }
    for extension in EXTENSIONS:
        assert extension["optional"] is True, extension["name"]
        assert (ROOT / f"{extension['name'].replace('.', '/')}.pyi").exists()


def test_extensions_depend_on_the_headers_they_include() -> None:
    for extension in EXTENSIONS:
        (source,) = extension["sources"]
        included = re.findall(r'^#include "(.+)"$', (ROOT / source).read_text(), re.MULTILINE)
        assert extension["depends"] == [f"octane_analytics/events/{name}" for name in included]


def test_flags_do_not_bind_to_this_machine() -> None:
    for extension in EXTENSIONS:
        assert not [
            flag for flag in extension["extra-compile-args"] if flag.startswith(("-m", "-Ofast"))
        ]
