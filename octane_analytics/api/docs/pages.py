"""Endpoints of the API's description: /openapi.json and the page /docs with its static files."""

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from octane_analytics.api.docs.openapi import document
from octane_analytics.api.reports.template import Template
from octane_analytics.api.results.json_values import encode

DIRECTORY = Path(__file__).parent / "static"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Only scripts and styles of this origin are loaded, and only this origin is requested.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
)


class DocumentationPages:
    """Serves the description; reads the static files once, in the constructor."""

    def __init__(self, templates: Mapping[str, Template]) -> None:
        self._openapi = encode(document(templates))
        self._files = {path.name: path.read_bytes() for path in DIRECTORY.iterdir()}

    async def openapi(self, request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    async def page(self, request: Request) -> Response:
        return self._answer("index.html")

    async def file(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name not in self._files:
            raise HTTPException(404)
        return self._answer(name)

    def _answer(self, name: str) -> Response:
        return Response(
            self._files[name],
            media_type=_MEDIA_TYPES[Path(name).suffix],
            headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"},
        )
