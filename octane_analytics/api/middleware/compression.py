"""Compression of answers that are sent whole: zstd or gzip, as the client prefers.

Streamed answers and live reports are sent as they are. Pure ASGI.
"""

import asyncio
import gzip
from collections.abc import Callable, Mapping

import zstd
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_BYTES = 1_000
"""Size below which compression saves nothing."""
_THREAD_BYTES = 64 << 10
"""Size above which compression would block the event loop for milliseconds."""
_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: zstd.compress(body, 3),
    "gzip": lambda body: gzip.compress(body, 5),
}


class CompressionMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        encoding = chosen_encoding(Headers(scope=scope).get("accept-encoding", ""))
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message  # held back until the body is known to be whole
                return
            if start is None:
                await send(message)
                return
            head, start = start, None
            headers = MutableHeaders(scope=head)
            headers.add_vary_header("Accept-Encoding")
            body = message.get("body", b"")
            is_whole = not message.get("more_body", False)
            if encoding and is_whole and len(body) >= MIN_BYTES and _is_text(headers):
                encode = _ENCODERS[encoding]
                is_large = len(body) > _THREAD_BYTES
                body = await asyncio.to_thread(encode, body) if is_large else encode(body)
                headers["Content-Encoding"] = encoding
                headers["Content-Length"] = str(len(body))
                message = {**message, "body": body}
            await send(head)
            await send(message)

        await self._app(scope, receive, send_compressed)


def chosen_encoding(accept_encoding: str) -> str | None:
    """Return the encoding of the header that is preferred; None to send the answer as it is."""
    ranked: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, _, quality = item.partition(";")
        try:
            ranked[name.strip()] = float(quality.partition("=")[2] or 1)
        except ValueError:
            ranked[name.strip()] = 0.0
    offered = {name: ranked.get(name, ranked.get("*", 0.0)) for name in _ENCODERS}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 else None


def _is_text(headers: MutableHeaders) -> bool:
    kind = headers.get("content-type", "")
    is_text = kind.startswith("text/") or "json" in kind
    return is_text and "content-encoding" not in headers
