"""Request bodies: their fields, size limits and decoding."""

from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from starlette.requests import Request

from octane_analytics.api.comparison import Comparison
from octane_analytics.api.filters import Filter
from octane_analytics.errors import QueryError


class ReportRequest(msgspec.Struct, forbid_unknown_fields=True):
    max_bytes: ClassVar[int] = 64 << 10

    template: str
    params: dict[str, Any] | None = None
    format: str | None = None
    csv_raw: bool = False
    filters: list[Filter] = []
    compare: Comparison | None = None
    totals: bool = False
    integers: Literal["number", "string"] = "number"
    cursor: str | None = None


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    max_bytes: ClassVar[int] = 256 << 10

    reports: list[msgspec.Raw]
    """ReportRequests, decoded one by one, so that an invalid one fails by itself."""


class QueryRequest(msgspec.Struct, forbid_unknown_fields=True):
    max_bytes: ClassVar[int] = 256 << 10

    sql: str
    params: dict[str, Any] | None = None
    """Values of the statement's `{name:Type}` parameters, by name."""
    format: str | None = None
    csv_raw: bool = False


T = TypeVar("T", ReportRequest, BatchRequest, QueryRequest)


async def decoded(request: Request, kind: type[T]) -> T:
    """Return the decoded JSON body of the request, after reading `max_bytes` at most.

    Raises QueryError: 415 for another content type or an encoded body, 413 for a body that is too
    large, 400 for invalid JSON, 422 for JSON with unexpected fields or types.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise QueryError(415, "unsupported_media_type", "the body must be application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise QueryError(
            415,
            "unsupported_media_type",
            "Content-Encoding is not supported: send the body uncompressed",
        )
    too_large = QueryError(413, "body_too_large", f"the body has more than {kind.max_bytes} bytes")
    # The parser of HTTP has checked that it is a number.
    if int(request.headers.get("content-length", "0")) > kind.max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > kind.max_bytes:
            raise too_large
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except msgspec.ValidationError as error:
        raise QueryError(422, "invalid_body", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise QueryError(400, "malformed_json", f"the body is not JSON: {error}") from error
