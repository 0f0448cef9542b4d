"""Compression of answers: the encoding, and what is left as it is."""

import asyncio
import gzip
import json

import httpx
import pytest
import zstd
from starlette.types import ASGIApp

from octane_analytics.api.middleware.compression import chosen_encoding
from tests.support.asgi_calls import Script, app_over, call


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("br, gzip;q=0.5", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.1", "gzip"),
        ("zstd;q=0, gzip;q=0", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("zstd;q=0, *", "gzip"),
        ("gzip;q=x", None),
        (";;;,=", None),
    ],
)
def test_encoding_is_the_preferred_one(header: str, chosen: str | None) -> None:
    assert chosen_encoding(header) == chosen


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_whole_answer_is_compressed(encoding: str) -> None:
    app = app_over(Script())
    plain = call(app, "GET", "/reports", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    answer = call(app, "GET", "/reports", headers={"Accept-Encoding": "identity"})
    assert answer.headers["vary"] == "Accept-Encoding"
    packed = _raw(app, encoding)
    unpacked = gzip.decompress(packed) if encoding == "gzip" else zstd.decompress(packed)
    assert json.loads(unpacked) == plain.json()
    assert len(packed) < len(unpacked) / 3


def test_small_answer_is_sent_as_it_is() -> None:
    answer = call(app_over(Script()), "GET", "/healthz", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


def _raw(app: ASGIApp, encoding: str) -> bytes:
    """Return the compressed body of /reports, which httpx would decompress."""

    async def send() -> bytes:
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            client.stream("GET", "/reports", headers={"Accept-Encoding": encoding}) as answer,
        ):
            assert answer.headers["content-encoding"] == encoding
            return b"".join([chunk async for chunk in answer.aiter_raw()])

    return asyncio.run(send())
