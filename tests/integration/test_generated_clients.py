"""Clients that public generators make of the OpenAPI document, compiled and run against a server.

Without npm, or without access to its registry and to PyPI, the tests are skipped; in CI they fail.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_access import Api
from tests.integration.test_openapi import serving, settings

__all__ = ["settings"]

TYPESCRIPT = ("openapi-typescript@7", "typescript@5")
PYTHON = ("openapi-python-client>=0.29,<0.30", "ruff")
USE_TYPESCRIPT = """
import type { components, paths } from "./api.js";
type Answer = paths["/report/overview_stats"]["get"]["responses"][200]["content"]["application/json"];
type Row = components["schemas"]["row_overview_stats"];
const answer = (await (await fetch(`${process.argv[2]}/report/overview_stats`)).json()) as Answer;
const row: Row = answer.rows[0]!;
const events: number = row.total_events;
console.log(answer.template, events);
"""
USE_PYTHON = """
import sys
from client.api.reports import overview_stats
from client.client import Client
answer = overview_stats.sync(client=Client(base_url=sys.argv[1]))
print(answer.template.value, answer.rows[0].total_events)
"""


@pytest.fixture(scope="module")
def api(settings: ClickHouseSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from serving(settings, tmp_path_factory.mktemp("api"), with_tokens=False)


def install(command: list[str], directory: Path) -> None:
    """Run the command that installs a generator; skip the test if it cannot, except in CI."""
    done = None
    if shutil.which(command[0]) is not None:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    if done is None or done.returncode:
        reason = f"{command[0]} cannot install {command[-1]}: {done.stderr[-500:] if done else ''}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(600)
def test_generated_typescript_client_compiles_and_runs(api: Api, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "openapi.json").write_text(api.get("/openapi.json").text)
    (tmp_path / "use.ts").write_text(USE_TYPESCRIPT)
    packages = ["@types/node@22", *TYPESCRIPT]
    install(["npm", "install", "--no-audit", "--no-fund", *packages], tmp_path)
    tools = tmp_path / "node_modules" / ".bin"
    run(tmp_path, str(tools / "openapi-typescript"), "openapi.json", "-o", "api.ts")
    options = ("--strict", "--target", "es2022", "--module", "nodenext")
    run(tmp_path, str(tools / "tsc"), *options, "--skipLibCheck", "use.ts")
    assert run(tmp_path, "node", "use.js", api.url) == "overview_stats 0\n"


@pytest.mark.timeout(600)
def test_generated_python_client_runs(api: Api, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(api.get("/openapi.json").text)
    (tmp_path / "use.py").write_text(USE_PYTHON)
    run(tmp_path, sys.executable, "-m", "venv", "tools")
    tools = tmp_path / "tools" / "bin"
    install([str(tools / "pip"), "install", "--quiet", *PYTHON], tmp_path)
    generate = ("generate", "--path", "openapi.json", "--output-path", "client", "--meta", "none")
    run(tmp_path, str(tools / "openapi-python-client"), *generate)
    assert run(tmp_path, str(tools / "python"), "use.py", api.url) == "overview_stats 0\n"
