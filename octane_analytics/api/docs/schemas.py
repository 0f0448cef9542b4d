"""Schemas of the OpenAPI document: request bodies and answers."""

from collections.abc import Mapping
from typing import Any

from octane_analytics.api.comparison import PERIODS
from octane_analytics.api.filters import MAX_FILTERS
from octane_analytics.api.raw_sql.result import OFFERED
from octane_analytics.api.raw_sql.statement_parameters import MAX_PARAMETERS
from octane_analytics.api.reports import cursor
from octane_analytics.api.reports.batch import MAX_REPORTS
from octane_analytics.api.reports.json_schema import (
    filter_schema,
    parameter_schema,
    parameters_schema,
)
from octane_analytics.api.reports.row_schema import row_schema
from octane_analytics.api.reports.template import COMMON, Template
from octane_analytics.api.results.formats import FORMATS, Format

Schema = dict[str, Any]

CSV_RAW = "Whether CSV cells that a spreadsheet would evaluate are left without an apostrophe."
_NOT_CONFINED = "absent for a token with fixed parameters or filters"
CSV_RAW_FIELD: Schema = {"type": "boolean", "default": False, "description": CSV_RAW}


def reference(name: str) -> Schema:
    """Return a reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_schema(properties: Schema, *optional: str, is_open: bool = False) -> Schema:
    """Return the schema of an object; members that are not `optional` are required."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": is_open,
    }


def schemas(templates: Mapping[str, Template]) -> Schema:
    """Return all schemas by name."""
    format_name = _format_name(FORMATS)
    return {
        **{f"ask_{name}": _report_request(each, format_name) for name, each in templates.items()},
        "Report": _report(list(templates), {"type": "object"}),
        **{f"row_{name}": row_schema(each) for name, each in templates.items()},
        **{f"Report_{name}": _report([name], reference(f"row_{name}")) for name in templates},
        "ReportSchema": object_schema(
            {
                "name": {"type": "string"},
                "parameters": {"type": "object"},
                "columns": {"type": "array", "items": {"type": "object"}},
                "row": {"type": "object"},
                "key": {"type": ["array", "null"], "items": {"type": "string"}},
            }
        ),
        "Filter": filter_schema(),
        "AskBatch": object_schema(
            {"reports": {"type": "array", "items": {}, "minItems": 1, "maxItems": MAX_REPORTS}}
        ),
        "Batch": object_schema(
            {
                "answers": {
                    "type": "array",
                    "items": object_schema(
                        {
                            "status": {"type": "integer"},
                            "cache": {"type": "string"},
                            "age": {"type": "integer", "minimum": 0},
                            "etag": {"type": "string"},
                            "answer": reference("Report"),
                            "error": {"type": "object"},
                        },
                        *("cache", "age", "etag", "answer", "error"),
                    ),
                }
            }
        ),
        "Result": object_schema(_result({"type": "object"})),
        "AskQuery": object_schema(
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
                "csv_raw": CSV_RAW_FIELD,
            },
            "format",
            "params",
            "csv_raw",
        ),
        "Caller": object_schema(
            {
                "name": {"type": "string"},
                "scopes": {"type": "array", "items": {"enum": ["metrics", "query", "report"]}},
                "parameters": {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "integer"]},
                },
            },
        ),
        "Tables": object_schema(
            {
                "tables": {
                    "type": "array",
                    "items": object_schema(
                        {
                            "database": {"type": "string"},
                            "table": {"type": "string"},
                            "columns": {
                                "type": "array",
                                "items": object_schema(
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
        "Templates": object_schema(
            {"templates": {"type": "array", "items": {"type": "object"}}},
        ),
        "State": object_schema({"status": {"type": "string"}}),
        "Error": object_schema(
            {
                "error": object_schema(
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
            "items": reference("Filter"),
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
                object_schema({"from": time, "to": time}),
                {"type": "null"},
            ],
            "description": "Range to compare with.",
        }
    return fields


def _report_request(template: Template, format_name: Schema) -> Schema:
    params = parameters_schema(template)
    schema = object_schema(
        {
            "template": {"const": template.name},
            "params": params,
            "format": format_name,
            "csv_raw": CSV_RAW_FIELD,
            "cursor": {"type": "null"}
            if "offset" not in template.parameters
            else {"type": ["string", "null"], "maxLength": cursor.MAX_CHARACTERS},
            "integers": {"enum": ["number", "string"], "default": "number"},
            **_optional_fields(template),
        },
        "format",
        "csv_raw",
        "filters",
        "compare",
        "totals",
        "integers",
        "cursor",
    )
    if "required" not in params:
        schema["required"] = ["template"]
        schema["properties"]["params"] = params | {"type": ["object", "null"]}
    return schema


def _result(rows: Schema) -> Schema:
    """Return the members of every answer; `rows` is the schema of one row."""
    count = {"type": "integer", "minimum": 0}
    column = object_schema({"name": {"type": "string"}, "type": {"type": "string"}})
    return {
        "columns": {"type": "array", "items": column},
        "rows": {"type": "array", "items": rows},
        "row_count": count,
        "truncated": {"type": "boolean", "description": "Whether more rows exist."},
        "rows_read": count | {"description": f"Rows that ClickHouse read; {_NOT_CONFINED}."},
        "bytes_read": count
        | {"description": f"Bytes that ClickHouse read, uncompressed; {_NOT_CONFINED}."},
        "elapsed_ms": {"type": "number"},
    }


def _report(names: list[str], rows: Schema) -> Schema:
    """Return the schema of an answer of the reports of these names."""
    count = {"type": "integer", "minimum": 0}
    return object_schema(
        {
            "template": {"type": "string", "enum": names},
            "params": {"type": "object"},
            "filters": {"type": "array", "items": reference("Filter")},
            "compare": object_schema({"from": {"type": "string"}, "to": {"type": "string"}}),
            **_result(rows),
            "totals": {
                "type": ["object", "null"],
                "description": "Row over all rows; null in columns of the key.",
            },
            "total_rows": count | {"description": "Number of rows without `limit`."},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "`cursor` of the next page, with the same range; null on the last.",
            },
            "next_offset": {
                "type": ["integer", "null"],
                "description": "`offset` of the next page; null on the last page.",
            },
        },
        "next_offset",
        "next_cursor",
        "filters",
        "compare",
        "totals",
        "total_rows",
        "rows_read",
        "bytes_read",
    )
