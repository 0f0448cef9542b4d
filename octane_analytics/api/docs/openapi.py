"""The OpenAPI 3.1 document, made from the templates. Format: https://spec.openapis.org/oas/v3.1.0"""

from collections.abc import Mapping
from typing import Any

from octane_analytics import __version__
from octane_analytics.api.raw_sql.result import OFFERED
from octane_analytics.api.raw_sql.statement_parameters import MAX_PARAMETERS
from octane_analytics.api.reports.json_schema import parameter_schema, parameters_schema
from octane_analytics.api.reports.template import Template
from octane_analytics.api.request_bodies import QueryRequest, ReportRequest
from octane_analytics.api.results.formats import FORMATS, Format

Schema = dict[str, Any]

_ERRORS = {
    400: "Malformed JSON, or SQL that ClickHouse refuses.",
    401: "A token is missing or not known.",
    403: "Not allowed: the statement, or the token's scope.",
    404: "There is no such template.",
    406: "None of the media types asked for can be had.",
    413: "The body is too large.",
    415: "The body must be application/json.",
    422: "A parameter is wrong, or a limit was reached.",
    429: "Too many requests: see Retry-After.",
    501: "The format needs an extra that is not installed, or raw SQL a newer ClickHouse.",
    503: "ClickHouse is away, or all connections are busy: see Retry-After.",
    504: "Out of time.",
}
_OF_READ = (401, 403, 404, 406, 422, 429, 501, 503, 504)
_OF_BODY = (400, 413, 415)


def document(templates: Mapping[str, Template]) -> Schema:
    """What /openapi.json answers; made of dicts, lists and plain values."""
    paths: Schema = {
        "/report": {"post": _post_report(templates)},
        **{f"/report/{each.name}": {"get": _get_report(each)} for each in templates.values()},
        "/reports": {
            "get": {
                "operationId": "reports",
                "summary": "All templates with their parameters",
                "tags": ["reports"],
                "responses": {"200": _json("The templates.", _reference("Templates"))}
                | _errors(401, 403, 429),
            }
        },
        "/query": {"post": _post_query()},
        "/schema": {
            "get": {
                "operationId": "schema",
                "summary": "Tables that raw SQL can read",
                "tags": ["query"],
                "responses": {"200": _json("The tables.", _reference("Tables"))}
                | _errors(401, 403, 429, 503, 504),
            }
        },
        "/healthz": {"get": _plain("healthz", "Whether the process lives", _reference("State"))},
        "/readyz": {
            "get": _plain("readyz", "Whether ClickHouse answers", _reference("State"), 503, 504)
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
        # Either nothing or a token: which, is the operator's to say.
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
        "responses": _answers(_reference("Report")) | _errors(*_OF_BODY, *_OF_READ),
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
            "description": "Wins over the Accept header.",
            "schema": {"type": "string", "enum": list(FORMATS)},
        }
    )
    described = "\n".join(f"- `{name}`: {text}" for name, text in template.columns.items())
    return {
        "operationId": template.name,
        "summary": template.title,
        "description": f"{template.description}\n\nColumns:\n\n{described}",
        "tags": ["reports"],
        "parameters": parameters,
        "responses": _answers(_reference("Report"))
        | {"304": {"description": "What If-None-Match names is still true."}}
        | _errors(*_OF_READ),
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
        "responses": _answers(_reference("Result"), OFFERED) | _errors(*_OF_BODY, *_OF_READ),
    }


def _plain(name: str, summary: str, schema: Schema, *statuses: int) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["operations"],
        "security": [],
        "responses": {"200": _json("Yes.", schema)} | _errors(*statuses),
    }


def _answers(schema: Schema, formats: Mapping[str, Format] = FORMATS) -> Schema:
    content = {
        each.accepted[0]: {"schema": schema if each.name == "json" else {}}
        for each in formats.values()
    }
    headers = {
        "X-Row-Limit": {"schema": {"type": "string"}, "description": "Rows it may have at most."},
        "X-Truncated": {
            "schema": {"type": "string", "enum": ["true", "false"]},
            "description": "Whether there are more; a streamed answer does not have this.",
        },
    }
    return {"200": {"description": "The answer.", "headers": headers, "content": content}}


def _errors(*statuses: int) -> Schema:
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
        "truncated": {"type": "boolean", "description": "Whether there are more rows."},
        "elapsed_ms": {"type": "number"},
    }
    format_name = _format_name(FORMATS)
    return {
        **{f"ask_{name}": _ask(each, format_name) for name, each in templates.items()},
        "Report": _object(
            {
                "template": {"type": "string", "enum": list(templates)},
                "params": {"type": "object"},
                **result,
                "next_offset": {
                    "type": ["integer", "null"],
                    "description": "The next page's `offset`; null where this is the last.",
                },
            },
            "next_offset",
        ),
        "Result": _object(result),
        "AskQuery": _object(
            {
                "sql": {"type": "string", "minLength": 1},
                "params": {
                    "type": ["object", "null"],
                    "description": "Values of `{name:Type}` in the statement, by name.",
                    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"},
                    "maxProperties": MAX_PARAMETERS,
                    "additionalProperties": {"type": ["string", "number", "boolean", "array"]},
                },
                "format": _format_name(OFFERED),
            },
            "format",
            "params",
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
    return {"enum": [*formats, None], "description": "Wins over the Accept header."}


def _ask(template: Template, format_name: Schema) -> Schema:
    params = parameters_schema(template)
    schema = _object(
        {"template": {"const": template.name}, "params": params, "format": format_name}, "format"
    )
    if "required" not in params:
        schema["required"] = ["template"]
        schema["properties"]["params"] = params | {"type": ["object", "null"]}
    return schema
