"""A template's columns and rows as JSON Schema (draft 2020-12)."""

import re
from typing import Any

from octane_analytics.api.reports.template import Template

Schema = dict[str, Any]

_NULLABLE = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)\Z")
_ARRAY = re.compile(r"Array\((.*)\)\Z")


def row_schema(template: Template) -> Schema:
    """Return the schema of one row; a comparison adds columns."""
    return {
        "type": "object",
        "properties": {
            name: column_schema(template.types.get(name)) | {"description": text}
            for name, text in template.columns.items()
        },
        "required": list(template.columns),
        "additionalProperties": True,
    }


def column_schema(kind: str | None) -> Schema:
    """Return the schema of a value of this ClickHouse type, as `json_values` writes it."""
    if kind is None:
        return {}
    if match := _NULLABLE.match(kind):
        inner = column_schema(match[1])
        if kind.startswith("Nullable") and isinstance(inner.get("type"), str):
            return inner | {"type": [inner["type"], "null"]}
        return inner
    if match := _ARRAY.match(kind):
        return {"type": "array", "items": column_schema(match[1])}
    if re.match(r"U?Int(8|16|32|64)\Z", kind):
        return {"type": "integer"}
    if kind.startswith("Float"):
        return {"type": ["number", "null"]}  # NaN is null
    if kind == "Bool":
        return {"type": "boolean"}
    if kind.startswith("DateTime"):
        return {"type": "string", "format": "date-time"}
    if kind.startswith("Date"):
        return {"type": "string", "format": "date"}
    if kind.startswith(("String", "FixedString", "Enum", "UUID", "IPv", "Decimal", "Int", "UInt")):
        return {"type": "string"}
    return {}


def described_columns(template: Template) -> list[dict[str, object]]:
    """Return name, type and description of each column; the type is null if it is not declared."""
    return [
        {"name": name, "type": template.types.get(name), "description": text}
        for name, text in template.columns.items()
    ]
