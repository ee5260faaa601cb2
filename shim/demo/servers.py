"""An embedded registry and an embedded engine: small, in memory, and honest about it.

They speak as much of the distribution API and of the Docker Engine API as a build's phases ask
for, over real sockets, and answer as real ones were measured to: the engine knows an image by its
names, its ID and the digest it was pulled by, and not by an architecture's digest.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import socketserver
import threading
import urllib.parse
from typing import Any

from shim.demo.images import Image
from shim.demo.lifecycle import ARCHITECTURE, manifest, split_tag


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        """Return something for the log, which a Unix socket's peer has no address for."""
        return "local"

    def log_message(self, *_: object) -> None:
        """Keep silent."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        self.server.asked.append(f"{self.command} {urllib.parse.unquote(url.path)}")
        self.server.answer(self, urllib.parse.unquote(url.path), dict(urllib.parse.parse_qsl(url.query)))

    do_HEAD = do_GET  # noqa: N815
    do_POST = do_GET  # noqa: N815

    def reply(self, status: int, body: bytes | object, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: Any) -> None:
        super().__init__(address, _Handler)
        self.asked: list[str] = []
        """What was asked, in order: method and path."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    answer: Any
    """Answers a request by its path and query."""

    def handle_error(self, *_: object) -> None:
        """Keep silent where a client went away."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Registry(_Server):
    """A registry on 127.0.0.1, which holds what it is given."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], str] = {}
        self._blobs: dict[str, tuple[str, bytes]] = {}
        super().__init__(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.server_address[1]}"

    def push(self, name: str, image: Image) -> str:
        """Hold an image under a name such as `run/app:1.0`, and return its full name."""
        repository, tag = split_tag(name)
        self._blobs.update(image.blobs)
        self._tags[repository, tag] = image.digest
        return f"{self.host}/{name}"

    def answer(self, request: _Handler, path: str, query: dict[str, str]) -> None:  # noqa: ARG002
        """Answer by the distribution API."""
        if path == "/v2/":
            request.reply(200, {})
            return
        asked = re.fullmatch(r"/v2/(.+)/(?:manifests|blobs)/(.+)", path)
        digest = self._tags.get((asked[1], asked[2]), asked[2]) if asked else ""
        if digest not in self._blobs:
            request.reply(404, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})
            return
        media_type, content = self._blobs[digest]
        request.reply(200, content, Content_Type=media_type, Docker_Content_Digest=digest)


class Engine(_Server):
    """An engine on a Unix socket, with the classic image store of Docker."""

    address_family = socket.AF_UNIX

    def __init__(self, path: str) -> None:
        self._names: dict[str, str] = {}
        super().__init__(path)
        self.url = f"unix://{path}"
        self._path = path

    def tag(self, reference: str, image_id: str) -> None:
        self._names[reference] = image_id

    def pull(self, name: str) -> bool:
        """Pull an image by name from its registry, for this machine's architecture."""
        repository, tag = name.split("@") if "@" in name else split_tag(name)
        host, _, path = repository.partition("/")
        top = manifest(host, path, tag)
        if top is None:
            return False
        digest, content = top
        for entry in content.get("manifests", []):
            if entry["platform"]["architecture"] == ARCHITECTURE:
                content = (manifest(host, path, entry["digest"]) or top)[1]
        self._names[name] = self._names[f"{repository}@{digest}"] = content["config"]["digest"]
        return True

    def find(self, reference: str) -> str | None:
        full = reference if reference.startswith("sha256:") else f"sha256:{reference}"
        return self._names.get(reference) or (full if full in self._names.values() else None)

    def answer(self, request: _Handler, path: str, query: dict[str, str]) -> None:
        path = re.sub(r"^/v1\.\d+", "", path)
        if path == "/_ping":
            request.reply(200, b"OK", Content_Type="text/plain")
        elif path == "/version":
            request.reply(200, {"Version": "0.0 (embedded)", "ApiVersion": "1.41", "Os": "linux"})
        elif not (asked := re.fullmatch(r"/images/(.+?)(/json|/tag)", path)) or not (image_id := self.find(asked[1])):
            request.reply(404, {"message": f"No such image: {path}"})
        elif asked[2] == "/tag":
            self.tag(f"{query['repo']}:{query.get('tag', 'latest')}", image_id)
            request.reply(201, b"")
        else:
            request.reply(200, {"Id": image_id, "Os": "linux", "Architecture": ARCHITECTURE})

    def stop(self) -> None:
        super().stop()
        os.unlink(self._path)
