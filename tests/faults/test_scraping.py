"""Short form of `python -m tests.tools.faults.scraping`."""

import os
from pathlib import Path

import pytest

from tests.tools.faults.engines import Engines
from tests.tools.faults.prometheus import is_installed
from tests.tools.faults.scraping import run


def test_prometheus_counts_every_row_through_kills(embedded: Engines, tmp_path: Path) -> None:
    if not is_installed() and os.environ.get("CI") != "true":
        pytest.skip("no prometheus: apt-get install prometheus")
    seen = run(embedded, tmp_path / "scraping", kills=2, procs=2, api_procs=1, rate=500.0)
    assert not seen.problems, f"{seen.problems}\n{seen}"
    assert seen.kills == 2
    assert seen.rows > 0
    assert seen.panels > 20
