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


def raw(content: bytes) -> Answer:
    """Answer with bytes that may be no HTTP, and close the connection."""

    def answer(request: Request) -> None:
        request.wfile.write(content)
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    return answer


def hang(request: Request) -> None:
    time.sleep(30)


def hang_in_the_middle(request: Request) -> None:
    request.wfile.write(HALF)
    time.sleep(30)


def _handler(image: Answer, version: Answer, asked: list[str]) -> type[Request]:
    class Handler(Request):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            asked.append(f"{self.command} {self.path}")
            (version if self.path.endswith("/version") else image)(self)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        pass

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Faulty(_Server):
    """A daemon on a Unix socket that tells its version, and answers everything else as it is told."""

    address_family = socket.AF_UNIX

    def __init__(self, path: pathlib.Path, image: Answer, version: Answer = VERSION) -> None:
        self.asked: list[str] = []
        super().__init__(str(path), _handler(image, version, self.asked))  # type: ignore[arg-type]  # it's a path
        self.url = f"unix://{path}"
        self.start()


class Tcp:
    """The same on 127.0.0.1, with TLS if there is a context for it."""

    def __init__(self, context: ssl.SSLContext | None = None, image: Answer = HAS) -> None:
        self.asked: list[str] = []
        self.server = _Server(("127.0.0.1", 0), _handler(image, VERSION, self.asked))
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"tcp://127.0.0.1:{self.server.server_address[1]}"
        self.server.start()
