"""Daemons that answer wrongly, on a real socket."""

from __future__ import annotations

import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable

from tests.support.layers import ID

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def text(status: int, body: bytes, content_type: str = "application/json") -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def ping(version: str | None) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if version is not None:
            request.send_header("Api-Version", version)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"OK")

    return answer


PING = ping("1.41")

VERSION = text(200, b'{"ApiVersion": "1.41"}')
HAS = text(200, json.dumps({"Id": f"sha256:{ID}"}).encode())


def close(request: http.server.BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


class Faulty(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A daemon that answers `/_ping` rightly and everything else wrongly."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: pathlib.Path, image: Answer, pong: Answer = PING) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                (pong if self.path == "/_ping" else image)(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(str(path), Handler)
        self.url = f"unix://{path}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        pass


class Tcp:
    """An engine on 127.0.0.1 that has every image."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                {"_ping": PING, "version": VERSION}.get(self.path.rpartition("/")[2], HAS)(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"tcp://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
