"""The demonstration plays the whole story, and the stand-in behaves as real lifecycles were measured to."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import pytest

from shim.demo import images, servers
from shim.demo.lifecycle import ARCHITECTURE
from tests.support.build import SHIM, Build
from tests.support.layers import ID, Layers


def test_the_demonstration_plays_every_scene_and_says_what_is_embedded(build: Build, tmp_path: pathlib.Path) -> None:
    """Also where the temporary directory leaves no room for a socket's name, and beside another daemon's set-up."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    environ = {"DOCKER_CERT_PATH": "/no", "DOCKER_TLS_VERIFY": "1", "STANDIN_VERSION": "0.17"}
    ended = build.call(*SHIM, "demo", TMPDIR=str(deep), **environ)
    assert ended.code == 0, ended.out + ended.err
    assert "Embedded: the registry" in ended.out
    assert "A stand-in: the lifecycle" in ended.out
    rest = ended.out
    for line in (  # in this order
        "1. A multi-arch run image, pulled by its tag",
        "the exporter fails with exit status 62",
        "get run image top layer SHA: image has no layers",
        "[prevented]",
        "2. A run image that is only in the daemon",
        "the restorer fails with exit status 1",
        "[prevented]",
        "3. An extension that switches no run image",
        "the restorer fails with exit status 2",
        "[no-lookup]",
        "4. Only the exporter is wrapped",
        "the exporter fails with exit status 62",
        "[reverted]",
        "5. A build for a registry",
        "analyzed.toml is the same, byte for byte.",
        "Every scene went as it should.",
    ):
        _, found, rest = rest.partition(line)
        assert found, line
    assert "\x1b" not in ended.out


def ended_in_the_second_scene(build: Build, how: signal.Signals, *options: str) -> int:
    """Have the demonstration ended from outside, and return its exit status; no file of its is left."""
    build.unmeasured()
    with tempfile.TemporaryDirectory() as directory:  # by a short path
        process = subprocess.Popen([*SHIM, "demo", *options], env={**build.env, "TMPDIR": directory}, stdout=-1)
        assert process.stdout is not None
        with process.stdout:
            assert any(line.startswith(b"2. ") for line in process.stdout)
            process.send_signal(how)
            process.stdout.read()
        status = process.wait(60)
        assert os.listdir(directory) == []
    return status


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_demonstration_that_is_ended_leaves_nothing(build: Build, how: signal.Signals) -> None:
    assert ended_in_the_second_scene(build, how) == 128 + how


def test_the_stand_in_says_that_it_is_one(lifecycle: pathlib.Path) -> None:
    program = str(lifecycle / "lifecycle")
    for command, code in (([program, "--help"], 0), ([program], 1)):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode, "stand-in" in ended.stdout) == (code, True)
    for phase in ("analyzer", "restorer", "exporter"):
        ended = subprocess.run([lifecycle / phase, "-h"], capture_output=True, text=True, check=True)
        assert "stand-in" in ended.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
def test_the_stand_in_drops_privileges_and_gives_the_layers_away(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    build.unmeasured()
    build.call(str(build.lifecycle / "analyzer"), "-uid", "1000", "-gid", "1000", "app").expect(code=0)
    assert layers.toml.stat().st_uid == layers.path.stat().st_uid == 1000


@pytest.mark.parametrize(
    ("version", "api", "daemon", "image", "code", "final"),
    [
        ("0.17", "0.11", False, "multi", 0, "before"),
        ("0.20", "0.9", False, "multi", 0, "before"),
        ("0.20", "0.11", False, "multi", 0, "digest"),
        ("0.20", "0.11", False, "absent", 1, "before"),
        ("0.20", "0.11", False, None, 2, "before"),
        ("0.20", "0.12", True, "multi", 0, "id"),
        ("0.20", "0.12", True, "absent", 1, "before"),
        ("0.20", "0.12", False, "multi", 0, "digest"),
        ("0.20", "0.11", True, "multi", 2, "before"),
    ],
)
def test_the_stand_in_restorer(
    build: Build,
    layers: Layers,
    engine: servers.Engine,
    registry: servers.Registry,
    version: str,
    api: str,
    daemon: bool,
    image: str | None,
    code: int,
    final: str,
) -> None:
    made = images.multi("run")
    name = registry.push("run/multi:1.0", made)
    engine.pull(name)
    wanted = None if image is None else f"{registry.host}/run/{image}:1.0"
    layers.write(wanted or ID, wanted)
    arguments = ["-daemon"] if daemon else []
    environ = {"DOCKER_HOST": engine.url, "STANDIN_VERSION": version, "CNB_PLATFORM_API": api}
    build.call(str(build.lifecycle / "restorer"), *arguments, **environ).expect(
        code=code,
        reference={
            "before": wanted or ID,
            "digest": f"{registry.host}/run/multi@{made.manifest_digest(ARCHITECTURE)}",
            "id": made.config_digest(ARCHITECTURE).removeprefix("sha256:"),
        }[final],
    )


@pytest.mark.parametrize(
    ("reference", "daemon", "code", "message"),
    [
        ("", True, 3, "run image not found in analyzed metadata"),
        ("r@sha256:" + ID, True, 62, "get run image top layer SHA: image has no layers"),
        (ID, False, 1, f'connect to repo store "{ID}"'),
        ("localhost:1/r:1", False, 1, "failed to get run image"),
        ("r:1", True, 0, ""),
        (ID, True, 0, ""),
    ],
)
def test_the_stand_in_exporter(
    build: Build, layers: Layers, engine: servers.Engine, reference: str, daemon: bool, code: int, message: str
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    layers.write(reference, "r:1")
    arguments = ["-daemon"] if daemon else []
    ended = build.call(str(build.lifecycle / "exporter"), *arguments, "app:1", DOCKER_HOST=engine.url)
    ended.expect(code=code)
    assert message in ended.out
    assert (engine.find("app:1") is not None) is (code == 0)


def test_the_program_runs_by_its_own_shebang() -> None:
    path = pathlib.Path(__file__).parents[2] / "shim" / "demo" / "lifecycle.py"
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env python3\n")
    assert sys.version_info >= (3, 11)
