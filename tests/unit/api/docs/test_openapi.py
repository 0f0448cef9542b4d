"""The OpenAPI document against the request bodies and the options that the API accepts."""

from typing import Any

import msgspec
import pytest

from octane_analytics.api.docs.openapi import document
from octane_analytics.api.reports.library import load
from octane_analytics.api.request_bodies import QueryRequest, ReportRequest

DOCUMENT: dict[str, Any] = document(load(None).templates)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
REQUESTS = [(name, ReportRequest) for name in SCHEMAS if name.startswith("ask_")]


@pytest.mark.parametrize(("name", "body"), [("AskQuery", QueryRequest), *REQUESTS])
def test_request_schema_has_exactly_the_body_fields(name: str, body: type[msgspec.Struct]) -> None:
    accepted = {field.name: field for field in msgspec.structs.fields(body)}
    assert set(SCHEMAS[name]["properties"]) == set(accepted)
    mandatory = {each.encode_name for each in accepted.values() if each.required}
    assert mandatory <= set(SCHEMAS[name]["required"]) <= {*mandatory, "params"}


@pytest.mark.parametrize("name", ["AskQuery", *(name for name, _ in REQUESTS)])
def test_request_schema_has_optional_boolean_csv_raw(name: str) -> None:
    csv_raw = SCHEMAS[name]["properties"]["csv_raw"]
    assert (csv_raw["type"], csv_raw["default"]) == ("boolean", False)


def test_every_report_url_has_csv_raw() -> None:
    urls = [path for path in DOCUMENT["paths"] if path.startswith("/report/")]
    assert urls
    for path in urls:
        (csv_raw,) = [
            each
            for each in DOCUMENT["paths"][path]["get"]["parameters"]
            if each["name"] == "csv_raw"
        ]
        assert csv_raw["in"] == "query"
        assert csv_raw["schema"]["enum"] == ["0", "1"]
