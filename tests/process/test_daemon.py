"""The daemon that a phase asks, on a real socket: what the shim asks it, and what it makes of any answer."""

from __future__ import annotations

import datetime
import gc
import json
import os
import pathlib
import socket
import ssl
import time
import types
import warnings
from collections.abc import Callable, Iterator

import pytest
import trustme

from shim import daemon
from shim.demo.lifecycle import ARCHITECTURE
from shim.policy import Found
from tests.support import daemons
from tests.support.build import SHIM, Build, Ran
from tests.support.daemons import HAS, LACKS, Answer, Faulty, Request, image, raw, serving, text
from tests.support.layers import ID

Start = Callable[..., Faulty]
Ask = Callable[..., Ran]
Look = Callable[..., Found]
OTHER = "arm64" if ARCHITECTURE == "amd64" else "amd64"
OWN = f"linux/{ARCHITECTURE}"
DIGEST = f"r@sha256:{ID}"
SECRET = "s3cret"


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Start]:
    """Start a daemon that answers so."""
    started: list[Faulty] = []

    def start(image: Answer = HAS, version: Answer = daemons.VERSION, tcp: ssl.SSLContext | bool = False) -> Faulty:
        started.append(Faulty(tmp_path / f"{len(started)}.sock", image, version, tcp))
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


@pytest.fixture
def ask(build: Build) -> Ask:
    """Run a restorer of a known daemon build, which says nothing itself, and compare what became of it."""
    phase = build.phase()
    build.unmeasured()  # which may take longer than a daemon that hangs

    def run(url: str, outcome: str, *words: str, options: tuple[str, ...] = (), **environ: str) -> Ran:
        build.layers.write("r:1", "r:1")
        ended = build.run(phase, options=("--daemon", *options), **{"DOCKER_HOST": url, **environ})
        ended.expect(code=0, outcome=outcome, reference=ID if outcome == "prevented" else "r:1", err="")
        assert (ended.out.count("\n"), ended.out[:-1].isprintable()) == (1, True), ended.out
        assert len(ended.out) < 500 and all(word in ended.out for word in words), ended.out
        assert SECRET not in ended.out + json.dumps(ended.report)
        return ended

    return run


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Ask for r:1 in this process, with variables of the phase that are the process's, too, and compare the answer."""

    def run(url: str, state: str, words: str = "", timeout: float = 5, **variables: str) -> Found:
        with monkeypatch.context() as patch, warnings.catch_warnings():
            for name, value in {"HOME": "/", **os.environ, **variables}.items():
                patch.setenv(name, value)  # and so puts it back
            found = daemon.Daemon(url, timeout, variables).look("r:1")
            gc.collect()  # as long as no connection that is left open is an error
        assert (found.state, words in found.detail) == (state, True), found
        assert "".join(found).isprintable() and SECRET not in found.detail and len(found.detail) < 350, found
        assert found.image_id == (ID if state == "has" else "")
        return found

    return run


# What it answers.


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (HAS, "prevented", ID[:12]),
        (LACKS, "not-in-daemon", "does not have r:1; run docker pull r:1 before the export"),
        (image(architecture=OTHER), "not-in-daemon", f"r:1 for {OWN}, only for linux/{OTHER}; run docker pull --platf"),
        (image(system="", architecture=""), "not-in-daemon", f"r:1 for {OWN}; run docker pull --platform {OWN} r:1 "),
        (image(architecture="\x1b[31m\n::set-output"), "not-in-daemon", "linux/\\x1b[31m ::set-output"),
        (image("sha256:banana\x1b"), "kept-name", "answered with the image ID banana\\x1b"),
        (text(500, b'{"message": "out\\u001b[2J\\nof order of s3cret@h"}'), "kept-name", "out\\x1b[2J of order of ***"),
    ],
)
def test_what_its_answer_becomes(ask: Ask, start: Start, answer: Answer, outcome: str, words: str) -> None:
    server = start(answer)
    ask(server.url, outcome, words)
    assert server.asked == ["GET /version", "GET /v1.41/images/r:1/json"]


def test_what_its_answer_says(look: Look, start: Start) -> None:
    for answer in (text(404, b"<html>Not Found</html>", "text/html"), text(404, b'{"message": "\\u001b[2J"}')):
        assert look(start(answer).url, "lacks") == Found("lacks")
    assert look(start(image(ID)).url, "has") == Found("has", ID)
    assert look(start(image(system="windows")).url, "lacks") == Found("lacks", "", "", OWN, f"windows/{ARCHITECTURE}")
    for bad in (f"sha256:{ID[:12]}", f"sha512:{ID}", ID.upper(), ""):
        look(start(image(bad)).url, "silent", f"answered with the image ID {bad.removeprefix('sha256:')}")
    for answer in (image(None), image(7), text(200, b'{"Id": "sha256:%s"}' % ID.encode()), text(200, b"[1, 2]")):
        look(start(answer).url, "silent")


HANGS = "no answer within 0.5 s; --timeout raises it"
FAULTS: dict[str, tuple[Answer, str]] = {
    "a page": (text(502, b"<html>bad gateway</html>" * 100, "text/html"), "bad gateway"),
    "too deep": (text(200, b"[" * 100_000), ""),
    "a long number": (text(200, b'{"Id": %s}' % (b"9" * 5000)), ""),
    "no HTTP": (raw(b"SSH-2.0-banana\r\n"), ""),
    "half an answer": (raw(daemons.HALF), ""),
    "a secret": (text(500, b'{"message": "tcp://me:s3cret@h:1 and https://me:s3cret@h"}'), "*** and ***"),
    "closes": (raw(b""), ""),
    "silent": (raw(b"", 30), HANGS),
    "silent in the middle": (raw(daemons.HALF, 30), HANGS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_the_time_limit_at_most(look: Look, start: Start, fault: str) -> None:
    answer, words = FAULTS[fault]
    for server, said in ((start(answer), words), (start(HAS, answer), HANGS if words == HANGS else "")):
        began = time.monotonic()
        assert look(server.url, "silent", said, timeout=0.5).detail.startswith(f"{server.url}: ")
        assert time.monotonic() - began < 0.5 + 4


def test_the_time_limit_is_the_user_s(ask: Ask, start: Start) -> None:
    def slow(request: Request) -> None:
        time.sleep(1)
        HAS(request)

    ask(start(slow).url, "prevented", options=("--timeout=1.8",))
    began = time.monotonic()
    ask(start(FAULTS["silent"][0]).url, "kept-name", "no answer within 1.2 s", ANALYZED_SHIM_TIMEOUT="1.2")
    assert 1.2 <= time.monotonic() - began < 1.2 + 4


@pytest.mark.parametrize("answer", [FAULTS["a secret"][0], image(architecture=OTHER), image("", "", "")])
def test_no_exporter_minds_it(build: Build, start: Start, answer: Answer) -> None:
    """On an image for another platform the app would stand, and exit 0 say nothing."""
    is_lacked = answer is not FAULTS["a secret"][0]
    build.layers.write(DIGEST, "r:1")
    ended = build.run(build.phase("exporter", exits=5), "-daemon", "app", DOCKER_HOST=start(answer).url)
    ended.expect(code=5, err="", outcome="not-in-daemon" if is_lacked else "daemon-unknown", reference=DIGEST)
    assert (ended.out.count("\n"), SECRET in ended.out) == (1, False)
    assert (f"docker pull --platform {OWN} r:1" in ended.out) is is_lacked


@pytest.mark.parametrize("machine", ["x86_64 amd64", "aarch64 arm64", "armv7l arm", "i686 386", "s390x s390x"])
def test_a_machine_has_go_s_name(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    name, go_s = machine.split()
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine=name))
    assert daemon.own_platform() == f"linux/{go_s}"


# Whom it asks, and by what.

NOBODY = {
    "no such file or directory": ["unix://{}/no-such.sock"],
    "connection refused": ["unix://{}/dead", "unix://{}/file", "unix://{}", "tcp://127.0.0.1:1"],
    "too long": [f"unix:///{'x' * 200}"],
    "127.0.0.1:1": ["tcp://127.0.0.1:1?token=s3cret", "tcp://user:s3cret@127.0.0.1:1", "user:s3cret@127.0.0.1:1"],
    "": ["http://user:s3cret@127.0.0.1:1", "ssh://user:s3cret@127.0.0.1", "tcp://127.0.0.1:99999", "unix://{}/full"],
}
NOBODY[""] += ["tcp://", "fd://", "npipe://x", "banana", "tcp://h", "tcp://[::1"]


def test_where_nobody_answers(ask: Ask, look: Look, build: Build) -> None:
    there = build.directory
    (there / "file").write_text("")
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(5)]
    for one, name in zip(sockets[:3], ("dead", "closed", "full"), strict=True):
        one.bind(str(there / name))
        if name != "dead":
            one.listen(0)
    (there / "closed").chmod(0)
    for one in sockets[3:]:
        one.setblocking(False)
        one.connect_ex(str(there / "full"))
    for words, urls in NOBODY.items():
        for url in urls:
            look(url.format(there), "silent", words, timeout=0.5)
    for url in ("tcp://user:s3cret@127.0.0.1:1", "ssh://user:s3cret@127.0.0.1", "banana", "\x1b"):
        ask(url, "kept-name")
        ask("unix:///x", "kept-name", options=("--docker-host", url))
    bound = () if os.getuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    command = (*bound, *SHIM, "run", "--daemon", "--", str(there / "restorer"))
    ended = build.call(*command, DOCKER_HOST=f"unix://{there}/closed").expect(outcome="kept-name")
    assert "permission denied" in ended.out
    for one in sockets:
        one.close()


def test_no_other_daemon_is_asked(look: Look, start: Start) -> None:
    """Moby's client follows no redirect of a question, and so a daemon can't say who else is to be asked."""
    other = start(tcp=True)
    to = text(307, b"", Location=f"{other.url.replace('tcp:', 'http:')}/v1.41/images/r:1/json")
    for server in (start(to, tcp=True), start(to), start(HAS, to)):
        look(server.url, "silent")
    assert other.asked == []


BAD: list[object] = [None, [], "x", {"r": 7}, {"r": {"auth": None}}, {"r": {"auth": "!"}}]
CONFIGURATIONS: list[object] = [
    *({key: bad} for key in ("auths", "proxies", "HttpHeaders", "credHelpers", "credsStore") for bad in BAD),
    {"proxies": {"default": {"httpProxy": "http://127.0.0.1:1"}}, "HttpHeaders": {"a": "b\r\nc"}, "currentContext": 7},
    *(*BAD[:4], b"{", b"", b"\xff", b"[" * 100_000, {"currentContext": "none-such"}, {"currentContext": "foo"}),
]


def test_the_user_s_configuration_is_not_looked_at(ask: Ask, look: Look, build: Build, start: Start) -> None:
    """Neither is the engine that a context of it names, nor a password of a netrc told."""
    seen: list[str | None] = []

    def answer(request: Request) -> None:
        seen.append(request.headers["Authorization"])
        HAS(request)

    (build.directory / ".netrc").write_text("default login me password s3cret\n")
    home, other, mine = build.directory / ".docker", start(image("0" * 64), tcp=True), start(answer, tcp=True)
    meta = home / "contexts" / "meta" / "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # foo
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": "foo", "Endpoints": {"docker": {"Host": other.url}}}))
    environ = {"DOCKER_CONTEXT": "foo", "DOCKER_CONFIG": str(home), "XDG_RUNTIME_DIR": str(home)}
    for content in CONFIGURATIONS:
        for path in (home / "config.json", build.directory / ".dockercfg"):
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        look(mine.url, "has", HOME=str(build.directory))
    look(mine.url, "has", **environ, NETRC=str(build.directory / ".netrc"))
    ask(mine.url, "prevented", **environ)
    assert (other.asked, set(seen)) == ([], {None})


PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"), "http://127.0.0.1:1")
ENVIRONMENTS: list[dict[str, str]] = [
    *({"DOCKER_TLS_VERIFY": value} for value in ("0", "banana", "1")),
    {"DOCKER_TLS": "1", "DOCKER_CERT_PATH": "", **PROXIES, "NO_PROXY": "", "DOCKER_CONTEXT": "none-such"},
    {"REQUESTS_CA_BUNDLE": "/no", "CURL_CA_BUNDLE": "/no", "SSL_CERT_FILE": "/no", "SSL_CERT_DIR": "/no"},
    {"DOCKER_CONFIG": "/nowhere", "XDG_RUNTIME_DIR": "/nowhere", "HOME": "/nowhere", "DOCKER_API_VERSION": ""},
    {"CNB_REGISTRY_AUTH": "banana", "DOCKER_DEFAULT_PLATFORM": "linux/banana", "DOCKER_AUTH_CONFIG": "banana"},
    {"DOCKER_CLIENT_TIMEOUT": "0.001", "COMPOSE_HTTP_TIMEOUT": "x", "SSLKEYLOGFILE": "/nowhere/x", "TZ": "\x1b"},
]


def test_no_other_variable_keeps_it_from_asking(ask: Ask, look: Look, start: Start) -> None:
    """In this process one by one, and in one of its own, where `docker` is imported with them, all at once."""
    together = {name: value for environ in ENVIRONMENTS for name, value in environ.items()}
    for server in (start(), start(tcp=True)):
        for environ in ENVIRONMENTS:
            look(server.url, "has", **environ)
        ask(server.url, "prevented", **{**together, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "HOME": ""})
        assert set(server.asked) == {"GET /version", "GET /v1.41/images/r:1/json"}
        look(server.url, "has", DOCKER_API_VERSION="1.30")
        assert server.asked[-1] == "GET /v1.30/images/r:1/json"


def test_an_api_version_that_is_none_is_survived(look: Look, start: Start) -> None:
    for version in ("1", "banana", "../..", "1.41\x1b[0m", "0.1", "99.99"):
        look(start(text(400, b'{"message": "client version is wrong"}')).url, "silent", DOCKER_API_VERSION=version)
        server = start(HAS, text(200, json.dumps({"ApiVersion": version}).encode()))
        look(server.url, "has" if version == "99.99" else "silent")


@pytest.mark.parametrize("verify", ["", "1", "0"])
def test_tls(look: Look, ask: Ask, build: Build, start: Start, verify: str) -> None:
    """Verified if the variable isn't empty, as by Moby's client; the client's certificate is sent in any case."""
    right, wrong = trustme.CA(), trustme.CA()
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    mine = daemons.certificates(build.directory / "mine", right)
    both, verified = serving(right, "127.0.0.1", clients=right), "silent" if verify else "has"
    for context, path, state in (
        (both, str(mine), "has"),
        (serving(wrong, "127.0.0.1"), str(mine), verified),
        (serving(right, "daemon.example"), str(mine), verified),
        (serving(right, "127.0.0.1", not_after=past), str(mine), verified),
        (serving(right, "127.0.0.1", clients=wrong), str(mine), "silent"),
        (serving(right, "127.0.0.1"), str(build.directory / "none"), "silent"),
        (True, str(mine), "silent"),
        (serving(right, "127.0.0.1"), "", "silent"),
    ):
        bundles = {"REQUESTS_CA_BUNDLE": "/no", "CURL_CA_BUNDLE": "/no", "DOCKER_CERT_PATH": path}
        look(start(tcp=context).url, state, DOCKER_TLS_VERIFY=verify, **bundles)
    url, environ = start(tcp=both).url, {"DOCKER_CERT_PATH": str(mine), "DOCKER_TLS_VERIFY": verify}
    ask(url, "prevented", **environ)
    for file in mine.iterdir() if verify else ():
        content = file.read_bytes()
        for bad in (b"", b"junk"):
            file.write_bytes(bad)
            look(url, "silent", **environ)
        file.unlink()
        look(url, "silent", **environ)
        file.write_bytes(content)
        look(url, "has", **environ)


def test_a_daemon_that_answers_each_question_otherwise(build: Build, start: Start) -> None:
    """What it said of the name counts, and it is not asked again."""
    for reference, phase, arguments, after in (
        ("r:1", build.phase(rewrites_to=DIGEST), (), "r:1"),
        (DIGEST, build.phase("exporter"), ("-daemon", "app"), ID),
    ):
        left = iter((LACKS, HAS, image("0" * 64), LACKS))
        build.layers.write(reference, "r:1")
        server = start(lambda request, left=left: next(left)(request))
        build.run(phase, *arguments, DOCKER_HOST=server.url).expect(code=0, reference=after)
        asked = ["/version", f"/v1.41/images/r%40sha256:{ID}/json", "/v1.41/images/r:1/json"]
        assert server.asked == [f"GET {path}" for path in asked]
