"""The docker CLI's daemon, which people's commands use: whatever the user's configuration holds, it is asked."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pathlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from shim.daemon.containers import Daemon
from shim.errors import PullFailed, Unreachable
from tests.support.build import SHIM, Build
from tests.support.certificates import certificates, serving
from tests.support.daemons import HAS, VERSION, Faulty, Tcp, close, text
from tests.support.layers import ID

NAME = "r.example/run:1"
HEADER = {"HttpHeaders": {"X-Mine": "yes", "X-Number": 1}}
FORMS: dict[str, Any] = {
    "none": None,
    "no JSON": "{",
    "a list": "[]",
    "null": "null",
    "not UTF-8": b"\xff",
    "auth null": {"auths": {"r.example": {"auth": None}}},
    "auth of no text": {"auths": {"r.example": {"auth": "/3g6/w=="}}},
    "auth without a colon": {"auths": {"r.example": {"auth": "eA=="}}},
    "an entry that is a string": {"auths": {"r.example": "x"}},
    "an entry that is null": {"auths": {"r.example": None}},
    "auths a list": {"auths": []},
    "proxies null": {"proxies": None},
    "a proxy that is a number": {"proxies": {"default": {"httpProxy": 5}}},
    "headers of numbers": {"HttpHeaders": {"X-Number": 1}},
    "headers a number": {"HttpHeaders": 1},
    "a helper that isn't installed": {"credsStore": "none"},
    "a helper that is a number": {"credHelpers": {"r.example": 5}},
    "a context that is a number": {"currentContext": 5},
}


class Asked:
    """A daemon that has the image, and what it was asked with."""

    def __init__(self, faulty: Callable[..., Faulty]) -> None:
        self.headers: dict[str, dict[str, str]] = {}
        self.url = faulty(self._answer).url

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0].rpartition("/")[2]
        self.headers[path] = dict(request.headers)
        if path == "version":
            VERSION(request)
        elif path == "create":
            text(200, b'{"status": "done"}\n')(request)
        else:
            HAS(request)


@pytest.fixture
def asked(faulty: Callable[..., Faulty]) -> Asked:
    return Asked(faulty)


@pytest.mark.parametrize("form", FORMS)
def test_in_any_form_it_can_be_asked_and_pulls(asked: Asked, tmp_path: pathlib.Path, form: str) -> None:
    value = FORMS[form]
    if value is not None:
        written = value if isinstance(value, (str, bytes)) else json.dumps(value)
        (tmp_path / "config.json").write_bytes(written if isinstance(written, bytes) else written.encode())
    warnings: list[str] = []
    daemon = Daemon(asked.url, 5, {"DOCKER_CONFIG": str(tmp_path)}, warnings.append)
    assert daemon.image_id(NAME) == ID
    assert warnings == []
    daemon.pull(NAME, lambda *_: None)
    assert json.loads(base64.b64decode(asked.headers["create"]["X-Registry-Auth"])) == {}
    fine = ("none", "proxies null", "a proxy that", "headers", "a context")
    assert len(warnings) == (not form.startswith(fine)), warnings
    assert all(f"{tmp_path}/config.json: " in line for line in warnings)


def test_headers_and_credentials_of_the_configuration_are_sent(asked: Asked, tmp_path: pathlib.Path) -> None:
    auths = {"auths": {"r.example": {"auth": base64.b64encode(b"me:word").decode()}, "other": {"auth": None}}}
    (tmp_path / "config.json").write_text(json.dumps({**HEADER, **auths}))
    daemon = Daemon(asked.url, 5, {"DOCKER_CONFIG": str(tmp_path)}, pytest.fail)
    daemon.pull(NAME, lambda *_: None)
    sent = asked.headers["create"]
    assert (sent["X-Mine"], "X-Number" in sent) == ("yes", False)
    assert json.loads(base64.b64decode(sent["X-Registry-Auth"])) == {"username": "me", "password": "word"}


@pytest.mark.parametrize("tls", [False, True])
def test_other_tools_certificates_and_a_proxy_are_not_for_a_daemon_on_loopback(
    tcp: Callable[..., Tcp], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, tls: bool
) -> None:
    authority = trustme.CA()
    server = tcp(serving(authority, "127.0.0.1", "localhost", clients=authority) if tls else None)
    if tls:
        monkeypatch.setenv("DOCKER_CERT_PATH", certificates(tmp_path / "mine", authority))
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "/etc/hostname")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        assert Daemon(url, 5, os.environ).image_id(NAME) == ID


def test_a_daemon_elsewhere_is_asked_through_the_proxy(
    tcp: Callable[..., Tcp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", tcp().url.replace("tcp://", "http://"))
    assert Daemon("tcp://daemon.example:2375", 5, os.environ).image_id(NAME) == ID
    monkeypatch.setenv("NO_PROXY", "daemon.example")
    with pytest.raises(Unreachable):
        Daemon("tcp://daemon.example:2375", 5, os.environ)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix://{there}/none.sock", "No such file or directory"),
        ("unix://{there}", "Connection refused"),
        ("unix://{there}/left.sock", "Connection refused"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("{closes}", "Remote end closed connection without response"),
    ],
    ids=["no socket", "a directory", "a socket that nobody serves", "no port", "closes"],
)
def test_why_it_can_not_be_asked_is_said_in_the_system_s_words(
    build: Build, faulty: Callable[..., Faulty], tmp_path: pathlib.Path, address: str, words: str
) -> None:
    """Not in those of the libraries above it, which show what they have in hand."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    url = address.format(there=tmp_path, closes=faulty(close, close).url)
    tip = "check the daemon, or pass its address with --docker-host"
    build.call(*SHIM, "check", "--image", "r:1", DOCKER_HOST=url).expect(
        code=1, out="", err=f"analyzed-shim: ERROR: {url}: the daemon can't be asked: {words} ({tip})\n"
    )


def test_a_daemon_that_breaks_off_a_pull_is_said_in_the_same_words(faulty: Callable[..., Faulty]) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        (close if "/images/create" in request.path else VERSION)(request)

    daemon = Daemon(faulty(answer).url, 5, os.environ)
    with pytest.raises(PullFailed) as caught:
        daemon.pull(NAME, lambda *_: None)
    assert str(caught.value) == "Remote end closed connection without response"


def test_what_it_answers_is_shown_where_it_is_no_error_of_the_system(
    build: Build, faulty: Callable[..., Faulty]
) -> None:
    refusing = text(503, b'{"message": "no space for you"}')
    ended = build.call(*SHIM, "check", "--image", "r:1", DOCKER_HOST=faulty(refusing, refusing).url)
    assert ended.code == 1
    assert "503" in ended.err
    assert "no space for you" in ended.err


def test_a_context_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text('{"currentContext": "lost"}')
    with pytest.raises(Unreachable, match="the docker context lost was not found"):
        Daemon(None, 5, {"DOCKER_CONFIG": str(tmp_path)})
