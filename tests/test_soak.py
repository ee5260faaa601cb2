"""A thousand wrapped runs, sixteen side by side, against a real daemon: every reference right, and nothing leaks."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from shim.demo import images
from shim.demo.lifecycle import ARCHITECTURE
from tests import real
from tests.conftest import SHIM, Layers, Shim
from tests.test_process import program, wait_for

ENGINES = ("docker",)
RUNS = int(os.environ.get("SOAK", "1000"))
SIDE_BY_SIDE = 16


def test_a_thousand_runs_sixteen_side_by_side(
    shim: Shim, real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path
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
        "row 1": (("--", "restorer"), name, name, {"CNB_PLATFORM_API": "0.12"}),
        "the note": (("--", "analyzer", "-daemon", "app"), name, name, {}),
        "row 2": (("--", "restorer"), right, right, {}),
        "row 3": (("--no-daemon", "--", "rewriting"), name, digest, {}),
        "row 4": (("--daemon", "--", "restorer"), name, right, {}),
        "row 5": (("--daemon", "--", "restorer"), name, name, {"DOCKER_HOST": f"unix://{tmp_path}/none"}),
        "row 6": (("--", "rewriting"), name, right, {}),
        "row 8": (("--", "exporter", "-daemon", "app"), name, name, {}),
        "row 9": (("--", "exporter", "-daemon", "app"), digest, right, {}),
        "row 10": (("--", "exporter", "app"), right, name, {}),
    }
    token = uuid.uuid4().hex
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    base = {key: value for key, value in shim.env.items() if not key.startswith("COV")}
    base |= {"DOCKER_HOST": engine.url, "TMPDIR": str(tmp), "SOAK_TOKEN": token, "ANALYZED_SHIM_TIMEOUT": "60"}

    def run(number: int, way: str) -> None:
        arguments, before, after, environ = ways[way]
        layers = Layers(tmp_path / f"layers{number}")
        layers.write(before, None if way == "row 2" else name)
        words = [str(phases / word) if (phases / word).exists() else word for word in arguments]
        env = {**base, "CNB_LAYERS_DIR": str(layers.path), **environ}
        ended = subprocess.run(
            [*SHIM, "run", *words], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert (ended.returncode, layers.reference) == (0, after), (way, ended.stderr)
        assert "Traceback" not in ended.stderr, (way, ended.stderr)
        assert layers.stray() == set(), way

    run(-1, "row 6")  # whatever the daemon opens once and keeps
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


@pytest.mark.parametrize("row", ["note", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"])
def test_a_phase_inherits_the_standard_streams_and_at_most_the_memory_file(
    shim: Shim, layers: Layers, tmp_path: pathlib.Path, row: str, real_parts: tuple[real.Engine, real.Registry]
) -> None:
    engine, registry = real_parts
    name = registry.push("run/open:1.0", images.multi("open"))
    engine.pull(name)
    layers.write(
        {"9": f"r@sha256:{'0' * 64}", "10": str(engine.id_of(name))}.get(row, name), None if row == "2" else name
    )
    text = "#!/bin/sh\nexec ls -l /proc/self/fd\n"
    called = {"note": "analyzer", "8": "exporter", "9": "exporter", "10": "exporter"}.get(row, "restorer")
    phase = program(tmp_path / called, text)
    environ = {"CNB_PLATFORM_API": "0.12"} if row == "1" else {}
    if row not in ("5", "7"):
        environ["DOCKER_HOST"] = engine.url
    arguments = () if called == "restorer" else ("app",) if row == "10" else ("-daemon", "app")
    options = {"3": ("--no-daemon",), "4": ("--daemon",), "5": ("--daemon",)}.get(row, ())
    shim.unmeasured()
    ended = shim.run(phase, *arguments, options=options, **environ)
    assert ended.code == 0, ended.err
    assert ended.report["row"] == row, ended.report
    links = [line.partition(" -> ") for line in ended.out.splitlines()[1:]]
    more = {target for number, _, target in links if int(number.rpartition(" ")[2]) > 2 and "/fd" not in target}
    assert more == ({"/memfd:group.toml (deleted)"} if row in ("2", "4", "5") else set())
    engine.forget(registry.host)
