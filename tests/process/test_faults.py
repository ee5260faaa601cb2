"""Faults of the file system and of the connection, each a real one: the build goes on, and the file is whole.

Beside the ones in test_bad_input.py (full, read-only, a mount of its own, no /proc) and test_engine.py.
"""

from __future__ import annotations

import datetime
import http.server
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import trustme

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.certificates import certificates, serving
from tests.support.daemons import HAS, PING, Faulty, Tcp, close, text
from tests.support.layers import GROUP, ID, Layers, analyzed_toml
from tests.support.mounts import in_mount_namespace
from tests.support.needs import leave_out, needs_root
from tests.support.processes import program

OTHER_ID = "0" * 63 + "1"
DIGEST = f"r@sha256:{ID}"
HERE = {"PYTHONPATH": os.getcwd()}


LIBRARIES = list(pathlib.Path("/usr/lib").glob("*/faketime"))


def needed(name: str) -> str:
    """Return a file that a package brings; where it isn't installed the test is left out, and under CI an error."""
    places = (*os.environ["PATH"].split(":"), "/sbin", "/usr/sbin", *map(str, LIBRARIES))
    found = next((f"{place}/{name}" for place in places if os.path.exists(f"{place}/{name}")), None)
    if found is None:
        leave_out(f"not installed: {name}")
    return found


# The file system.


@needs_root
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 81)])
def test_a_quota(known: Build, layers: Layers, tmp_path: pathlib.Path, strict: str, code: int) -> None:
    """On a file system with a quota of its own that is used up while the restorer runs."""
    make = needed("mkfs.btrfs")
    disk = tmp_path / "disk"
    disk.touch()
    os.truncate(disk, 128 << 20)
    subprocess.run([make, "-q", str(disk)], check=True)
    phase = program(
        tmp_path / "restorer",
        f"#!/bin/sh\ncat /dev/zero 2>{tmp_path}/said > {layers.path}/fill; sync -f {layers.path}\n"
        f"for n in 1 2 3 4 5 6 7 8; do head -c 20000 /dev/urandom > {layers.path}/fill$n; done 2>/dev/null; exit 0\n",
    )
    content = layers.toml.read_bytes()
    ended = in_mount_namespace(
        f"cp -a {layers.path} {tmp_path}/kept; mkdir {tmp_path}/mnt; mount -o loop {disk} {tmp_path}/mnt;"
        f"cd {tmp_path}/mnt; btrfs -q quota enable .; btrfs -q subvolume create layers;"
        "btrfs -q qgroup limit 1M layers; btrfs -q quota rescan -w .;"
        f"mount --bind layers {layers.path}; cp {tmp_path}/kept/* {layers.path}/; cd {os.getcwd()}",
        *("sh", "-c", '"$@"; code=$?; cat "$CNB_LAYERS_DIR/analyzed.toml"; exit $code', "sh"),
        *(*SHIM, "run", "--", str(phase)),
        build=known,
        ANALYZED_SHIM_STRICT=strict,
    )
    assert "quota" in (tmp_path / "said").read_text().lower(), ended.stderr
    assert ended.returncode == code, ended.stderr
    assert f"{layers.toml} can't be written" in ended.stderr
    assert "uota" in ended.stderr
    assert ended.stdout.encode() == content
    assert "Traceback" not in ended.stderr


@needs_root
def test_a_limit_on_the_size_of_files(known: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    """Going over it is a signal, which ends a process unless it is prepared."""
    layers.write("r:1", "r:1", extra="# " + "x" * 4096 + "\n")
    before = layers.toml.read_bytes()
    phase = known.phase(exits=7)
    known.call("sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *SHIM, "run", "--", str(phase)).expect(
        code=7, outcome="unchanged"
    )
    phase = known.phase()
    known.unmeasured()
    command = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *SHIM, "run", "--", str(phase)]
    process = subprocess.run(command, env=known.env, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert f"{layers.toml} can't be written: File too large" in process.stderr
    assert layers.toml.read_bytes() == before
    assert layers.stray() == set()


@pytest.mark.parametrize("row", ["known", "likely"])
def test_shims_side_by_side_on_one_layers_directory(
    build: Build, layers: Layers, engine: servers.Engine, tmp_path: pathlib.Path, row: str
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    rewritten = tmp_path / "rewritten.toml"
    rewritten.write_text(analyzed_toml(DIGEST, "r:1"))
    rewrite = f"dd if={rewritten} of={layers.toml} conv=notrunc bs=65536 2>/dev/null"
    phase = build.phase(does=rewrite if row == "likely" else "")
    options = ["--daemon"] if row == "known" else []
    env = {**build.env, "DOCKER_HOST": engine.url}

    def run(_: int) -> subprocess.CompletedProcess[str]:
        command = [*SHIM, "run", *options, "--", str(phase)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    for _ in range(5):
        layers.write("r:1", "r:1")
        with ThreadPoolExecutor(4) as pool:
            for ended in pool.map(run, range(4)):
                assert ended.returncode == 0, ended.stderr
                assert "Traceback" not in ended.stderr
        assert layers.toml.read_text() in (analyzed_toml(ID, "r:1"), analyzed_toml(DIGEST, "r:1"))
        assert layers.stray() == set()
        if row == "known":
            assert layers.reference == ID


def test_a_clock_that_goes_back(known: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    """By two days, while the restorer runs; and files that are from the future."""
    library = needed("libfaketime.so.1")
    clock = tmp_path / "clock"
    clock.write_text("+1d\n")
    phase = known.phase(does=f"echo -1d > {clock}\nexec sleep 0.3")
    tomorrow = time.time() + 86400
    for path in (layers.toml, layers.group):
        os.utime(path, (tomorrow, tomorrow))
    ended = known.run(
        phase,
        LD_PRELOAD=library,
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    ended.expect(code=0, outcome="prevented", reference=ID)
    assert 0.3 <= ended.report["seconds"] < 60
    assert clock.read_text() == "-1d\n"


def test_the_clock_s_library_does_what_it_says(tmp_path: pathlib.Path) -> None:
    """Else the test before would test nothing."""
    clock = tmp_path / "clock"
    clock.write_text("-1d\n")
    environ = {"LD_PRELOAD": needed("libfaketime.so.1"), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    told = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], env=environ, capture_output=True)
    assert -90_000 < float(told.stdout) - time.time() < -80_000


@pytest.mark.parametrize("option", ["", "--no-daemon"])
def test_where_memory_files_are_forbidden_the_note_stands_in(
    known: Build, layers: Layers, tmp_path: pathlib.Path, option: str
) -> None:
    """For a binary, which gets a memory file else; `echo` is one, and says what it is called with."""
    if option:
        layers.write(ID)  # no switch, so it is execed
    phase = shutil.copy("/bin/echo", tmp_path / "restorer")
    command = [*SHIM, "run", *([option] if option else []), "--", str(phase)]
    assert known.call(*command).out.startswith("-group=/proc/self/fd/")
    assert not layers.note.exists()
    known.call(sys.executable, "-m", "tests.support.forbid", "memfd_create", *command, **HERE).expect(
        code=0, out=f"-group={layers.note}\n"
    )
    assert layers.note.read_text().endswith(f"{GROUP}\n")


# The note.


def plant(layers: Layers, kind: str, target: pathlib.Path) -> None:
    if kind == "huge":
        with layers.note.open("wb") as file:
            file.truncate(100 << 30)
    elif kind == "directory":
        layers.note.mkdir()
    elif kind == "link":
        target.write_text("daemon = false\n")
        layers.note.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(layers.note)
    elif kind == "garbage":
        layers.note.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("kind", ["garbage", "huge", "directory", "link", "pipe"])
def test_a_note_that_is_none_is_no_evidence_and_the_analyzer_mends_it(
    build: Build, layers: Layers, engine: servers.Engine, tmp_path: pathlib.Path, kind: str
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    layers.write("r:1", "r:1")
    plant(layers, kind, tmp_path / "target")
    phase = build.phase()
    ended = build.run(phase, DOCKER_HOST=engine.url)
    ended.expect(code=0, outcome="unchanged", certainty="likely")
    assert str(layers.note) in ended.err
    build.run(build.phase("analyzer"), "-daemon", "app")
    ended = build.run(phase, DOCKER_HOST=engine.url)
    if kind == "directory":  # it is somebody's: left
        ended.expect(certainty="likely")
    else:
        ended.expect(evidence="note", reference=ID)
        assert ended.err.count("\n") == 1
    if kind == "link":
        assert (tmp_path / "target").read_text() == "daemon = false\n"


@pytest.mark.parametrize("stale", [True, False])
def test_a_note_of_an_earlier_build(build: Build, layers: Layers, engine: servers.Engine, stale: bool) -> None:
    """Where the analyzer isn't wrapped any more nothing tells; the exporter, which knows, puts it right."""
    engine.tag("r:1", f"sha256:{ID}")
    layers.write("r:1", "r:1")
    layers.note.write_text(f"daemon = {str(stale).lower()}\n")
    phase = build.phase() if stale else build.phase(rewrites_to=DIGEST)
    exporter = build.phase("exporter")
    build.run(phase, DOCKER_HOST=engine.url).expect(outcome="prevented" if stale else "not-a-daemon-build")
    assert layers.reference == (ID if stale else DIGEST)
    ended = build.run(exporter, *([] if stale else ["-daemon"]), "app", DOCKER_HOST=engine.url)
    assert (ended.outcome, layers.reference) == (("name-restored", "r:1") if stale else ("reverted", ID))


def test_a_note_of_an_earlier_build_is_written_anew_by_the_analyzer(build: Build, layers: Layers) -> None:
    for before, arguments, after in (("true", (), "false"), ("false", ("-daemon",), "true")):
        layers.note.write_text(f"daemon = {before}\n")
        build.run(build.phase("analyzer"), *arguments, "app")
        assert layers.note.read_text().endswith(f"daemon = {after}\n")


def test_a_note_is_nothing_at_another_platform_api(build: Build, layers: Layers) -> None:
    layers.write("r:1", "r:1")
    layers.note.write_text("daemon = true\n")
    phase = build.phase()
    build.run(phase, CNB_PLATFORM_API="0.12").expect(outcome="passed-through")


# The daemon.


def test_tcp_with_tls_and_with_a_wrong_certificate(
    build: Build, layers: Layers, tcp: Callable[..., Tcp], tmp_path: pathlib.Path
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # the library would take it for the daemon's authority
        build.env.pop(name, None)
    right, wrong = trustme.CA(), trustme.CA()
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    mine = certificates(tmp_path / "mine", right)
    servers_: dict[str, tuple[ssl.SSLContext | None, str, str]] = {
        "right": (serving(right, "127.0.0.1", clients=right), mine, "prevented"),
        "another authority": (serving(wrong, "127.0.0.1"), mine, "kept-name"),
        "another host": (serving(right, "daemon.example"), mine, "kept-name"),
        "expired": (serving(right, "127.0.0.1", not_after=past), mine, "kept-name"),
        "mine is another authority's": (
            serving(right, "127.0.0.1", clients=wrong),
            mine,
            "kept-name",
        ),
        "no TLS at the daemon": (None, mine, "kept-name"),
        "no certificate here": (serving(right, "127.0.0.1"), str(tmp_path / "none"), "kept-name"),
    }
    for name, (context, path, outcome) in servers_.items():
        layers.write("r:1", "r:1")
        began = time.monotonic()
        ended = build.run(
            "restorer",
            options=("--daemon", "--timeout", "2"),
            DOCKER_HOST=tcp(context).url,
            DOCKER_TLS_VERIFY="1",
            DOCKER_CERT_PATH=path,
        )
        assert (ended.code, ended.outcome) == (0, outcome), (name, ended.err)
        assert layers.reference == (ID if outcome == "prevented" else "r:1"), name
        assert ended.err.count("\n") == 1, (name, ended.err)
        assert time.monotonic() - began < 2 + 4, name


def test_tcp_without_tls(build: Build, layers: Layers, tcp: Callable[..., Tcp]) -> None:
    layers.write("r:1", "r:1")
    build.run("restorer", options=("--daemon",), DOCKER_HOST=tcp().url).expect(outcome="prevented")
    layers.write("r:1", "r:1")
    with_tls = tcp(serving(trustme.CA(), "127.0.0.1"))
    build.run("restorer", options=("--daemon", "--timeout", "2"), DOCKER_HOST=with_tls.url).expect(
        code=0, outcome="kept-name", reference="r:1"
    )


@pytest.mark.parametrize("option", ["--daemon", "--strict"])
def test_a_daemon_that_comes_back_after_a_second(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], option: str
) -> None:
    """Within the time limit it is waited for; what it missed at the restorer the exporter puts right."""
    began = time.monotonic()

    def slow(request: http.server.BaseHTTPRequestHandler) -> None:
        time.sleep(max(0.0, began + 1 - time.monotonic()))
        HAS(request)

    phase = build.phase() if option == "--daemon" else build.phase(rewrites_to=DIGEST)
    exporter = build.phase("exporter")
    layers.write("r:1", "r:1")
    build.run(phase, options=(option,), DOCKER_HOST=faulty(slow).url).expect(
        code=0, outcome="prevented" if option == "--daemon" else "resolves"
    )

    path = build.directory / "refuses.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    layers.write("r:1", "r:1")
    build.run(phase, options=(option,), DOCKER_HOST=f"unix://{path}").expect(
        code=0, outcome="kept-name" if option == "--daemon" else "daemon-unknown"
    )
    path.unlink()
    listening = servers.Engine(str(path))
    listening.tag("r:1", f"sha256:{ID}")
    ended = build.run(exporter, "-daemon", "app", DOCKER_HOST=listening.url)
    listening.stop()
    ended.expect(code=0, outcome="passed-through" if option == "--daemon" else "reverted")

    back = threading.Event()

    def pong(request: http.server.BaseHTTPRequestHandler) -> None:
        (PING if back.is_set() else close)(request)

    def image(request: http.server.BaseHTTPRequestHandler) -> None:
        (text(404, b'{"message": "No such image"}') if "sha256" in request.path else HAS)(request)

    url = faulty(image, pong).url
    layers.write("r:1", "r:1")
    build.run(phase, options=(option,), DOCKER_HOST=url).expect(
        code=0, outcome="kept-name" if option == "--daemon" else "daemon-unknown"
    )
    back.set()
    build.run(exporter, "-daemon", "app", DOCKER_HOST=url).expect(
        code=0, outcome="passed-through" if option == "--daemon" else "reverted"
    )


def test_a_daemon_that_answers_every_question_otherwise(
    build: Build, layers: Layers, faulty: Callable[..., Faulty]
) -> None:
    """Another ID each time: what it said of the name counts."""
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        text(200, json.dumps({"Id": f"sha256:{ID if len(asked) == 1 else OTHER_ID}"}).encode())(request)

    phase = build.phase(rewrites_to=DIGEST)
    layers.write("r:1", "r:1")
    build.run(phase, DOCKER_HOST=faulty(answer).url).expect(code=0, outcome="reverted", reference=ID)


@pytest.mark.parametrize("option", ["--daemon", ""])
@pytest.mark.parametrize(("seconds", "limit"), [(30, 2), (3, 4.5)], ids=["no answer", "slow answers"])
def test_it_takes_the_time_limit_once_and_no_longer(
    build: Build, layers: Layers, faulty: Callable[..., Faulty], option: str, seconds: float, limit: float
) -> None:
    """A daemon that answers the first question and then late or not, with a report that asks for more still."""
    asked: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if len(asked) > 1 or seconds < limit:
            time.sleep(seconds)
        HAS(request)

    phase = build.phase(rewrites_to=DIGEST)
    layers.write("r:1", "r:1")
    build.unmeasured()  # which would slow down what isn't waiting
    began = time.monotonic()
    options = (*filter(None, [option]), "--timeout", str(limit))
    build.run(phase, options=options, DOCKER_HOST=faulty(answer).url).expect(
        code=0, outcome="prevented" if option == "--daemon" else "unrepaired"
    )
    assert limit <= time.monotonic() - began < min(2 * limit, 2 * 3)  # what two limits or two slow answers would take
