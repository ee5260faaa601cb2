"""Daemons that answer rightly or wrongly, on a real socket."""

from __future__ import annotations

import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import trustme

from shim.demo.lifecycle import ARCHITECTURE
from tests.support.layers import ID

Request = http.server.BaseHTTPRequestHandler
Answer = Callable[[Request], None]


def text(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Answer:
    def answer(request: Request) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Type": content_type, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def image(image_id: object = f"sha256:{ID}", system: object = "linux", architecture: object = ARCHITECTURE) -> Answer:
    """Answer that an image is there."""
    return text(200, json.dumps({"Id": image_id, "Os": system, "Architecture": architecture}).encode())


HALF = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"Id"'
VERSION = text(200, b'{"ApiVersion": "1.41"}')
HAS = image()
LACKS = text(404, b'{"message": "No such image"}')


def raw(content: bytes, seconds: float = 0) -> Answer:
    """Answer with bytes that may be no HTTP, and after some seconds close the connection."""

    def answer(request: Request) -> None:
        request.wfile.write(content)
        time.sleep(seconds)
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    return answer


class _Handler(Request):
    protocol_version = "HTTP/1.1"
    server: Faulty

    def do_GET(self) -> None:  # noqa: N802
        self.server.asked.append(f"{self.command} {self.path}")
        (self.server.version if self.path.endswith("/version") else self.server.image)(self)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Faulty(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A daemon that answers about images as it is told: on a Unix socket, or on 127.0.0.1, with TLS by a context."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: pathlib.Path, image: Answer, version: Answer, tcp: ssl.SSLContext | bool) -> None:
        self.image, self.version = image, version
        self.asked: list[str] = []
        self.address_family = socket.AF_INET if tcp else socket.AF_UNIX
        place: Any = ("127.0.0.1", 0) if tcp else str(path)
        super().__init__(place, _Handler)
        self.url = f"tcp://127.0.0.1:{self.server_address[1]}" if tcp else f"unix://{path}"
        if tcp:  # else each answer waits 40 ms, for what acknowledges its head
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        if isinstance(tcp, ssl.SSLContext):
            self.socket = tcp.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        pass


def certificates(directory: pathlib.Path, authority: trustme.CA) -> pathlib.Path:
    """Write what a client of a daemon with TLS has, as `DOCKER_CERT_PATH` names it."""
    directory.mkdir()
    mine = authority.issue_cert("client")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    mine.private_key_pem.write_to_path(str(directory / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return directory


def serving(authority: trustme.CA, *names: str, clients: trustme.CA | None = None, **issued: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **issued).configure_cert(context)
    if clients:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
