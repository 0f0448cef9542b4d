"""HTTP server of a replica's parts, from which the other replicas of its tables fetch.

clickhouse-local has the receiver's half of this exchange but cannot serve. Reads only the directory of
the node, and asks the node itself where its tables are.
"""

import http.client
import http.server
import json
import re
import socketserver
import threading
import urllib.parse
from pathlib import Path

from tests.tools.cluster import part_files

HOST = "127.0.0.1"
_ENDPOINT = "DataPartsExchange:"
_PLACES = """
SELECT replica_path, data_paths[1] FROM system.replicas AS r
JOIN system.tables AS t ON r.database = t.database AND r.table = t.name FORMAT JSONCompactEachRow
"""
_NO_PART = 232


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, node_http_port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self._node_http_port = node_http_port
        self._places: dict[str, Path] = {}

    def part(self, replica_path: str, name: str) -> Path:
        """Return the directory of a part. Raises FileNotFoundError if the node does not have it."""
        if not re.fullmatch(r"[0-9A-Za-z_-]+", name):
            raise FileNotFoundError(name)
        if not (self._places.get(replica_path, Path("/nowhere")) / name).is_dir():
            self._places.update(self._read_places())
        folder = self._places.get(replica_path, Path("/nowhere")) / name
        if not folder.is_dir():
            raise FileNotFoundError(str(folder))
        return folder

    def _read_places(self) -> dict[str, Path]:
        connection = http.client.HTTPConnection(HOST, self._node_http_port, timeout=10)
        try:
            connection.request("POST", "/", body=_PLACES)
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return {path: Path(directory) for path, directory in map(json.loads, lines)}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self._skip_body()
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        version = min(int(query.get("client_protocol_version", 0)), part_files.PROTOCOL)
        try:
            replica_path = query["endpoint"].removeprefix(_ENDPOINT)
            body = b"".join(
                part_files.encoded(self.server.part(replica_path, query["part"]), version)
            )
        except (KeyError, ValueError, OSError, http.client.HTTPException) as error:
            # The replica tries again, here or at another replica.
            self._answer(500, f"Code: {_NO_PART}. DB::Exception: {error!r}".encode())
        else:
            self._answer(200, body, f"server_protocol_version={version}")

    def _answer(self, status: int, body: bytes, cookie: str = "") -> None:
        self.send_response(status)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _skip_body(self) -> None:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()


def serve(port: int, node_http_port: int) -> None:
    """Serve on the port until the process ends."""
    server = _Server(port, node_http_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
