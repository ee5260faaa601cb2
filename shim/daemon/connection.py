"""One HTTP connection to the daemon: over its Unix socket or TCP, by TLS and through a proxy where a phase would."""

from __future__ import annotations

import base64
import http.client
import posixpath
import socket
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from shim.daemon import proxy as proxies
from shim.daemon import tls
from shim.errors import Unreachable
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.daemon.find import Address
    from shim.daemon.proxy import Proxy


class Route:
    """How the daemon is reached: everything that comes from the environment, read once."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        """Read it.

        Args:
            address: where the daemon is.
            environ: the environment of the phase.

        Raises:
            Unreachable: the phase's client refuses something of it.

        """
        self.environ = environ
        self.socket = address.socket
        self.netloc = address.host
        self.base = quote(posixpath.normpath(f"/{address.path.lstrip('/')}")).rstrip("/")
        self.tls = tls.context_of(environ)
        self.proxy: Proxy | None = None
        self.host, self.port = "localhost", 0
        self.shown = address.url
        """The daemon's address, for a line."""
        if not self.socket:
            self.host, self.port = proxies.split_host(address.host, 443 if self.tls else 80)
            self.proxy = proxies.choose(address.host, self.tls is not None, environ)
            if self.proxy:
                self.shown += f" (through {self.proxy.shown})"

    def authorization(self) -> dict[str, str]:
        """Return the header by which a proxy knows us."""
        if self.proxy is None or not self.proxy.userinfo:
            return {}
        userinfo = self.proxy.userinfo + (b"" if b":" in self.proxy.userinfo else b":")
        return {"Proxy-Authorization": f"Basic {base64.b64encode(userinfo).decode()}"}

    @property
    def sends_to_proxy(self) -> bool:
        """Whether a proxy is asked for the whole URL; by TLS, and by SOCKS, it only passes bytes on."""
        return self.proxy is not None and self.tls is None and not self.proxy.scheme.startswith("socks")


class Connection(http.client.HTTPConnection):
    """A connection that is opened at the first request."""

    sock: socket.socket | None

    def __init__(self, route: Route, timeout: float) -> None:
        """Take how the daemon is reached, and the seconds that any step may take."""
        super().__init__(route.host or "localhost", route.port or None, timeout=timeout)
        self._route = route
        self._seconds = timeout

    def connect(self) -> None:
        """Open it.

        Raises:
            OSError: it can't be opened.

        """
        route, proxy = self._route, self._route.proxy
        if route.socket:
            self.sock = self._unix(route.socket)
        elif proxy is None:
            self.sock = socket.create_connection((route.host or "localhost", route.port), self._seconds)
        else:
            self.sock = self._through(proxy)
        if route.tls:
            self.sock = route.tls.wrap_socket(self.sock, server_hostname=route.host or "localhost")

    def _unix(self, path: str) -> socket.socket:
        end = time.monotonic() + self._seconds
        while True:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(self._seconds)
            try:
                opened.connect("\0" + path[1:] if path.startswith("@") else path)
            except OSError as problem:
                opened.close()
                if not isinstance(problem, BlockingIOError) or time.monotonic() > end:
                    raise
                time.sleep(0.05)  # its queue is full
            else:
                return opened

    def _through(self, proxy: Proxy) -> socket.socket:
        route = self._route
        opened = socket.create_connection((proxy.host or "localhost", proxy.port), self._seconds)
        try:
            if proxy.scheme.startswith("socks"):
                _ask_socks(opened, proxy, route.host or "localhost", route.port)
                return opened
            if proxy.scheme == "https":
                context = route.tls or tls.system_context(route.environ)
                opened = context.wrap_socket(opened, server_hostname=proxy.host)
            if route.tls:
                _ask_for_tunnel(opened, route)
        except BaseException:
            opened.close()
            raise
        return opened


def _ask_for_tunnel(opened: socket.socket, route: Route) -> None:
    target = f"[{route.host}]:{route.port}" if ":" in route.host else f"{route.host}:{route.port}"
    headers = [f"{name}: {value}" for name, value in route.authorization().items()]
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers]
    opened.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = opened.recv(1)  # what comes after the headers is no longer the proxy's
        if not byte or len(answer) > 65536:
            raise ConnectionResetError("the proxy closed the connection")
        answer += byte
    status = answer.partition(b"\r\n")[0].decode("latin-1")
    if status.split(" ")[1:2] != ["200"]:
        raise Unreachable(f"{route.shown} refused by the proxy: {plain(status)}", "fix the variable, or set NO_PROXY")


def _ask_socks(opened: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask a SOCKS5 proxy for a connection (https://www.rfc-editor.org/rfc/rfc1928, and rfc1929)."""
    userinfo = proxy.userinfo
    user, _, password = userinfo.partition(b":")
    opened.sendall(b"\x05\x02\x00\x02" if userinfo else b"\x05\x01\x00")
    chosen = _exactly(opened, 2)[1]
    if chosen == 2 and userinfo:
        opened.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        chosen = _exactly(opened, 2)[1]
    if chosen != 0:
        raise Unreachable(f"{proxy.shown} wants other credentials", "put user and password into it, or set NO_PROXY")
    name = host.encode("idna")
    opened.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2))
    _, status, _, kind = _exactly(opened, 4)
    if status != 0:
        raise Unreachable(f"{proxy.shown} refused to connect to {host}:{port} ({status})", "set NO_PROXY")
    _exactly(opened, (4 if kind == 1 else 16 if kind == 4 else _exactly(opened, 1)[0]) + 2)


def _exactly(opened: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        part = opened.recv(length - len(got))
        if not part:
            raise ConnectionResetError("the proxy closed the connection")
        got += part
    return got


def unreachable(problem: Exception, route: Route, seconds: float) -> Unreachable:
    """Return what went wrong with a connection, with the address or variable that it is about."""
    where = f"the daemon at {route.shown}"
    if isinstance(problem, Unreachable):
        return problem
    if isinstance(problem, TimeoutError | BlockingIOError):
        return Unreachable(f"{where} did not answer within {seconds:g} s", "raise it with --timeout")
    if isinstance(problem, ssl.SSLCertVerificationError):
        reason = plain(problem.verify_message or problem.reason)
        tip = "look at ca.pem in DOCKER_CERT_PATH and at the name in the daemon's certificate"
        return Unreachable(f"the certificate of {where} is not trusted: {reason}", tip)
    if isinstance(problem, ssl.SSLError):
        tip = "unset DOCKER_CERT_PATH if it does not use TLS, or fix cert.pem and key.pem there"
        return Unreachable(f"no TLS connection to {where}: {plain(problem.reason or problem)}", tip)
    if isinstance(problem, PermissionError):
        return Unreachable(f"permission denied on {plain(route.socket) or route.shown}", "allow it to the phase's user")
    if isinstance(problem, FileNotFoundError):
        return Unreachable(f"{plain(route.socket)} not found", "start the daemon, or mount its socket")
    if isinstance(problem, ConnectionRefusedError):
        return Unreachable(f"{where} refuses connections", "start the daemon, or pass its address with --docker-host")
    if isinstance(problem, socket.gaierror):
        host = route.proxy.host if route.proxy else route.host
        return Unreachable(f"host {plain(host)} of {where} not found", "fix DOCKER_HOST or --docker-host")
    if isinstance(problem, http.client.RemoteDisconnected | ConnectionError):
        return Unreachable(f"{where} closed the connection", "look at the daemon's log")
    if isinstance(problem, http.client.BadStatusLine) and "\x15\x03" in str(problem):
        return Unreachable(f"{where} uses TLS", "set DOCKER_CERT_PATH")
    if isinstance(problem, http.client.HTTPException):
        name = type(problem).__name__
        return Unreachable(f"{where} did not answer with HTTP: {plain(problem)} ({name})", "is it a Docker daemon?")
    return Unreachable(f"{where} cannot be asked: {plain(problem)}", "look at the daemon, or at its address")
