"""Every shell block of every page, as a reader runs it: with what the pages told to install, and nothing else.

The command is installed by the install page's own line, from the wheel of this checkout. Names that are examples stand
for what is here: the registry, the layers directory, the lifecycle's directory (the stand-in's). docker is the real
one; pack, systemctl and a container engine's login are recorders, and what is recorded is compared with what those
have. What a page marks as needing a forge has its commands run too, those of an image in that image.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shim.phase.invocation import WRAPPED
from tests.support import real
from tests.support.build import Build
from tests.support.images import ETC, image, lifecycle, member
from tests.support.layers import Layers
from tests.support.needs import leave_out, package_index
from tests.support.parts import Parts
from tests.support.processes import program

ROOT = pathlib.Path(__file__).parents[2]
ENGINES = ("docker",)
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if re.search(r"^ *```(sh|yaml)$", page.read_text(), re.MULTILINE)
)
RECORDED: dict[tuple[str, ...], set[str]] = {
    ("pack", "build"): {"--builder", "--lifecycle-image"},
    ("systemctl", "--user", "start"): set(),
    ("docker", "load"): {"--input"},
    ("docker", "tag"): set(),
}
"""What the pages call that can't be run here, and the options that it has there."""
ELSEWHERE = re.compile(r"\.ci/|nox|pytest|mkdocs|packaging/|benchmarks/|docs/render|-m venv \.venv")
"""What the checks themselves run, or other tests: setting up a checkout, and developing in it."""


class Block:
    """A block of a page."""

    def __init__(self, kind: str, text: str, marked: bool) -> None:
        self.kind, self.text, self.marked = kind, text, marked


def blocks_of(page: pathlib.Path) -> Iterator[Block]:
    text = page.read_text()
    for found in re.finditer(r"^( *)```(sh|yaml)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        lines = [line.removeprefix(found[1]) for line in found[3].splitlines()]
        section = text[: found.start()].rpartition("\n## ")[2]
        yield Block(found[2], "\n".join(lines), "<!-- needs a forge" in section)


def scripts_in(node: Any) -> Iterator[str]:
    """What a forge's configuration has a shell run."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from scripts_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from scripts_in(value)


@pytest.fixture(scope="module")
def reader(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The home of a reader who has pipx, and who ran the install page's first block."""
    home = tmp_path_factory.mktemp("reader")
    for parent in (home, home.parent):
        parent.chmod(0o755)
    shutil.copytree(wheel.parent, home / "wheels")
    subprocess.run([sys.executable, "-m", "venv", str(home / "pipx")], check=True)
    subprocess.run([home / "pipx" / "bin" / "pip", "install", "-q", "pipx"], check=True, env=environ_of(home))
    install = next(blocks_of(ROOT / "docs" / "how-to" / "install.md"))
    assert install.text.startswith("pipx install 'analyzed-shim[bundle]'\n")
    ended = subprocess.run(
        ["sh", "-euc", install.text], env=environ_of(home), cwd=home, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^analyzed-shim \d", ended.stdout, re.MULTILINE)
    return home


def environ_of(home: pathlib.Path) -> dict[str, str]:
    given = package_index()
    found = f"{given.get('PIP_FIND_LINKS', '')} {home / 'wheels'}".strip()
    own = {"HOME": str(home), "PIP_FIND_LINKS": found, "USE_EMOJI": "0", "PIPX_DEFAULT_PYTHON": sys.executable}
    return {**given, **own, "PATH": f"{home}/.local/bin:{home}/pipx/bin:/usr/local/bin:/usr/bin:/bin"}


class Place:
    """Where the blocks of a page run, in the page's order."""

    def __init__(
        self,
        home: pathlib.Path,
        directory: pathlib.Path,
        build: Build,
        layers: Layers,
        parts: Parts,
        engine: real.Engine,
    ) -> None:
        self.engine, self.layers, self.parts = engine, layers, parts
        self.directory = directory
        self.lifecycle = directory / "cnb" / "lifecycle"
        shutil.copytree(build.lifecycle, self.lifecycle, symlinks=True)
        tools = directory / "tools"
        tools.mkdir()
        self.recorded = directory / "recorded"
        self.recorded.touch()
        for name in ("pack", "systemctl"):
            program(tools / name, self.recorder())
        program(
            tools / "docker",
            f'#!/bin/sh\ncase $1 in load | tag) ;; *) exec {shutil.which("docker")} "$@" ;; esac\n'
            + self.recorder().partition("\n")[2],
        )
        own = build.env | {"STANDIN_RUN_IMAGE": parts.name, "STANDIN_SWITCH": parts.name}
        self.environ = {
            **{name: value for name, value in own.items() if name not in ("PATH", "PYTHONPATH")},
            **environ_of(home),
            **parts.at,
            "XDG_RUNTIME_DIR": str(directory),
        }
        self.environ["PATH"] = f"{tools}:{self.environ['PATH']}"

    def recorder(self) -> str:
        return f'#!/bin/sh\nprintf "%s\\t" "${{0##*/}}" "$@" >>{self.recorded}\necho >>{self.recorded}\n'

    def put(self, text: str, registry: str) -> str:
        """Put what is here in the place of a page's examples."""
        names = {
            "/cnb/lifecycle": str(self.lifecycle),
            "/layers": str(self.layers.path),
            "/tmp/try": str(self.directory / "try"),
            "registry.example": registry,
            "/var/run/docker.sock:/var": f"{self.engine.url.removeprefix('unix://')}:/var",
        }
        return re.sub(rf"(?<![\w.])(?:{'|'.join(map(re.escape, names))})", lambda found: names[found[0]], text)

    def run(self, text: str, of_images: bool) -> None:
        self.layers.write(self.parts.name, self.parts.name)
        self.layers.note.unlink(missing_ok=True)
        environ = self.environ | ({"DOCKER_HOST": self.engine.url} if of_images else {})
        if "XDG_RUNTIME_DIR" in text:  # there the page names a socket that isn't here
            text += "\nunset DOCKER_HOST"
        place = self.directory / "try"
        ended = subprocess.run(
            ["sh", "-euc", text],
            env=environ,
            cwd=place if place.exists() else self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, (text, ended.stdout, ended.stderr)
        assert "Traceback" not in ended.stderr


OF_IMAGES = re.compile(r"analyzed-shim builder |--image |docker run")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_blocks_of_a_page_run(
    page: pathlib.Path,
    reader: pathlib.Path,
    build: Build,
    layers: Layers,
    parts: Parts,
    tmp_path: pathlib.Path,
    real_parts: tuple[real.Engine, real.Registry],
    of_image: str,
) -> None:
    if shutil.which("docker") is None:
        leave_out("not installed: docker's command")
    engine, registry = real_parts
    place = Place(reader, tmp_path, build, layers, parts, engine)
    bare = image([member(*ETC)], lifecycle(), [member("etc/more", b"x")])
    for name in ("builder", "lifecycle", "run"):
        registry.push(f"{name}:latest", bare)
    for name in ("builder", "lifecycle"):
        engine.pull(f"{registry.host}/{name}:latest")
    ran, derived = 0, set()
    for block in blocks_of(page):
        text = block.text
        if block.kind == "yaml":
            assert block.marked, "a forge's configuration says that it needs one"
            of_forge = yaml.safe_load(text)
            text = "\n".join(scripts_in(of_forge))
            ran += 1
            if "python3 -m venv" in text:  # GitLab's: in an environment of its own
                text = text.replace("/tmp/shim", str(tmp_path / "shim"))
        elif ELSEWHERE.search(text):
            lines = [line for line in text.splitlines() if not ELSEWHERE.search(line)]
            text = "\n".join(lines)
            ran += 1
        if not text.strip():
            continue
        of_images = OF_IMAGES.search(text) is not None
        place.run(place.put(text, registry.host if of_images else parts.registry.host), of_images)
        derived |= set(re.findall(r"analyzed-shim builder .*--tag (\S+)", text))
        ran += 1
    assert ran, page
    for name in derived:
        assert engine.id_of(name.replace("registry.example", registry.host)), name
    for line in place.recorded.read_text().splitlines():
        call = line.split("\t")[:-1]
        verb = next(verb for verb in RECORDED if tuple(call[: len(verb)]) == verb)
        options = [word.partition("=")[0] for word in call[len(verb) :] if word.startswith("-")]
        assert set(options) <= RECORDED[verb], call
        if "--lifecycle-image" in call:
            assert call[call.index("--lifecycle-image") + 1].replace(parts.registry.host, "registry.example") in derived


def test_commands_that_name_an_image_are_there(
    real_parts: tuple[real.Engine, real.Registry], build: Build, bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Tekton's steps, each in the image that it names: a builder with the drop-ins, and phases that say their name."""
    if shutil.which("gcc") is None:
        leave_out("not installed: gcc")
    engine, registry = real_parts
    source = tmp_path / "phase.c"
    source.write_text("#include <stdio.h>\nint main(int n, char **a) { puts(a[0]); return 0; }\n")
    subprocess.run(["gcc", "-static", "-O1", "-o", tmp_path / "phase", source], check=True)
    phases = [member(f"cnb/lifecycle/{phase}", (tmp_path / "phase").read_bytes()) for phase in WRAPPED]
    name = registry.push("pages/builder:1", image([member(*ETC), *phases]))
    tag = f"{registry.host}/pages/builder-shim:1"
    command = [sys.executable, "-m", "shim", "builder", name, "--tag", tag, "--bundle", str(bundle)]
    build.call(*command, DOCKER_HOST=engine.url).expect(code=0)
    ran = 0
    for page in PAGES:
        for block in blocks_of(page):
            task = yaml.safe_load(block.text) if block.kind == "yaml" else None
            for step in task.get("spec", {}).get("steps", ()) if isinstance(task, dict) else ():
                assert step["image"] == "registry.example/builder-shim"
                host = engine.client.create_host_config(network_mode="none")
                made = engine.client.create_container(
                    tag,
                    step["args"],
                    entrypoint=step["command"],
                    user="0",
                    environment={"CNB_PLATFORM_API": "0.11"},
                    host_config=host,
                )
                engine.client.start(made["Id"])
                code = engine.client.wait(made["Id"])["StatusCode"]
                said = engine.client.logs(made["Id"]).decode()
                engine.client.remove_container(made["Id"], force=True)
                assert code == 0, said
                assert f"/cnb/lifecycle/{step['name'].removesuffix('e')}" in said or "/cnb/lifecycle/" in said
                ran += 1
    assert ran == 2
