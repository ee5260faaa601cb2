"""Asking and pulling: a daemon that speaks HTTP on a real socket, and what the shim makes of its answers."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pathlib
import re
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from shim.daemon import client
from shim.daemon.client import Daemon
from shim.daemon.find import find
from shim.daemon.platform import own_platform
from shim.daemon.session import Session
from shim.errors import PullFailed, Unreachable
from tests.support.build import Build
from tests.support.certificates import certificates, serving
from tests.support.daemons import HAS, PING, Answer, Faulty, Tcp, ping, text
from tests.support.layers import ID, Layers
from tests.support.processes import program

Start = Callable[..., Faulty]
PLATFORM = "linux/arm/v7"
NAME = "r.example/run:1"


@contextlib.contextmanager
def daemon_at(url: str, **environ: str) -> Iterator[Daemon]:
    with contextlib.closing(Daemon(find(url, environ), 5, environ)) as daemon:
        yield daemon


def of_json(status: int, value: object) -> Answer:
    return text(status, json.dumps(value).encode())


def redirect(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(301)
    request.send_header("Location", "http://127.0.0.1:1/elsewhere")
    request.send_header("Content-Length", "0")
    request.end_headers()


def without_length(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n{"Id": "sha256:%s"}' % ID.encode())
    request.close_connection = True


# What an answer says.


@pytest.mark.parametrize(
    ("answer", "reference", "detail"),
    [
        (of_json(404, {"message": f"No such image: {NAME}"}), NAME, "r.example/run:1 is not in the daemon"),
        (of_json(404, {"message": f"{NAME}: image not known"}), NAME, "r.example/run:1 is not in the daemon"),
        (of_json(404, {}), NAME, "r.example/run:1 is not in the daemon"),
        (of_json(404, {"message": "it\x1b[2Jwent"}), NAME, "r.example/run:1 is not in the daemon: it\\x1b[2Jwent"),
        (
            of_json(400, {"message": "invalid reference format"}),
            NAME,
            f"{NAME} is not in the daemon: invalid reference format",
        ),
        (of_json(500, {"message": "unable to find"}), ID, f"{ID} is not in the daemon: unable to find"),
        (of_json(500, {"message": "x"}), f"sha256:{ID}", f"sha256:{ID} is not in the daemon: x"),
        (
            of_json(200, {"Id": f"sha256:{ID}", "Os": "", "RootFS": {}}),
            NAME,
            f"the daemon has {NAME} for another platform only",
        ),
        (
            of_json(200, {"Id": f"sha256:{ID}", "Os": "", "Architecture": "", "Config": None, "RootFS": {"Type": ""}}),
            NAME,
            f"the daemon has {NAME} for another platform only",
        ),
    ],
)
def test_an_image_that_the_daemon_lacks(faulty: Start, answer: Answer, reference: str, detail: str) -> None:
    with daemon_at(faulty(answer).url) as daemon:
        assert daemon.image(reference) == client.Image(id=None, detail=detail)


@pytest.mark.parametrize(
    "answer",
    [
        HAS,
        without_length,
        of_json(200, {"Id": ID}),
        of_json(200, {"Id": ID, "RootFS": {"Type": "layers", "Layers": []}}),
        of_json(200, {"Id": ID, "Os": "linux", "RootFS": {}}),
        of_json(200, {"Id": ID, "Os": "", "RootFS": {"Layers": ["sha256:1"]}}),
        text(200, json.dumps({"Id": ID}).encode(), "text/plain"),
    ],
)
def test_an_image_that_the_daemon_has(faulty: Start, answer: Answer) -> None:
    with daemon_at(faulty(answer).url) as daemon:
        assert daemon.image(NAME) == client.Image(id=ID, detail="")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (text(404, b"<html>Not Found</html>", "text/html"), "(404): <html>Not Found</html>"),
        (text(404, b"404 page not found\n", "text/plain"), "(404): 404 page not found"),
        (text(404, b"", "text/plain"), "(404): no reason given"),
        (of_json(404, {"message": "page not found"}), "(404): page not found"),
        (of_json(500, {"message": "the disk\x1b[31m\nis full"}), "(500): the disk\\x1b[31m is full"),
        (of_json(500, {"message": 7}), '(500): {"message": 7}'),
        (of_json(403, {"message": "authorization denied by plugin"}), "(403): authorization denied by plugin"),
        (text(502, b"<html>Bad Gateway</html>", "text/html"), "(502)"),
        (text(401, b""), "(401): no reason given"),
        (text(204, b""), "(204)"),
        (redirect, "redirects GET /images/r.example/run:1/json (301)"),
        (text(200, b"<html>hello</html>", "text/html"), "with no JSON object: <html>hello</html>"),
        (text(200, b"\xff\x00"), "with no JSON object"),
        (text(200, b"[" * 100_000), "with no JSON object"),
        (of_json(200, {"Id": "sha256:x\x1b"}), "an ID that is none"),
        (text(400, b"Client sent an HTTP request to an HTTPS server.\n", "text/plain"), "uses TLS"),
    ],
)
def test_an_answer_that_is_none_is_named(faulty: Start, answer: Answer, words: str) -> None:
    server = faulty(answer)
    with daemon_at(server.url) as daemon, pytest.raises(Unreachable, match=re.escape(words)) as caught:
        daemon.image(NAME)
    assert str(caught.value).startswith(f"the daemon at {server.url} ")
    assert str(caught.value).isprintable()
    assert caught.value.tip


def test_a_daemon_that_refuses_the_version_of_the_api(faulty: Start) -> None:
    reason = "client version 1.10 is too old. Minimum supported API version is 1.24"
    url = faulty(of_json(400, {"message": reason})).url
    refused = pytest.raises(Unreachable, match=f"refuses API version 1.10: {reason}")
    with daemon_at(url, DOCKER_API_VERSION="1.10") as daemon, refused as caught:
        daemon.image(NAME)
    assert caught.value.tip == "unset DOCKER_API_VERSION"


@pytest.mark.parametrize(
    ("wanted", "served", "path"),
    [
        ("", "1.41", "/v1.41"),
        ("1.30", "1.41", "/v1.30"),
        (" v1.30 ", "1.41", "/v1.30"),
        ("v", "1.41", "/v1.41"),
        ("1.30", None, "/v1.30"),
        ("", None, ""),
    ],
)
def test_the_version_is_the_variable_s_else_the_daemon_s(
    faulty: Start, wanted: str, served: str | None, path: str
) -> None:
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        HAS(request)

    with daemon_at(faulty(answer, ping(served)).url, DOCKER_API_VERSION=wanted) as daemon:
        daemon.image(NAME)
    assert asked == [f"{path}/images/{NAME}/json"]


@pytest.mark.parametrize("wanted", ["1", "1.x", "banana", "1.41.2", "../../x", "1.41\x1b[0m", "١.٤"])
def test_a_version_that_is_none(faulty: Start, wanted: str) -> None:
    with (
        pytest.raises(Unreachable, match=r"^DOCKER_API_VERSION=.* is not MAJOR\.MINOR$") as caught,
        daemon_at(faulty(HAS).url, DOCKER_API_VERSION=wanted),
    ):
        pass
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "reference", ["", "a b", "../version", "a//b", "a?b", "a#b", "a%2fb", "a\x1b", "ü", "./a", "a" * 2000]
)
def test_what_is_no_reference_is_not_asked_for(faulty: Start, reference: str) -> None:
    """It stands in a file that the build's user can write, and would become another question."""
    asked: list[str] = []
    with daemon_at(faulty(lambda request: asked.append(request.path)).url) as daemon:
        found = daemon.image(reference)
    assert (found.id, asked) == (None, [])
    assert found.detail.isprintable()


def test_one_connection_is_kept_and_a_closed_one_is_opened_again(faulty: Start) -> None:
    connections: list[socket.socket] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        connections.append(request.connection)
        request.close_connection = len(connections) == 3  # without saying so, as an idle limit does
        HAS(request)

    with daemon_at(faulty(answer).url) as daemon:
        for _ in range(6):
            assert daemon.image_id(NAME) == ID
            time.sleep(0.02)
    assert len(set(connections)) == 2


def test_the_platforms_that_are_there(faulty: Start) -> None:
    def manifest(architecture: str, variant: str = "", kind: str = "image", available: bool = True) -> object:
        platform = {"os": "linux", "architecture": architecture, "variant": variant}
        return {"Kind": kind, "Available": available, "ImageData": {"Platform": platform}}

    manifests = [
        *(manifest("arm64", "v8"), manifest("arm", "v7"), manifest("s390x", available=False)),
        *(manifest("x", kind="attestation"), 7, {"Kind": "image", "Available": True}),
    ]
    for value, expected in (
        ({"Os": "linux", "Architecture": "amd64"}, ["linux/amd64"]),
        ({"Os": "", "Architecture": "", "Manifests": manifests}, ["linux/arm64", "linux/arm/v7", ""]),
        ({"Os": "linux", "Architecture": "arm64", "Variant": "v8", "Manifests": manifests[:1]}, ["linux/arm64"]),
        ({"Os": ""}, []),
    ):
        with daemon_at(faulty(of_json(200, value)).url) as daemon:
            assert daemon.platforms_of(NAME) == expected


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("ppc64le", "linux/ppc64le"),
        ("s390x", "linux/s390x"),
        ("riscv64", "linux/riscv64"),
        ("loongarch64", "linux/loong64"),
    ],
)
def test_the_phase_s_platform_is_named_as_go_names_it(machine: str, platform: str) -> None:
    assert own_platform(machine) == platform


# Nothing that the phase doesn't look at.

CONFIGURATIONS: dict[str, bytes] = {
    "auth null": b'{"auths": {"r.example": {"auth": null}}}',
    "entry null": b'{"auths": {"r.example": null}}',
    "entry a string": b'{"auths": {"r.example": "x"}}',
    "entry a list": b'{"auths": {"r.example": []}}',
    "auths a list": b'{"auths": []}',
    "auth a number": b'{"auths": {"r.example": {"auth": 7}}}',
    "auth not base64": b'{"auths": {"r.example": {"auth": "!"}}}',
    "auth without colon": b'{"auths": {"r.example": {"auth": "%s"}}}' % base64.b64encode(b"me"),
    "password not UTF-8": b'{"auths": {"r.example": {"auth": "%s"}}}' % base64.b64encode(b"me:\xff"),
    "password a number": b'{"auths": {"r.example": {"username": "me", "password": 7}}}',
    "a list at the top": b"[]",
    "null at the top": b"null",
    "not JSON": b"{",
    "empty": b"",
    "not UTF-8": b"\xff",
    "too deep": b"[" * 100_000,
    "helpers a list": b'{"credHelpers": ["x"]}',
    "helper a number": b'{"credHelpers": {"r.example": 7}}',
    "helper a path": b'{"credHelpers": {"r.example": "../x"}}',
    "helper not installed": b'{"credHelpers": {"r.example": "none-such"}}',
    "store a list": b'{"credsStore": []}',
    "store not installed": b'{"credsStore": "none-such"}',
}
HARMLESS: dict[str, bytes] = {
    "none": b"{}",
    "proxies null": b'{"proxies": null}',
    "proxies a list": b'{"proxies": []}',
    "headers of numbers": b'{"HttpHeaders": {"a": 7}}',
    "auths null": b'{"auths": null, "credHelpers": null, "credsStore": null}',
    "another registry's": b'{"auths": {"other": null}, "credHelpers": {"other": 7}}',
    "currentContext": b'{"currentContext": "none-such"}',
}


@pytest.mark.parametrize("name", [*CONFIGURATIONS, *HARMLESS])
def test_no_question_reads_the_user_s_configuration(
    build: Build, layers: Layers, faulty: Start, tmp_path: pathlib.Path, name: str
) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_bytes({**CONFIGURATIONS, **HARMLESS}[name])
    layers.write(NAME, NAME)
    ended = build.run(build.phase(), options=("--daemon",), DOCKER_HOST=faulty(HAS).url)
    ended.expect(code=0, outcome="prevented", reference=ID)
    assert ended.err.count("\n") == 1, ended.err


@pytest.mark.parametrize(
    "environ",
    [
        {"DOCKER_TLS_VERIFY": "1"},
        {"DOCKER_TLS_VERIFY": "0"},
        {"DOCKER_TLS_VERIFY": "banana", "DOCKER_TLS": "1"},
        {"REQUESTS_CA_BUNDLE": "/nowhere", "CURL_CA_BUNDLE": "/nowhere", "SSL_CERT_FILE": "/nowhere"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"},
        {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "", "no_proxy": ""},
        {"DOCKER_CONTEXT": "none-such"},
        {"DOCKER_CONFIG": "/nowhere"},
        {"XDG_RUNTIME_DIR": "/nowhere", "HOME": "/nowhere"},
        {"CNB_REGISTRY_AUTH": "banana"},
        {"DOCKER_CERT_PATH": ""},
    ],
)
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_no_other_variable_keeps_it_from_asking(
    faulty: Start, tcp: Callable[..., Tcp], environ: dict[str, str], kind: str
) -> None:
    url = faulty(HAS).url if kind == "unix" else tcp().url
    with daemon_at(url, **environ) as daemon:
        assert daemon.image_id(NAME) == ID


def test_http_by_a_proxy(tcp: Callable[..., Tcp]) -> None:
    """It is asked for the whole URL, with what its own address says of user and password."""
    seen: list[tuple[str, str | None, str | None]] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append((request.path, request.headers["Host"], request.headers["Proxy-Authorization"]))
        (PING if request.path.endswith("/_ping") else HAS)(request)

    proxy = tcp()
    proxy.server.RequestHandlerClass.do_GET = answer  # type: ignore[attr-defined]
    address = proxy.url.replace("tcp://", "http://user:w%20d@")
    with daemon_at("tcp://daemon.example:2375/base", HTTP_PROXY=address) as daemon:
        assert daemon.image_id(NAME) == ID
        assert "(through HTTP_PROXY=http://***@127.0.0.1:" in daemon.where
    key = f"Basic {base64.b64encode(b'user:w d').decode()}"
    assert seen == [
        ("http://daemon.example:2375/base/_ping", "daemon.example:2375", key),
        (f"http://daemon.example:2375/base/v1.41/images/{NAME}/json", "daemon.example:2375", key),
    ]


class Proxy:
    """A proxy that passes bytes on, by CONNECT or by SOCKS5, and remembers what it was asked."""

    def __init__(self, target: int, refuses: bool = False) -> None:
        self.asked: list[bytes] = []
        self._target = target
        self._refuses = refuses
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as daemon:
            first = client.recv(4096)
            self.asked.append(first)
            if first.startswith(b"CONNECT"):
                client.sendall(b"HTTP/1.1 403 No\x1b\r\n\r\n" if self._refuses else b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n")
            else:
                if b"\x02" in first[2:]:
                    client.sendall(b"\x05\x02")
                    self.asked.append(client.recv(4096))
                    client.sendall(b"\x01\x00")
                else:
                    client.sendall(b"\x05\x00")
                self.asked.append(client.recv(4096))
                client.sendall(b"\x05" + bytes([self._refuses * 2]) + b"\x00\x01" + bytes(6))
            while not self._refuses:
                ready, _, _ = select.select([client, daemon], [], [])
                for one in ready:
                    data = one.recv(4096)
                    if not data:
                        return
                    (daemon if one is client else client).sendall(data)

    def close(self) -> None:
        self._listening.close()


def test_tls_through_a_proxy(tcp: Callable[..., Tcp], tmp_path: pathlib.Path) -> None:
    authority = trustme.CA()
    daemon_ = tcp(serving(authority, "daemon.example", clients=authority))
    environ = {"DOCKER_CERT_PATH": certificates(tmp_path / "mine", authority), "DOCKER_TLS_VERIFY": "1"}
    for refuses in (False, True):
        with contextlib.closing(Proxy(daemon_.server.server_address[1], refuses)) as proxy:
            environ["HTTPS_PROXY"] = f"http://user:word@127.0.0.1:{proxy.port}"
            if refuses:
                with pytest.raises(Unreachable, match=r"refused by the proxy: HTTP/1\.1 403 No") as caught:
                    Daemon(find("tcp://daemon.example:2376", environ), 5, environ)
                assert "word" not in str(caught.value)
                assert str(caught.value).isprintable()
            else:
                with daemon_at("tcp://daemon.example:2376", **environ) as daemon:
                    assert daemon.image_id(NAME) == ID
            key = base64.b64encode(b"user:word")
            assert proxy.asked[0].startswith(b"CONNECT daemon.example:2376 HTTP/1.1\r\n")
            assert b"Proxy-Authorization: Basic " + key in proxy.asked[0]


@pytest.mark.parametrize("userinfo", ["", "user:word@"])
@pytest.mark.parametrize("refuses", [False, True])
def test_socks(tcp: Callable[..., Tcp], userinfo: str, refuses: bool) -> None:
    target = tcp().server.server_address[1]
    with contextlib.closing(Proxy(target, refuses)) as proxy:
        environ = {"HTTP_PROXY": f"socks5://{userinfo}127.0.0.1:{proxy.port}"}
        if refuses:
            with pytest.raises(Unreachable, match=r"refused to connect to daemon\.example:2375") as caught:
                Daemon(find("tcp://daemon.example:2375", environ), 5, environ)
            assert "word" not in str(caught.value)
        else:
            with daemon_at("tcp://daemon.example:2375", **environ) as daemon:
                assert daemon.image_id(NAME) == ID
        assert proxy.asked[-1] == b"\x05\x01\x00\x03\x0edaemon.example\x09\x47"
        assert (b"\x01\x04user\x04word" in proxy.asked) == bool(userinfo)


@pytest.mark.parametrize("url", ["http://user:word@127.0.0.1:1", "ssh://user:word@h", "fd://user:word@h:1"])
def test_a_password_where_go_takes_it_for_the_host(url: str) -> None:
    with pytest.raises(Unreachable) as caught:
        Daemon(find(url, {}), 5, {})
    assert "word" not in str(caught.value) + caught.value.tip


# TLS.

OTHER_KEY = trustme.CA().issue_cert("x").private_key_pem.bytes()
ENCRYPTED = (
    b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
    + b"0" * 32
    + b"\n\n"
    + base64.b64encode(b"x" * 64)
    + b"\n-----END RSA PRIVATE KEY-----\n"
)
"""A key for which OpenSSL would ask the terminal."""


def test_tls_is_verified_if_the_variable_says_so(tcp: Callable[..., Tcp], tmp_path: pathlib.Path) -> None:
    right, wrong = trustme.CA(), trustme.CA()
    mine = certificates(tmp_path / "mine", right)
    url = tcp(serving(wrong, "other.example", clients=right)).url
    with daemon_at(url, DOCKER_CERT_PATH=mine) as daemon:
        assert daemon.image_id(NAME) == ID
    with (
        pytest.raises(Unreachable, match=r"certificate of the daemon at .* is not trusted"),
        daemon_at(url, DOCKER_CERT_PATH=mine, DOCKER_TLS_VERIFY="0"),
    ):
        pass


def test_the_system_s_authorities_count_too(tcp: Callable[..., Tcp], tmp_path: pathlib.Path) -> None:
    """As in Go, which has variables of its own for them."""
    system, other = trustme.CA(), trustme.CA()
    mine = certificates(tmp_path / "mine", other)
    url = tcp(serving(system, "127.0.0.1", clients=other)).url
    (tmp_path / "directory").mkdir()
    system.cert_pem.write_to_path(str(tmp_path / "file.pem"))
    system.cert_pem.write_to_path(str(tmp_path / "directory" / "any-name"))
    (tmp_path / "directory" / "junk").write_bytes(b"\xff")
    for variable, value in (("SSL_CERT_FILE", "file.pem"), ("SSL_CERT_DIR", "directory")):
        environ = {"DOCKER_CERT_PATH": mine, "DOCKER_TLS_VERIFY": "1", variable: str(tmp_path / value)}
        with daemon_at(url, **environ) as daemon:
            assert daemon.image_id(NAME) == ID


def test_a_server_s_own_certificate_can_be_its_authority(tcp: Callable[..., Tcp], tmp_path: pathlib.Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.configure_cert(context)
    mine = certificates(tmp_path / "mine", authority)
    server.cert_chain_pems[0].write_to_path(f"{mine}/ca.pem")
    with daemon_at(tcp(context).url, DOCKER_CERT_PATH=mine, DOCKER_TLS_VERIFY="1") as daemon:
        assert daemon.image_id(NAME) == ID


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: os.unlink(path / "cert.pem"), "cert.pem in DOCKER_CERT_PATH=.*: not found"),
        (lambda path: os.unlink(path / "key.pem"), "key.pem in DOCKER_CERT_PATH=.*: not found"),
        (lambda path: os.unlink(path / "ca.pem"), "ca.pem in DOCKER_CERT_PATH=.*: not found"),
        (lambda path: (path / "ca.pem").write_text("junk"), "ca.pem in DOCKER_CERT_PATH="),
        (lambda path: (path / "key.pem").write_text("junk"), "cert.pem and key.pem in DOCKER_CERT_PATH="),
        (lambda path: (path / "cert.pem").write_bytes(b""), "cert.pem and key.pem in DOCKER_CERT_PATH="),
        (lambda path: (path / "key.pem").write_bytes(OTHER_KEY), "cert.pem and key.pem in DOCKER_CERT_PATH="),
        (lambda path: (path / "key.pem").write_bytes(ENCRYPTED), "cert.pem and key.pem in DOCKER_CERT_PATH="),
    ],
)
def test_a_certificate_that_can_not_be_used_is_named(
    faulty: Start, tmp_path: pathlib.Path, change: Callable[[pathlib.Path], Any], words: str
) -> None:
    """The phase's client refuses it too, beside a Unix socket as well."""
    mine = pathlib.Path(certificates(tmp_path / "mine", trustme.CA()))
    change(mine)
    with (
        pytest.raises(Unreachable, match=words) as caught,
        daemon_at(faulty(HAS).url, DOCKER_CERT_PATH=str(mine), DOCKER_TLS_VERIFY="1"),
    ):
        pass
    assert "unset DOCKER_CERT_PATH" in caught.value.tip


def test_tls_and_plain_confused_is_named(faulty: Start, tcp: Callable[..., Tcp], tmp_path: pathlib.Path) -> None:
    mine = certificates(tmp_path / "mine", trustme.CA())
    with (
        pytest.raises(Unreachable, match="no TLS connection to the daemon at tcp"),
        daemon_at(tcp().url, DOCKER_CERT_PATH=mine),
    ):
        pass
    with (
        pytest.raises(Unreachable, match="no TLS connection to the daemon at unix"),
        daemon_at(faulty(HAS).url, DOCKER_CERT_PATH=mine),
    ):
        pass


# Pulling.


class Pulled:
    """A daemon that pulls, and what it was asked."""

    def __init__(self, start: Start, steps: bytes, found: Answer = HAS) -> None:
        self.asked: list[dict[str, str]] = []
        self.auth: dict[str, str] = {}

        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            if request.command == "POST":
                self.asked.append(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.path).query)))
                header = request.headers["X-Registry-Auth"]
                self.auth = json.loads(base64.urlsafe_b64decode(header)) if header else {}
                text(200, steps)(request)
            else:
                found(request)

        self.url = start(answer).url
        self.warnings: list[str] = []
        self.told: list[tuple[str, int, int]] = []

    def pull(self, name: str = NAME, **environ: str) -> str | None:
        with daemon_at(self.url, **environ) as daemon:
            return daemon.pull(name, PLATFORM, lambda *step: self.told.append(step), self.warnings.append).id


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("run", "run", "latest"),
        ("r.example:5000/run", "r.example:5000/run", "latest"),
        ("r.example:5000/run:1", "r.example:5000/run", "1"),
        (f"run@sha256:{ID}", "run", f"sha256:{ID}"),
        (f"r.example:5000/run:1@sha256:{ID}", "r.example:5000/run", f"sha256:{ID}"),
    ],
)
def test_one_tag_is_pulled_for_the_phase_s_platform(faulty: Start, name: str, repository: str, tag: str) -> None:
    pulled = Pulled(faulty, b'{"status": "done"}\r\n')
    assert pulled.pull(name, HOME="/nowhere") == ID
    assert pulled.asked == [{"fromImage": repository, "tag": tag, "platform": PLATFORM}]
    assert (pulled.auth, pulled.warnings) == ({}, [])


def test_progress_of_any_form_is_survived(faulty: Start) -> None:
    steps = (
        b'{"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}\r\n'
        b'{"id": "b", "progressDetail": {"current": null, "total": null}}\n'
        b'{"id": null, "progressDetail": null}{"status": null}\n\n7\n'
        b'{"id": "c\\u001b[2J", "progressDetail": {"current": "x", "total": 1.5}}\n'
        b'{"id": "d", "progressDetail": {"current": -1}, "error": null, "errorDetail": null}'
    )
    pulled = Pulled(faulty, steps)
    assert pulled.pull(HOME="/nowhere") == ID
    assert pulled.told[:2] == [("a", 1, 2), ("b", 0, 0)]
    assert pulled.told[-2:] == [("c\\x1b[2J", 0, 0), ("d", 0, 0)]


@pytest.mark.parametrize(
    ("steps", "found", "words"),
    [
        (b'{"error": "pull access denied\x1b[31m for r"}', HAS, "pull access denied"),
        (b'{"errorDetail": {"message": "manifest unknown"}}', HAS, "manifest unknown"),
        (b"banana", HAS, "Expecting value"),
        (
            b'{"status": "Status: Downloaded newer image"}',
            of_json(404, {"message": "No such image"}),
            "the daemon finished the pull, but r.example/run:1 is not in the daemon (it said: Status: Downloaded",
        ),
        (b"", of_json(404, {"message": "disk on fire"}), "is not in the daemon: disk on fire (it said: nothing)"),
        (b'{"status": "x"}', of_json(200, {"Id": ID, "Os": ""}), "for another platform only"),
        (b'{"status": "x"}', text(500, b'{"message": "out of order"}'), "out of order"),
    ],
)
def test_a_pull_that_fails_keeps_the_daemon_s_reason(faulty: Start, steps: bytes, found: Answer, words: str) -> None:
    with pytest.raises(PullFailed, match=re.escape(words)) as caught:
        Pulled(faulty, steps.replace(b"\x1b", b"\\u001b"), found).pull(HOME="/nowhere")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_credentials_that_can_not_be_read_are_one_line_and_the_pull_goes_on(
    faulty: Start, tmp_path: pathlib.Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(CONFIGURATIONS[name])
    pulled = Pulled(faulty, b'{"status": "done"}')
    assert pulled.pull(DOCKER_CONFIG=str(tmp_path), PATH=os.environ["PATH"]) == ID
    assert pulled.auth == {}
    (line,) = pulled.warnings
    assert str(config) in line
    assert line.isprintable()
    for key in ("auths", "credHelpers", "credsStore"):
        assert (key in line) == (f'"{key}"'.encode() in CONFIGURATIONS[name]), line
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_a_pull_does_not_need_of_the_configuration_is_no_line(
    faulty: Start, tmp_path: pathlib.Path, name: str
) -> None:
    (tmp_path / "config.json").write_bytes(HARMLESS[name])
    pulled = Pulled(faulty, b'{"status": "done"}')
    assert pulled.pull(DOCKER_CONFIG=str(tmp_path)) == ID
    assert pulled.warnings == []


ME = base64.b64encode(b"me:s:3").decode()
MINE = {"username": "me", "password": "s:3"}


@pytest.mark.parametrize(
    ("config", "name", "sent"),
    [
        ({"auths": {"r.example": {"auth": ME}}}, NAME, MINE),
        ({"auths": {"https://r.example/v1/": {"auth": ME}}}, NAME, MINE),
        ({"auths": {"r.example": {"username": "me", "password": "s:3"}}}, NAME, MINE),
        ({"auths": {"r.example": {"identitytoken": "t"}}}, NAME, {"identitytoken": "t"}),
        ({"auths": {"r.example": {}}}, NAME, {}),
        ({"auths": {"r.example:5000": {"auth": ME}}}, "r.example:5000/run:1", MINE),
        ({"auths": {"r.example": {"auth": ME}}}, "r.example:5000/run:1", {}),
        *(
            ({"auths": {key: {"auth": ME}}}, name, MINE)
            for key in ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io")
            for name in ("run", "library/run:1", "docker.io/library/run", "index.docker.io/run")
        ),
        ({"auths": {"localhost": {"auth": ME}}}, "localhost/run", MINE),
    ],
)
def test_the_user_s_credentials_for_the_registry(
    faulty: Start, tmp_path: pathlib.Path, config: object, name: str, sent: object
) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    pulled = Pulled(faulty, b'{"status": "done"}')
    pulled.pull(name, HOME=str(tmp_path))
    assert (pulled.auth, pulled.warnings) == (sent, [])


def helper(directory: pathlib.Path, script: str) -> str:
    """Install a credential helper, and return the PATH that has it."""
    path = program(directory / "docker-credential-mine", f"#!/bin/sh\n{script}\n")
    return f"{path.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("script", "sent", "words"),
    [
        (
            'printf \'{"Username": "%s", "Secret": "x"}\' "$(cat)-$1"',
            {"username": "r.example-get", "password": "x"},
            "",
        ),
        ('echo \'{"Username": "<token>", "Secret": "t"}\'', {"identitytoken": "t"}, ""),
        ("echo credentials not found in native keychain; exit 1", {}, ""),
        ("echo no keyring >&2; exit 1", {}, ""),
        ("echo keyring locked; exit 1", {}, "failed: keyring locked"),
        ("echo banana", {}, "did not answer with a JSON object"),
        ("echo '[]'", {}, "did not answer with a JSON object"),
        ("printf '\\377'", {}, "did not answer with a JSON object"),
        ("echo '{}'", {}, "did not answer with Username and Secret"),
        ('echo \'{"Username": 7, "Secret": null}\'', {}, "did not answer with Username and Secret"),
        ("yes", {}, "answered too much"),
        ("exec sleep 60", {}, "did not answer within"),
        ("sleep 60 & exit 0", {}, "did not answer within"),
        ("exec >&-; exec sleep 60", {}, "did not end within"),
    ],
)
@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_credential_helper(
    faulty: Start,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    sent: dict[str, str],
    words: str,
    key: str,
) -> None:
    from shim.daemon import credentials

    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.5)
    value = {"r.example": "mine"} if key == "credHelpers" else "mine"
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    pulled = Pulled(faulty, b'{"status": "done"}')
    began = time.monotonic()
    path = helper(tmp_path, script)
    monkeypatch.setenv("PATH", path)
    assert pulled.pull(DOCKER_CONFIG=str(tmp_path), PATH=path) == ID
    assert time.monotonic() - began < 5
    assert {name: value for name, value in pulled.auth.items() if name != "serveraddress"} == sent
    if words:
        (line,) = pulled.warnings
        assert words in line
        assert f"{tmp_path}/config.json" in line
        assert key in line
    else:
        assert pulled.warnings == []


@pytest.mark.parametrize(
    ("auth", "name", "sent", "warned"),
    [
        ({"r.example": f"Basic {ME}"}, NAME, MINE, False),
        ({"r.example": f"basic {ME}"}, NAME, MINE, False),
        ({"r.example": "Bearer tok"}, NAME, {"registrytoken": "tok"}, False),
        ({"r.example": "X-Identity tok"}, NAME, {"identitytoken": "tok"}, False),
        ({"index.docker.io": f"Basic {ME}"}, "run", MINE, False),
        ({"https://index.docker.io/v1/": f"Basic {ME}"}, "library/run", MINE, False),
        ({"other": "Bearer tok"}, NAME, {}, False),
        ({"r.example": "Basic !!"}, NAME, {}, True),
        ({"r.example": None}, NAME, {}, True),
        ({"r.example": 7}, NAME, {}, True),
        ({"r.example": "Digest x"}, NAME, {}, True),
        (["r.example"], NAME, {}, True),
    ],
)
def test_the_build_s_own_credentials(faulty: Start, auth: object, name: str, sent: object, warned: bool) -> None:
    pulled = Pulled(faulty, b'{"status": "done"}')
    pulled.pull(name, CNB_REGISTRY_AUTH=json.dumps(auth), HOME="/nowhere")
    assert pulled.auth == sent
    assert [("CNB_REGISTRY_AUTH" in line, "tok" in line or ME in line) for line in pulled.warnings] == (
        [(True, False)] if warned else []
    )


# One time limit.


def test_all_answers_share_the_time_limit(faulty: Start) -> None:
    def slow(request: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(0.7)
        HAS(request)

    server = faulty(slow)
    session = Session(find(server.url, {}), 2, {})
    began = time.monotonic()
    session.close()  # nothing was asked yet
    assert session.ask(lambda daemon: daemon.image_id(NAME)) == ID
    assert [session.answered] == [True]
    assert session.ask(lambda daemon: daemon.image_id(NAME)) == ID
    with pytest.raises(Unreachable, match=f"the daemon at {server.url} did not answer within 2 s") as caught:
        session.ask(lambda daemon: daemon.image_id(NAME))
    assert caught.value.tip == "raise it with --timeout"
    assert not session.answered
    assert session.about() is None
    assert 2 <= time.monotonic() - began < 2 + 2
    late = [thread for thread in threading.enumerate() if thread.name.endswith("(_run)")]
    assert late
    for thread in late:  # what was asked too late still gets its answer
        thread.join(60)
    session.close()


def test_the_thread_takes_no_signal(faulty: Start) -> None:
    """Whoever waits for the phase is to get it."""
    masks: list[int] = []

    def question(_: Daemon) -> None:
        status = pathlib.Path("/proc/thread-self/status").read_text()
        masks.append(int(status.split("SigBlk:")[1].split()[0], 16))

    before = pathlib.Path("/proc/thread-self/status").read_text().split("SigBlk:")[1].split()[0]
    with contextlib.closing(Session(find(faulty(HAS).url, {}), 5, {})) as session:
        session.ask(question)
    for number in (1, 2, 3, 13, 14, 15, 17, 20, 28):
        assert masks[0] >> (number - 1) & 1, number
    assert pathlib.Path("/proc/thread-self/status").read_text().split("SigBlk:")[1].split()[0] == before


def test_a_fault_of_our_own_is_raised_to_who_waits(faulty: Start) -> None:
    def question(_: Daemon) -> None:
        raise ZeroDivisionError

    with contextlib.closing(Session(find(faulty(HAS).url, {}), 5, {})) as session, pytest.raises(ZeroDivisionError):
        session.ask(question)
