"""Hundreds of wrapped runs, sixteen side by side, against a real daemon: every reference right, and nothing leaks."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from shim.demo import images
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.build import SHIM, Build
from tests.support.layers import Layers
from tests.support.processes import program, wait_for

ENGINES = ("docker",)


class Called(NamedTuple):
    """How a phase is called, and what analyzed.toml has."""

    phase: str
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environ: dict[str, str] = {}  # noqa: RUF012  # nobody changes it
    reachable: bool = True
    reference: str = ""


RUNS = int(os.environ.get("SOAK", "400"))
SIDE_BY_SIDE = 16


def test_hundreds_of_runs_sixteen_side_by_side(
    build: Build, real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    name = registry.push("run/soak:1.0", images.multi("soak"))
    engine.pull(name)
    right = str(engine.id_of(name))
    digest = f"{name.rpartition(':')[0]}@{images.multi('soak').manifest_digest(ARCHITECTURE)}"
    phases = tmp_path / "phases"
    phases.mkdir()
    rewrite = f'sed -i \'s|^  reference = "{name}"|  reference = "{digest}"|\' "$CNB_LAYERS_DIR/analyzed.toml"'
    for phase, text in (("analyzer", "true"), ("exporter", "true"), ("restorer", "true"), ("rewriting", rewrite)):
        program(phases / phase, f"#!/bin/sh\n{text}\n")
    ways = {
        "nothing-to-do": (("--", "restorer"), name, name, {"CNB_PLATFORM_API": "0.12"}),
        "note": (("--", "analyzer", "-daemon", "app"), name, name, {}),
        "no-switch": (("--", "restorer"), right, right, {}),
        "registry-build": (("--no-daemon", "--", "rewriting"), name, digest, {}),
        "daemon-build": (("--daemon", "--", "restorer"), name, right, {}),
        "daemon-out-of-reach": (("--daemon", "--", "restorer"), name, name, {"DOCKER_HOST": f"unix://{tmp_path}/none"}),
        "likely: reverted": (("--", "rewriting"), name, right, {}),
        "takes-it": (("--", "exporter", "-daemon", "app"), name, name, {}),
        "repairs": (("--", "exporter", "-daemon", "app"), digest, right, {}),
        "heals": (("--", "exporter", "app"), right, name, {}),
    }
    token = uuid.uuid4().hex
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    base = {key: value for key, value in build.env.items() if not key.startswith("COV")}
    base |= {"DOCKER_HOST": engine.url, "TMPDIR": str(tmp), "SOAK_TOKEN": token, "ANALYZED_SHIM_TIMEOUT": "60"}

    def run(number: int, way: str) -> None:
        arguments, before, after, environ = ways[way]
        layers = Layers(tmp_path / f"layers{number}")
        layers.write(before, None if way == "no-switch" else name)
        words = [str(phases / word) if (phases / word).exists() else word for word in arguments]
        env = {**base, "CNB_LAYERS_DIR": str(layers.path), **environ}
        ended = subprocess.run(
            [*SHIM, "run", *words], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert (ended.returncode, layers.reference) == (0, after), (way, ended.stderr)
        assert "Traceback" not in ended.stderr, (way, ended.stderr)
        assert layers.stray() == set(), way

    run(-1, "likely: reverted")  # whatever the daemon opens once and keeps
    before, files = open_in(engine), around(tmp_path)
    dice = random.Random(1457)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(run, range(RUNS), [dice.choice(list(ways)) for _ in range(RUNS)]))
    assert list(tmp.iterdir()) == []
    assert around(tmp_path) == files  # HOME too
    wait_for(lambda: alive(token) == [])
    wait_for(lambda: open_in(engine) <= before + 2, 30)  # descriptors and sockets of the daemon
    engine.forget(registry.host)


def around(directory: pathlib.Path) -> set[pathlib.Path]:
    return {path for path in directory.rglob("*") if not path.relative_to(directory).parts[0].startswith("layers")}


def open_in(engine: real.Engine) -> int:
    return len(os.listdir(f"/proc/{engine.pid}/fd"))


def alive(token: str) -> list[int]:
    """Return the processes that have a token in their environment."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if token.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found


ROWS = {
    "note": Called("analyzer", ("-daemon", "app")),
    "nothing-to-do: Platform API": Called("restorer", environ={"CNB_PLATFORM_API": "0.12"}),
    "no-switch": Called("restorer"),
    "registry-build": Called("restorer", options=("--no-daemon",)),
    "daemon-build": Called("restorer", options=("--daemon",)),
    "daemon-out-of-reach": Called("restorer", options=("--daemon",), reachable=False),
    "likely: unchanged": Called("restorer"),
    "unknown": Called("restorer", reachable=False),
    "takes-it": Called("exporter", ("-daemon", "app")),
    "repairs": Called("exporter", ("-daemon", "app"), reference=f"r@sha256:{'0' * 64}"),
    "heals": Called("exporter", ("app",), reference="5" * 64),
}
"""By the row that it comes to how a phase is called."""


@pytest.mark.parametrize("row", ROWS)
def test_a_script_in_a_phase_s_place_inherits_the_standard_streams_and_nothing_else(
    build: Build, layers: Layers, tmp_path: pathlib.Path, row: str, real_parts: tuple[real.Engine, real.Registry]
) -> None:
    engine, registry = real_parts
    name = registry.push("run/open:1.0", images.multi("open"))
    engine.pull(name)
    called = ROWS[row]
    layers.write(called.reference or name, None if row == "no-switch" else name)
    phase = program(tmp_path / called.phase, "#!/bin/sh\nexec ls -l /proc/self/fd\n")
    environ = {**({"DOCKER_HOST": engine.url} if called.reachable else {}), **called.environ}
    build.unmeasured()
    ended = build.run(phase, *called.arguments, options=called.options, **environ)
    ended.expect(code=0)
    assert ended.report["row"] == row, ended.report
    links = [line.partition(" -> ") for line in ended.out.splitlines()[1:]]
    assert {number.rpartition(" ")[2] for number, _, _ in links} >= {"0", "1", "2"}
    more = {target for number, _, target in links if int(number.rpartition(" ")[2]) > 2 and "/fd" not in target}
    assert more == set()
    engine.forget(registry.host)
