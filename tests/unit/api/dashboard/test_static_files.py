"""The dashboard's page names every module, so that a browser requests all of them at once."""

import re

from octane_analytics.api.dashboard.pages import DIRECTORY


def test_page_names_every_module_it_imports() -> None:
    page = (DIRECTORY / "dashboard.html").read_text()
    named = set(re.findall(r'(?:modulepreload" href|module" src)="dashboard/([^"]+)"', page))
    modules = {path.relative_to(DIRECTORY).as_posix() for path in DIRECTORY.rglob("*.js")}
    assert named == modules - {"status.js", "vendor/uplot.js"}
