"""Endpoints of the dashboard: its pages, their static files, and what the caller's token permits.

The pages hold no data: a browser asks the reports for it, with the limits and the log of any client.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from octane_analytics.api.auth.callers import Caller
from octane_analytics.api.dashboard.service_status import ServiceStatusSource
from octane_analytics.api.results.json_values import encode

DIRECTORY = Path(__file__).parent / "static"
MANUAL = Path(__file__).parents[2] / "manual"
_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".md": "text/plain",
}
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # Assigning text to innerHTML and its like raises an error in the browser.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy of the pages: files and requests of this origin only, nothing inline."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> Self:
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=12).hexdigest()
        return cls(content, _MEDIA_TYPES[path.suffix], f'"{digest}"')


class DashboardPages:
    """Serves the pages; reads the static files once, in the constructor."""

    def __init__(self, status: ServiceStatusSource) -> None:
        self._status = status
        self._files = {
            path.relative_to(DIRECTORY).as_posix(): StaticFile.read(path)
            for path in sorted(DIRECTORY.rglob("*.*"))
        } | {f"manual/{path.name}": StaticFile.read(path) for path in sorted(MANUAL.glob("*.md"))}

    async def start(self, request: Request) -> Response:
        # Relative, so that it holds behind a proxy that serves the API below a path.
        return RedirectResponse("dashboard", headers={"Cache-Control": "no-cache"})

    async def icon(self, request: Request) -> Response:
        """Return the icon that a browser requests for a page of the manual, which names none."""
        return self._answer(request, "icon.svg")

    async def dashboard(self, request: Request) -> Response:
        return self._answer(request, "dashboard.html")

    async def file(self, request: Request) -> Response:
        return self._answer(request, request.path_params["file"])

    async def status(self, request: Request) -> Response:
        return self._answer(request, "status.html")

    async def status_data(self, request: Request) -> Response:
        """Return the state of the service, for operators."""
        state = await asyncio.to_thread(self._status.read)
        return Response(encode(state), media_type="application/json")

    async def caller(self, request: Request) -> Response:
        """Return what the caller may ask, so that a page shows nothing that would be refused."""
        caller: Caller = request.state.caller
        described = {
            "name": caller.name,
            "scopes": sorted(caller.scopes),
            "parameters": dict(caller.parameters),
        }
        return Response(encode(described), media_type="application/json")

    def _answer(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {
            "Content-Security-Policy": POLICY,
            # A browser asks each time and receives 304, so that no page mixes two versions.
            "Cache-Control": "no-cache",
            "ETag": file.etag,
        }
        if file.etag in (
            each.strip() for each in request.headers.get("if-none-match", "").split(",")
        ):
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)
