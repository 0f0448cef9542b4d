"""The OpenAPI 3.1 document, built from the templates. Format: https://spec.openapis.org/oas/v3.1.0"""

from collections.abc import Mapping
from typing import Any

from octane_analytics import __version__
from octane_analytics.api.comparison import PERIODS
from octane_analytics.api.filters import MAX_FILTERS
from octane_analytics.api.raw_sql.result import OFFERED
from octane_analytics.api.raw_sql.statement_parameters import MAX_PARAMETERS
from octane_analytics.api.reports.json_schema import (
    filter_schema,
    parameter_schema,
    parameters_schema,
)
from octane_analytics.api.reports.template import COMMON, Template
from octane_analytics.api.request_bodies import QueryRequest, ReportRequest
from octane_analytics.api.results.formats import FORMATS, Format

Schema = dict[str, Any]

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
_CSV_RAW = "Whether CSV cells that a spreadsheet would evaluate are left without an apostrophe."
_CSV_RAW_FIELD: Schema = {"type": "boolean", "default": False, "description": _CSV_RAW}


def document(templates: Mapping[str, Template]) -> Schema:
    """Return the document of /openapi.json, of dicts, lists and plain values."""
    paths: Schema = {
        "/report": {"post": _post_report(templates)},
        **{f"/report/{each.name}": {"get": _get_report(each)} for each in templates.values()},
        "/reports": {
            "get": {
                "operationId": "reports",
                "summary": "All templates with their parameters",
                "tags": ["reports"],
                "responses": {"200": _json("The templates.", _reference("Templates"))}
                | _error_responses(401, 403, 429),
            }
        },
        "/query": {"post": _post_query()},
        "/schema": {
            "get": {
                "operationId": "schema",
                "summary": "Tables that raw SQL can read",
                "tags": ["query"],
                "responses": {"200": _json("The tables.", _reference("Tables"))}
                | _error_responses(401, 403, 429, 503, 504),
            }
        },
        "/caller": {
            "get": {
                "operationId": "caller",
                "summary": "What the caller's token permits",
                "tags": ["reports"],
                "responses": {"200": _json("The caller.", _reference("Caller"))}
                | _error_responses(401, 403, 429),
            }
        },
        "/healthz": {
            "get": _operations_endpoint("healthz", "Liveness of the process", _reference("State"))
        },
        "/readyz": {
            "get": _operations_endpoint(
                "readyz", "Readiness: ClickHouse responds", _reference("State"), 503, 504
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
            "schemas": _schemas(templates),
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
                        "oneOf": [_reference(f"ask_{name}") for name in templates],
                    }
                }
            },
        },
        "responses": _success_response(_reference("Report"))
        | _error_responses(*_BODY_ERRORS, *_READ_ERRORS),
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
            "description": _CSV_RAW,
            "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
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
        "responses": _success_response(_reference("Report"))
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
            "content": {"application/json": {"schema": _reference("AskQuery")}},
        },
        "responses": _success_response(_reference("Result"), OFFERED)
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
    }
    return {"200": {"description": "The answer.", "headers": headers, "content": content}}


def _error_responses(*statuses: int) -> Schema:
    return {str(status): _json(_ERRORS[status], _reference("Error")) for status in sorted(statuses)}


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, *optional: str, is_open: bool = False) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": is_open,
    }


def _schemas(templates: Mapping[str, Template]) -> Schema:
    count = {"type": "integer", "minimum": 0}
    column = _object({"name": {"type": "string"}, "type": {"type": "string"}})
    result = {
        "columns": {"type": "array", "items": column},
        "rows": {"type": "array", "items": {"type": "object"}},
        "row_count": count,
        "truncated": {"type": "boolean", "description": "Whether more rows exist."},
        "elapsed_ms": {"type": "number"},
    }
    format_name = _format_name(FORMATS)
    return {
        **{f"ask_{name}": _report_request(each, format_name) for name, each in templates.items()},
        "Report": _object(
            {
                "template": {"type": "string", "enum": list(templates)},
                "params": {"type": "object"},
                "filters": {"type": "array", "items": _reference("Filter")},
                "compare": _object({"from": {"type": "string"}, "to": {"type": "string"}}),
                **result,
                "totals": {
                    "type": ["object", "null"],
                    "description": "Row over all rows; null in columns of the key.",
                },
                "total_rows": count | {"description": "Number of rows without `limit`."},
                "statistics": _object({"rows_read": count, "bytes_read": count}),
                "next_offset": {
                    "type": ["integer", "null"],
                    "description": "`offset` of the next page; null on the last page.",
                },
            },
            "next_offset",
            "filters",
            "compare",
            "totals",
            "total_rows",
        ),
        "Filter": filter_schema(),
        "Result": _object(result),
        "AskQuery": _object(
            {
                "sql": {"type": "string", "minLength": 1},
                "params": {
                    "type": ["object", "null"],
                    "description": "Values of the statement's `{name:Type}` parameters, by name.",
                    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"},
                    "maxProperties": MAX_PARAMETERS,
                    "additionalProperties": {"type": ["string", "number", "boolean", "array"]},
                },
                "format": _format_name(OFFERED),
                "csv_raw": _CSV_RAW_FIELD,
            },
            "format",
            "params",
            "csv_raw",
        ),
        "Caller": _object(
            {
                "name": {"type": "string"},
                "scopes": {"type": "array", "items": {"enum": ["metrics", "query", "report"]}},
                "parameters": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "integer"]},
                },
            },
        ),
        "Tables": _object(
            {
                "tables": {
                    "type": "array",
                    "items": _object(
                        {
                            "database": {"type": "string"},
                            "table": {"type": "string"},
                            "columns": {
                                "type": "array",
                                "items": _object(
                                    {
                                        "name": {"type": "string"},
                                        "type": {"type": "string"},
                                        "comment": {"type": "string"},
                                    }
                                ),
                            },
                        }
                    ),
                }
            }
        ),
        "Templates": _object(
            {"templates": {"type": "array", "items": {"type": "object"}}},
        ),
        "State": _object({"status": {"type": "string"}}),
        "Error": _object(
            {
                "error": _object(
                    {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "request_id": {"type": "string"},
                    },
                    is_open=True,
                )
            }
        ),
    }


def _format_name(formats: Mapping[str, Format]) -> Schema:
    return {"enum": [*formats, None], "description": "Takes precedence over the Accept header."}


def _optional_fields(template: Template) -> Schema:
    fields: Schema = {
        "filters": {
            "type": "array",
            "items": _reference("Filter"),
            "maxItems": MAX_FILTERS if template.has_filters else 0,
        },
        "compare": {"type": "null"},
        "totals": {
            "type": "boolean",
            "enum": [False, True] if template.has_totals else [False],
            "default": False,
        },
    }
    if template.key is not None:
        time = parameter_schema(COMMON["from"])
        fields["compare"] = {
            "anyOf": [
                {"enum": list(PERIODS)},
                _object({"from": time, "to": time}),
                {"type": "null"},
            ],
            "description": "Range to compare with.",
        }
    return fields


def _report_request(template: Template, format_name: Schema) -> Schema:
    params = parameters_schema(template)
    schema = _object(
        {
            "template": {"const": template.name},
            "params": params,
            "format": format_name,
            "csv_raw": _CSV_RAW_FIELD,
            **_optional_fields(template),
        },
        "format",
        "csv_raw",
        "filters",
        "compare",
        "totals",
    )
    if "required" not in params:
        schema["required"] = ["template"]
        schema["properties"]["params"] = params | {"type": ["object", "null"]}
    return schema
