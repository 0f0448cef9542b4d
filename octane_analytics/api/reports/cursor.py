"""Cursors: the next page of an answer, with the range of its first page, as one text.

A cursor holds nothing that its request could not give itself, and is validated like it.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from octane_analytics.api.reports.template import Template
from octane_analytics.errors import QueryError

MAX_CHARACTERS = 200
NAMES = ("offset", "from", "to")


class _CursorPage(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    offset: int
    start: str
    to: str


def encode(offset: int, effective: Mapping[str, object]) -> str:
    """Return the cursor of the page at `offset` of the range of the effective parameters."""
    page = _CursorPage(offset, str(effective["from"]), str(effective["to"]))
    return base64.urlsafe_b64encode(msgspec.json.encode(page)).decode().rstrip("=")


def apply(template: Template, cursor: str, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the parameters with those of the cursor. Raises QueryError (422)."""
    if "offset" not in template.parameters:
        raise _invalid(f"{template.name} has no pages")
    for name in NAMES:
        if given.get(name) is not None:
            raise _invalid(f"excludes {name}, which it contains")
    if len(cursor) > MAX_CHARACTERS:
        raise _invalid("is not one of an answer")
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        page = msgspec.json.decode(text, type=_CursorPage)
    except (binascii.Error, ValueError) as error:
        raise _invalid("is not one of an answer") from error
    return {**given, "offset": page.offset, "from": page.start, "to": page.to}


def _invalid(problem: str) -> QueryError:
    return QueryError(422, "bad_parameter", f"cursor {problem}", parameter="cursor")
