"""A template's parameters as JSON Schema (draft 2020-12)."""

from typing import Any

from octane_analytics.api import timestamps
from octane_analytics.api.filters import (
    MAX_ITEMS,
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
)
from octane_analytics.api.reports.parameter_types import ARRAYS, INTEGERS, TIME, Parameter
from octane_analytics.api.reports.template import Template

Schema = dict[str, Any]

_TIME: Schema = {
    "anyOf": [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": f"^({timestamps.RELATIVE})$"},
        {"type": "number", "minimum": 0, "maximum": timestamps.LAST_SECOND},
    ],
    "examples": ["2026-02-02T12:00:00Z", "-24h", 1770033600],
}


def parameters_schema(template: Template) -> Schema:
    """Schema of the object that holds all parameters; null means absent."""
    schema: Schema = {
        "type": "object",
        "properties": {
            name: _nullable(parameter, parameter_schema(parameter))
            for name, parameter in template.parameters.items()
        },
        "additionalProperties": False,
    }
    required = [name for name, each in template.parameters.items() if each.required]
    return schema | ({"required": required} if required else {})


def parameter_schema(parameter: Parameter) -> Schema:
    """Schema of one parameter, null not included."""
    schema = _type_schema(parameter)
    schema["description"] = parameter.help
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def filter_schema() -> Schema:
    """Schema of one filter; each operator has values of its own."""
    scalar: Schema = {
        "anyOf": [
            {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARACTERS},
            {"type": "number"},
            {"type": "boolean"},
        ]
    }
    items: Schema = {"type": "array", "items": scalar, "minItems": 1, "maxItems": MAX_ITEMS}
    exists: Schema = {"type": ["boolean", "null"]}
    name: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS}
    is_number: Schema = {"type": "number"}

    def variant(operators: Schema, value: Schema, *required: str) -> Schema:
        return {
            "type": "object",
            "properties": {"property": name, "op": operators, "value": value},
            "required": ["property", *required],
            "additionalProperties": False,
        }

    return {
        "anyOf": [
            variant({"enum": ["eq", "ne"], "default": "eq"}, scalar, "value"),
            variant({"enum": ["in", "not_in"]}, items, "op", "value"),
            variant({"enum": ["gt", "lt"]}, is_number, "op", "value"),
            variant({"enum": ["exists"]}, exists, "op"),
        ]
    }


def _type_schema(parameter: Parameter) -> Schema:
    kind = parameter.type
    if kind == TIME:
        return dict(_TIME)
    if kind == "Bool":
        return {"type": "boolean"}
    if kind == "Date":
        return {"type": "string", "format": "date"}
    low, high = parameter.bounds()
    allowed: Schema = {} if parameter.allowed is None else {"enum": list(parameter.allowed)}
    if kind in ARRAYS:
        item = Parameter(ARRAYS[kind], "", allowed=parameter.allowed)
        return {"type": "array", "items": _type_schema(item), "minItems": low, "maxItems": high}
    if kind == "String":
        if parameter.format == "timezone":
            return {"type": "string", "examples": ["UTC", "Europe/Berlin"], **allowed}
        return {"type": "string", "minLength": low, "maxLength": high, **allowed}
    bounds = {
        name: bound
        for name, bound in (("minimum", low), ("maximum", high))
        if bound not in (float("-inf"), float("inf"))
    }
    return {"type": "integer" if kind in INTEGERS else "number", **bounds, **allowed}


def _nullable(parameter: Parameter, schema: Schema) -> Schema:
    if parameter.required:
        return schema
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        schema = schema | {"enum": [*schema["enum"], None]}
    return schema | {"type": [schema["type"], "null"]}
