"""The server's conformance to its OpenAPI document, with and without tokens, and the page /docs.

With OPENAPI_EXAMPLES=20 schemathesis runs all its phases on all operations, with 20 examples each, which
takes minutes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.openapi import from_dict

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings
from tests.integration.test_api_access import Api

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "0"))
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
"""Checks of schemathesis, without `positive_data_acceptance`: a schema cannot express `from` < `to`."""
FEW = r"^/(query|reports|reports/\{name\}/schema|schema|caller|healthz|readyz|report/top_content)$"
"""One operation of each kind: the coverage phase of all has thousands of cases, a thousand of them for
POST /report."""


@pytest.fixture(scope="module")
def settings(clickhouse_engine: EmbeddedClickHouse) -> ClickHouseSettings:
    """Return settings of a table shared by all tests of this module."""
    database_settings = ClickHouseSettings(
        host=clickhouse_engine.host, port=clickhouse_engine.tcp_port, database="openapi"
    )
    default_database = ClickHouseSettings(host=database_settings.host, port=database_settings.port)
    with ClickHouse(default_database, client_name="tests") as connection:
        connection.execute("CREATE DATABASE IF NOT EXISTS openapi")
        connection.execute(
            schema.create_table(schema.TableName("openapi", database_settings.table))
        )
    return database_settings


def serving(settings: ClickHouseSettings, directory: Path, *, with_tokens: bool) -> Iterator[Api]:
    api = Api(settings, directory)
    api.environment |= {"API_WORKERS": "1", "CLICKHOUSE_TIMEOUT": "30", "API_RECEIVE_TIMEOUT": "30"}
    if with_tokens:
        api.add("all", "report", "query", "metrics")
        api.add("bound", "report", parameters={"app_id": "openstream"})
        api.add("limited", "report", rate="1/min", burst=1)
        api.environment["API_TOKENS_FILE"] = str(api.tokens)
    with api.running():
        yield api


@pytest.fixture(scope="module")
def local(settings: ClickHouseSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from serving(settings, tmp_path_factory.mktemp("local"), with_tokens=False)


@pytest.fixture(scope="module")
def closed(settings: ClickHouseSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from serving(settings, tmp_path_factory.mktemp("closed"), with_tokens=True)


def test_openapi_document_is_valid_with_every_template(local: Api) -> None:
    document = local.get("/openapi.json").json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    named = {each["name"] for each in local.get("/reports").json()["templates"]}
    assert {f"/report/{name}" for name in named} < set(document["paths"])


def schemathesis(api: Api, directory: Path, *arguments: str) -> set[int]:
    """Run schemathesis against the server; return the statuses of the responses."""
    document = directory / "openapi.json"
    document.write_text(
        httpx.get(f"{api.url}/openapi.json", headers={"Authorization": "Bearer all"}).text
    )
    before = len(api.requests())
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", str(document), "--url", api.url, "--checks", ",".join(CHECKS)),
            *("--seed", "1", "--generation-deterministic"),
            *("--no-color", "--warnings", "off", "--request-timeout", "60"),
            # Live reports do not end: they have a test of their own.
            *("--exclude-path-regex", "^/live/"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=directory,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return {int(str(request["status"])) for request in api.requests()[before:]}


@pytest.mark.timeout(1000)
def test_server_without_tokens_conforms_to_openapi_document(local: Api, tmp_path: Path) -> None:
    if EXAMPLES:
        phases = ["examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)]
        statuses = schemathesis(local, tmp_path, "--phases", *phases)
    else:
        statuses = schemathesis(
            local, tmp_path, "--phases", "coverage", "--include-path-regex", FEW
        )
        statuses |= schemathesis(local, tmp_path, "--phases", "fuzzing", "--max-examples", "2")
    assert statuses >= {200, 400, 405, 415, 422}
    assert not {status for status in statuses if status >= 500}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("name", ["overview_stats", "top_content"])
def test_live_reports_conform_to_openapi_document(
    local: Api, name: str, mode: GenerationMode
) -> None:
    document = from_dict(local.get("/openapi.json").json())
    operation = document[f"/live/{name}"]["GET"]
    documented = set(operation.definition.raw["responses"])

    @hypothesis_settings(
        max_examples=EXAMPLES or 10, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        options = case.as_transport_kwargs(base_url=local.url)
        request: dict[str, Any] = {
            each: options.get(each) for each in ("headers", "cookies", "params")
        }
        with httpx.stream(case.method, options["url"], timeout=60, **request) as answer:
            assert str(answer.status_code) in documented
            if answer.status_code == 200:
                assert answer.headers["content-type"].startswith("text/event-stream")
                event = next(line for line in answer.iter_lines() if line.startswith("event: "))
                assert event == "event: report"
                return
            answer.read()
        # A schema cannot express all rules of a range: a valid request may be refused.
        assert answer.status_code in (400, 405, 406, 422)
        assert answer.json()["error"]["code"]

    check()


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    ("token", "expected"),
    [("all", {200, 422}), ("bound", {403}), ("limited", {429}), ("unknown", {401})],
)
def test_server_with_tokens_conforms_to_openapi_document(
    closed: Api, tmp_path: Path, token: str, expected: set[int]
) -> None:
    statuses = schemathesis(
        closed,
        tmp_path,
        *("--phases", "fuzzing", "--max-examples", str(EXAMPLES or 2)),
        *("--include-path-regex", ".*" if EXAMPLES else FEW),
        *("--header", f"Authorization: Bearer {token}"),
    )
    assert statuses >= expected
    assert not {status for status in statuses if status >= 500}


def test_docs_page_loads_nothing_from_elsewhere(local: Api) -> None:
    page = local.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for file in ("docs/docs.css", "docs/docs.js"):
        assert f'"{file}"' in page.text
        assert local.get(f"/{file}").status_code == 200
        assert "http://" not in local.get(f"/{file}").text
        assert "https://" not in local.get(f"/{file}").text
    assert local.get("/docs/index.py").status_code == 404
