"""`promtool` accepts the rules, the scrape configuration and the tests of the rules."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[2] / "conf" / "prometheus"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_accepts_conf(arguments: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None and os.environ.get("CI") != "true":
        pytest.skip("no promtool: apt-get install prometheus")
    done = subprocess.run(
        ["promtool", *arguments], cwd=CONF, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
