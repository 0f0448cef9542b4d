"""Short form of `python -m tests.tools.faults.api_load`."""

import importlib.util
import os
from pathlib import Path

import pytest

from tests.tools.faults.api_load import run


def test_restart_of_clickhouse_hangs_and_breaks_no_request(tmp_path: Path) -> None:
    if importlib.util.find_spec("chdb") is None and os.environ.get("CI") != "true":
        pytest.skip("pip install 'octane-analytics[embedded]'")
    crowd = run(60, 2.0, tmp_path)
    assert not crowd.problems(), f"{crowd.problems()}\n{crowd}"
