"""The daemon that doesn't answer as it should: an engine that speaks, or doesn't speak, HTTP on a real socket."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from shim.daemon.client import Daemon
from shim.daemon.find import find
from shim.errors import PullFailed, Unreachable
from tests.support.build import SHIM, Build
from tests.support.daemons import HAS, Answer, Faulty, close, ping, text
from tests.support.layers import ID, Layers


def hang(request: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(30)


def hang_in_the_middle(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"Id"')
    time.sleep(30)


def drip(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    for _ in range(100):
        request.wfile.write(b" ")
        time.sleep(0.3)


def no_end(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        request.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def no_http(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-banana\r\n")


def half_a_step(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n")
    request.wfile.write(b'{"status": "half"\r\n')
    close(request)


FAULTS: dict[str, Answer] = {
    "500": text(500, b'{"message": "out of order"}'),
    "500 in HTML": text(500, b"<html>bad gateway</html>", "text/html"),
    "html": text(200, b"<html>hello</html>", "text/html"),
    "other json": text(200, b"[1, 2]"),
    "no id": text(200, b'{"RepoTags": []}'),
    "null": text(200, b"null"),
    "an id that is none": text(200, b'{"Id": "sha256:banana"}'),
    "an id of another type": text(200, b'{"Id": 7}'),
    "nothing": text(200, b""),
    "100 MB": text(200, b"[" + b"1," * 50_000_000 + b"1]"),
    "no end": no_end,
    "hangs": hang,
    "hangs in the middle": hang_in_the_middle,
    "drips": drip,
    "closes": close,
    "no http": no_http,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("option", ["--daemon", "--strict"])
def test_a_fault_of_the_daemon_costs_the_time_limit_at_most_and_no_build(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], fault: str, option: str
) -> None:
    layers.write("localhost:1/r:1", "localhost:1/r:1")
    server = faulty(FAULTS[fault])
    began = time.monotonic()
    known = option == "--daemon"
    phase = build.directory / "restorer"
    phase.write_text("#!/bin/sh\nexit 0\n")
    phase.chmod(0o755)
    ended = build.run(phase, options=(option, "--timeout", "1"), DOCKER_HOST=server.url)
    assert time.monotonic() - began < 1 + 4
    ended.expect(code=0, reference="localhost:1/r:1", outcome="kept-name" if known else "daemon-unknown")
    if known:
        assert ended.err.count("\n") == 1, ended.err


@pytest.mark.parametrize("info", [text(200, b"[]"), text(200, b'{"DriverStatus": 7}'), hang, close])
def test_a_daemon_that_can_not_tell_about_itself_is_left_out_of_the_report(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], info: Answer
) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path.endswith("/info"):
            info(request)
        else:
            text(200, json.dumps({"Id": f"sha256:{ID}"}).encode())(request)

    layers.write("r:1", "r:1")
    began = time.monotonic()
    ended = build.run("restorer", options=("--daemon", "--timeout", "2"), DOCKER_HOST=faulty(answer).url)
    ended.expect(code=0, outcome="prevented", reference=ID)
    assert "engine" not in ended.report
    assert time.monotonic() - began < 2 + 4


PINGS = {name: FAULTS[name] for name in ("100 MB", "hangs", "hangs in the middle", "drips", "closes", "no http")}


@pytest.mark.parametrize("fault", PINGS)
def test_a_fault_in_the_ping_is_the_same(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], fault: str
) -> None:
    layers.write("r:1", "r:1")
    began = time.monotonic()
    build.run("restorer", options=("--daemon", "--timeout", "1"), DOCKER_HOST=faulty(HAS, PINGS[fault]).url).expect(
        code=0, outcome="kept-name"
    )
    assert time.monotonic() - began < 1 + 4


@pytest.mark.parametrize(
    "pong",
    [
        *(ping(None), ping(""), ping("banana"), ping("1"), ping("1.41\x1b[31m"), ping("../.."), ping("9" * 50)),
        *(FAULTS["html"], FAULTS["500"], FAULTS["500 in HTML"], FAULTS["nothing"]),
        text(403, b"<html>Forbidden</html>", "text/html"),
        text(404, b'{"message": "page not found"}'),
    ],
)
def test_a_daemon_that_does_not_say_its_version_is_asked_all_the_same(
    faulty: Callable[..., Faulty], pong: Answer
) -> None:
    """As by the phase's client. A proxy that lets only some of the API through may refuse the ping."""
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        HAS(request)

    with contextlib.closing(Daemon(find(faulty(answer, pong).url, {}), 5, {})) as daemon:
        assert daemon.image_id("r:1") == ID
    assert asked == ["/images/r:1/json"]


@pytest.mark.parametrize("fault", ["100 MB", "no end"])
def test_what_has_no_end_is_not_read_to_it(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], fault: str
) -> None:
    """The memory that a whole build has may be less."""
    layers.write("r:1", "r:1")
    phase = build.phase()
    code = (
        "import resource, subprocess, sys; ended = subprocess.run(sys.argv[1:])"
        "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(ended.returncode)"
    )
    build.unmeasured()
    ended = build.call(
        *(sys.executable, "-c", code, *SHIM, "run", "--daemon", "--", str(phase)), DOCKER_HOST=faulty(FAULTS[fault]).url
    )
    ended.expect(code=0, outcome="kept-name")
    assert int(ended.out) < 150_000  # kilobytes; read whole, 100 MB took 600_000


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("null", "no id", "an id of another type")])
def test_the_exporter_s_wrapper_fix_and_check_bear_the_same_faults(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], fault: str
) -> None:
    reference = f"localhost:1/r@sha256:{ID}"
    url = faulty(FAULTS[fault]).url
    phase = build.phase("exporter")
    wrapped = (*SHIM, "run", "--timeout", "1", "--", str(phase), "-daemon", "app")
    for command in (wrapped, (*SHIM, "fix", "--daemon", "--timeout", "1"), (*SHIM, "check", "--timeout", "1")):
        layers.write(reference, "localhost:1/r:1")
        began = time.monotonic()
        ended = build.call(*command, DOCKER_HOST=url)
        assert time.monotonic() - began < 1 + 4, command
        assert layers.reference == reference
        if "check" in command:
            assert (ended.code, "note: " in ended.out) == (0, True), ended.out
        else:
            ended.expect(code=0, outcome="unrepaired")
            assert ended.err.count("\n") == 1, ended.err


def test_a_socket_whose_queue_is_full(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "full.sock"
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen(0)
        while True:
            waiting = opened.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(path))
            except BlockingIOError:
                break
        layers.write("r:1", "r:1")
        began = time.monotonic()
        build.run("restorer", options=("--daemon", "--timeout", "1"), DOCKER_HOST=f"unix://{path}").expect(
            code=0, outcome="kept-name"
        )
        assert time.monotonic() - began < 1 + 4


def test_an_answer_that_fails_at_the_second_question_leaves_the_rewrite(
    build: Build, layers: Layers, faulty: Callable[..., Faulty]
) -> None:
    asked: list[str] = []

    def change_its_mind(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        text(200 if len(asked) == 1 else 500, json.dumps({"Id": f"sha256:{ID}"}).encode())(request)

    server = faulty(change_its_mind)
    layers.write("r:1", "r:1")
    phase = build.phase(rewrites_to=f"r@sha256:{ID}")
    ended = build.run(phase, DOCKER_HOST=server.url)
    ended.expect(code=0, outcome="unrepaired", reference=f"r@sha256:{ID}")
    assert "--daemon" in ended.err


@pytest.mark.parametrize(
    "steps",
    [
        text(500, b'{"message": "no"}'),
        text(200, b"banana"),
        close,
        half_a_step,
    ],
)
def test_a_pull_that_fails_half_way_fails_no_build(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], steps: Answer
) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.command == "POST":
            steps(request)
        else:
            text(404, b'{"message": "No such image"}')(request)

    layers.write("r:1", "r:1")
    phase = build.directory / "restorer"
    phase.write_text("#!/bin/sh\nexit 0\n")
    phase.chmod(0o755)
    ended = build.run(phase, options=("--daemon",), DOCKER_HOST=faulty(answer).url)
    ended.expect(code=0, outcome="not-in-daemon")
    assert "r:1 can't be pulled" in ended.err


def test_a_tcp_address_that_refuses_and_one_that_is_none(build: Build, layers: Layers) -> None:
    for url in ("tcp://127.0.0.1:1", "banana://x", "tcp://"):
        layers.write("r:1", "r:1")
        build.run("restorer", options=("--daemon", "--docker-host", url, "--timeout", "1")).expect(
            code=0, outcome="kept-name", reference="r:1"
        )


@pytest.mark.parametrize(
    ("auth", "repository", "sent"),
    [
        ({"r.example": "Basic " + base64.b64encode(b"me:s:3").decode()}, "r.example/run", ("me", "s:3")),
        ({"index.docker.io": "Basic " + base64.b64encode(b"me:x").decode()}, "run", ("me", "x")),
        ({"r.example": "Bearer tok"}, "r.example/run", "tok"),
        ({"other": "Bearer tok"}, "r.example/run", None),
        ({"r.example": "Basic !!"}, "r.example/run", None),
        (["r.example"], "r.example/run", None),
    ],
)
def test_registry_credentials_reach_the_daemon(
    faulty: Callable[..., Faulty], auth: object, repository: str, sent: object, tmp_path: pathlib.Path
) -> None:
    seen: list[str | None] = []

    def remember(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["X-Registry-Auth"])
        text(200, b'{"status": "done"}')(request)

    environ = {"CNB_REGISTRY_AUTH": json.dumps(auth), "HOME": str(tmp_path)}
    daemon = Daemon(find(faulty(remember).url, environ), 5, environ)
    with contextlib.closing(daemon), pytest.raises(PullFailed):  # this one pulls nothing
        daemon.pull(f"{repository}:1", "linux/amd64", lambda *_: None, lambda _: None)
    value = json.loads(base64.urlsafe_b64decode(seen[0])) if seen[0] else {}
    if isinstance(sent, tuple):
        assert (value["username"], value["password"]) == sent
    else:
        assert value.get("registrytoken") == sent


def test_the_user_s_docker_configuration_is_used_where_the_build_has_none(
    build: Build, layers: Layers, faulty: Callable[..., Faulty]
) -> None:
    seen: list[str | None] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if request.command == "POST":
            seen.append(request.headers["X-Registry-Auth"])
            text(200, b'{"status": "done"}')(request)
        elif seen:
            text(200, json.dumps({"Id": f"sha256:{ID}"}).encode())(request)
        else:
            text(404, b'{"message": "No such image"}')(request)

    config = build.directory / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {"r.example": {"auth": base64.b64encode(b"me:x").decode()}}}))
    layers.write("r.example/run:1", "r.example/run:1")
    build.run("restorer", options=("--daemon",), DOCKER_HOST=faulty(answer).url).expect(
        outcome="prevented", reference=ID
    )
    assert seen[0] is not None
    assert json.loads(base64.urlsafe_b64decode(seen[0]))["username"] == "me"


def test_pulling_and_asking_say_what_is_wrong(faulty: Callable[..., Faulty]) -> None:
    server = faulty(text(500, b'{"message": "the disk\\nis full"}'))
    with contextlib.closing(Daemon(find(server.url, {}), 5, {})) as daemon:
        with pytest.raises(PullFailed, match="the disk is full"):
            daemon.pull("r:1", "linux/amd64", lambda *_: None, lambda _: None)
        with pytest.raises(Unreachable, match="the disk is full"):
            daemon.image_id("r:1")
        with pytest.raises(Unreachable):
            daemon.about()


@pytest.mark.skipif(os.getuid() != 0, reason="is process 1 of a namespace of its own, which needs root")
@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM"])
@pytest.mark.parametrize("pulling", [True, False])
def test_as_process_1_too_a_signal_ends_it_while_it_pulls_or_asks(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], name: str, pulling: bool
) -> None:
    """The kernel sends process 1 nothing that isn't handled."""
    layers.write("r:1", "r:1")
    asked = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        if pulling and request.command == "GET":
            text(404, b'{"message": "No such image"}')(request)
        else:
            asked.set()
            time.sleep(30)

    phase = build.phase(does="echo ran")
    process = subprocess.Popen(
        [
            "unshare",
            "-pf",
            "--kill-child",
            *SHIM,
            "run",
            "--pull-policy",
            "always",
            "--timeout",
            "60",
            "--",
            str(phase),
        ],
        env={**build.env, "DOCKER_HOST": faulty(answer).url},
        stdout=subprocess.PIPE,
    )
    assert asked.wait(30)
    inside = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    number = signal.Signals[f"SIG{name}"]
    os.kill(int(inside[0]), number)
    out, _ = process.communicate(timeout=40)
    assert (process.returncode, out) == (128 + number, b"")
    assert layers.reference == "r:1"


@pytest.mark.parametrize("option", ["--daemon", "--strict"])
def test_a_signal_does_not_wait_for_a_daemon_that_hangs(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], option: str
) -> None:
    layers.write("r:1", "r:1")
    phase = build.directory / "restorer"
    phase.write_text("#!/bin/sh\necho up\nexec sleep 30\n")
    phase.chmod(0o755)
    process = subprocess.Popen(
        [*SHIM, "run", option, "--timeout", "30", "--", phase],
        env={**build.env, "DOCKER_HOST": faulty(hang).url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + 15
    process.stdout.close()
    assert time.monotonic() - began < 15
