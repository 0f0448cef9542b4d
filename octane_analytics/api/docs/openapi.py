"""The OpenAPI 3.1 document, built from the templates. Format: https://spec.openapis.org/oas/v3.1.0"""

from collections.abc import Mapping
from typing import Any

from octane_analytics import __version__
from octane_analytics.api.comparison import PERIODS
from octane_analytics.api.docs.schemas import CSV_RAW, reference, schemas
from octane_analytics.api.filters import MAX_FILTERS
from octane_analytics.api.raw_sql.result import OFFERED
from octane_analytics.api.reports.cursor import MAX_CHARACTERS
from octane_analytics.api.reports.json_schema import (
    parameter_schema,
)
from octane_analytics.api.reports.live_route import MAX_INTERVAL
from octane_analytics.api.reports.template import Template
from octane_analytics.api.request_bodies import BatchRequest, QueryRequest, ReportRequest
from octane_analytics.api.results.formats import FORMATS, Format

Schema = dict[str, Any]

_NOT_SHOWN = "absent in streamed answers, and for a token with fixed parameters or filters"

_ERRORS = {
    400: "Malformed JSON, or SQL that ClickHouse rejects.",
    401: "A token is missing or unknown.",
    403: "Not allowed: the statement, or the token's scope.",
    404: "Unknown template.",
    406: "None of the media types in Accept is available.",
    413: "The body is too large.",
    415: "The body must be application/json without Content-Encoding.",
    422: "Invalid parameter, or a limit was reached.",
    429: "Too many requests: see Retry-After.",
    501: "The format needs an extra that is not installed, or raw SQL needs a newer ClickHouse.",
    503: "ClickHouse is unavailable or overloaded, or all connections are busy: see Retry-After.",
    504: "A limit of time was reached.",
}
_READ_ERRORS = (401, 403, 404, 406, 422, 429, 501, 503, 504)
_BODY_ERRORS = (400, 413, 415)


def document(templates: Mapping[str, Template]) -> Schema:
    """Return the document of /openapi.json, of dicts, lists and plain values."""
    paths: Schema = {
        "/report": {"post": _post_report(templates)},
        **{f"/report/{each.name}": {"get": _get_report(each)} for each in templates.values()},
        **{f"/live/{each.name}": {"get": _get_live(each)} for each in templates.values()},
        "/reports": {
            "get": {
                "operationId": "reports",
                "summary": "All templates with their parameters",
                "tags": ["reports"],
                "responses": {"200": _json("The templates.", reference("Templates"))}
                | _error_responses(401, 403, 429),
            },
            "post": _post_reports(),
        },
        "/reports/{name}/schema": {
            "get": {
                "operationId": "report_schema",
                "summary": "Parameters, columns and row schema of a report",
                "tags": ["reports"],
                "parameters": [
                    {
                        "name": "name",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "enum": list(templates)},
                    }
                ],
                "responses": {"200": _json("The schema.", reference("ReportSchema"))}
                | _error_responses(401, 403, 404, 429),
            }
        },
        "/query": {"post": _post_query()},
        "/schema": {
            "get": {
                "operationId": "schema",
                "summary": "Tables that raw SQL can read",
                "tags": ["query"],
                "responses": {"200": _json("The tables.", reference("Tables"))}
                | _error_responses(401, 403, 429, 503, 504),
            }
        },
        "/caller": {
            "get": {
                "operationId": "caller",
                "summary": "What the caller's token permits",
                "tags": ["reports"],
                "responses": {"200": _json("The caller.", reference("Caller"))}
                | _error_responses(401, 403, 429),
            }
        },
        "/healthz": {
            "get": _operations_endpoint("healthz", "Liveness of the process", reference("State"))
        },
        "/readyz": {
            "get": _operations_endpoint(
                "readyz", "Readiness: ClickHouse responds", reference("State"), 503, 504
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "octane-analytics",
            "version": __version__,
            "description": "Reports about events, and read-only SQL over them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas(templates),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # The operator decides whether a token is required.
        "security": [{}, {"token": []}],
    }


def _post_report(templates: Mapping[str, Template]) -> Schema:
    return {
        "operationId": "report",
        "summary": "Run a report",
        "tags": ["reports"],
        "requestBody": {
            "required": True,
            "description": f"At most {ReportRequest.max_bytes} bytes.",
            "content": {
                "application/json": {
                    "schema": {
                        "oneOf": [reference(f"ask_{name}") for name in templates],
                    }
                }
            },
        },
        "responses": _success_response(reference("Report"))
        | _error_responses(*_BODY_ERRORS, *_READ_ERRORS),
    }


def _get_live(template: Template) -> Schema:
    report = _get_report(template)
    interval = {
        "name": "interval",
        "in": "query",
        "description": "Seconds between two refreshes.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_INTERVAL, "default": 5},
    }
    left_out = ("format", "csv_raw")
    kept = [each for each in report["parameters"] if each["name"] not in left_out]
    return {
        "operationId": f"live_{template.name}",
        "summary": f"{template.title}, live",
        "description": "Server-sent events: `report` has the answer, at first and after each change.",
        "tags": ["live"],
        "parameters": [*kept, interval],
        "responses": {"200": {"description": "Events.", "content": {"text/event-stream": {}}}}
        | _error_responses(*_READ_ERRORS),
    }


def _post_reports() -> Schema:
    return {
        "operationId": "batch",
        "summary": "Run several reports",
        "description": "Each is answered or failed by itself, and counts as a request.",
        "tags": ["reports"],
        "requestBody": {
            "required": True,
            "description": f"At most {BatchRequest.max_bytes} bytes.",
            "content": {"application/json": {"schema": reference("AskBatch")}},
        },
        "responses": {"200": _json("The answers, in order.", reference("Batch"))}
        | _error_responses(*_BODY_ERRORS, 401, 403, 422, 429),
    }


def _get_report(template: Template) -> Schema:
    parameters: list[Schema] = [
        {
            "name": name,
            "in": "query",
            "required": parameter.required,
            "description": parameter.help,
            "schema": parameter_schema(parameter),
        }
        for name, parameter in template.parameters.items()
    ]
    parameters.append(
        {
            "name": "format",
            "in": "query",
            "description": "Takes precedence over the Accept header.",
            "schema": {"type": "string", "enum": list(FORMATS)},
        }
    )
    parameters.append(
        {
            "name": "csv_raw",
            "in": "query",
            "description": CSV_RAW,
            "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
        }
    )
    parameters += [
        {
            "name": "integers",
            "in": "query",
            "description": "`string`: 64-bit integers beyond 2^53 are strings in JSON.",
            "schema": {"type": "string", "enum": ["number", "string"], "default": "number"},
        },
        {
            "name": "download",
            "in": "query",
            "description": "Whether the answer has a file name.",
            "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
        },
    ]
    if "offset" in template.parameters:
        parameters.append(
            {
                "name": "cursor",
                "in": "query",
                "description": "`next_cursor` of the previous page; excludes offset, from and to.",
                "schema": {"type": "string", "maxLength": MAX_CHARACTERS},
            }
        )
    if template.key is not None:
        parameters.append(
            {
                "name": "compare",
                "in": "query",
                "description": "Range to compare with: previous_period, previous_year or FROM/TO.",
                "schema": {"type": "string", "examples": list(PERIODS)},
            }
        )
    if template.has_totals:
        parameters.append(
            {
                "name": "totals",
                "in": "query",
                "description": "Whether a row over all rows and their number are added; JSON only.",
                "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
            }
        )
    if template.has_filters:
        parameters.append(
            {
                "name": "filter",
                "in": "query",
                "description": "Condition of the events, PROPERTY:OP:VALUE; repeatable.",
                "schema": {
                    "type": "array",
                    "items": {"type": "string", "examples": ["device:eq:tv"]},
                    "maxItems": MAX_FILTERS,
                },
            }
        )
    column_list = "\n".join(f"- `{name}`: {text}" for name, text in template.columns.items())
    return {
        "operationId": template.name,
        "summary": template.title,
        "description": f"{template.description}\n\nColumns:\n\n{column_list}",
        "tags": ["reports"],
        "parameters": parameters,
        "responses": _success_response(reference(f"Report_{template.name}"))
        | {"304": {"description": "The answer of If-None-Match is still valid."}}
        | _error_responses(*_READ_ERRORS),
    }


def _post_query() -> Schema:
    return {
        "operationId": "query",
        "summary": "Run one SELECT",
        "tags": ["query"],
        "requestBody": {
            "required": True,
            "description": f"At most {QueryRequest.max_bytes} bytes.",
            "content": {"application/json": {"schema": reference("AskQuery")}},
        },
        "responses": _success_response(reference("Result"), OFFERED)
        | _error_responses(*_BODY_ERRORS, *_READ_ERRORS),
    }


def _operations_endpoint(name: str, summary: str, schema: Schema, *statuses: int) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["operations"],
        "security": [],
        "responses": {"200": _json("Success.", schema)} | _error_responses(*statuses),
    }


def _success_response(schema: Schema, formats: Mapping[str, Format] = FORMATS) -> Schema:
    content = {
        each.accepted[0]: {"schema": schema if each.name == "json" else {}}
        for each in formats.values()
    }
    headers = {
        "X-Row-Limit": {
            "schema": {"type": "string"},
            "description": "Maximum number of rows of the answer.",
        },
        "X-Truncated": {
            "schema": {"type": "string", "enum": ["true", "false"]},
            "description": "Whether more rows exist; absent in streamed answers.",
        },
        "X-Rows-Read": {
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
            "description": f"Rows that ClickHouse read; {_NOT_SHOWN}.",
        },
        "X-Bytes-Read": {
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
            "description": f"Bytes that ClickHouse read, uncompressed; {_NOT_SHOWN}.",
        },
        "Server-Timing": {
            "schema": {"type": "string"},
            "description": "Duration of the query; absent in streamed and cached answers.",
        },
    }
    return {"200": {"description": "The answer.", "headers": headers, "content": content}}


def _error_responses(*statuses: int) -> Schema:
    return {str(status): _json(_ERRORS[status], reference("Error")) for status in sorted(statuses)}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
