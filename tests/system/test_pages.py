"""Every shell block of every page, as its reader has it: in the page's order, with what the page put on PATH.

A page begins in a fresh copy of the checkout, and its own lines install the command; where two have the same line, the
second gets what it left. Names that are examples stand for what is here: the registry, the daemon, the layers
directory, and the stand-in's lifecycle. pack is a recorder.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from shim.demo import lifecycle as standin
from tests.support.build import SHIM
from tests.support.ground import Ground
from tests.support.images import image, member
from tests.support.layers import Layers
from tests.support.needs import leave_out, package_index
from tests.support.processes import program

ROOT = pathlib.Path(__file__).parents[2]
ENGINES = ("docker",)
LAST_OUTCOME = {
    "README.md": "prevented",
    "docs/tutorial.md": "kept-name",
    "docs/how-to/builder.md": None,
    "docs/how-to/quarkus.md": None,
    "docs/how-to/ci.md": "reverted",
    "docs/how-to/image-has-no-layers.md": "reverted",
    "docs/reference/daemons.md": None,
    "docs/upstream/crash.md": None,
}
"""The pages with shell blocks, and the last outcome that is seen when all of a page ran."""
CHECKS = re.compile(r"^\.ci/setup && \.venv/bin/pytest$", re.MULTILINE)
"""What the checks themselves run."""
INSTALLING = re.compile(r"^python3 -m venv \.venv && \.venv/bin/pip install -q (\S+)", re.MULTILINE)
"""What a page begins with."""
AND = re.compile(r"^(.* && .*[^\\\n])$", re.MULTILINE)
"""A list of commands, which a shell's -e lets fail in the middle."""
TO_TEXT: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}


def blocks_of(text: str, kind: str) -> Iterator[str]:
    """The blocks of a kind in a page, without the indent that a list gives them."""
    for found in re.finditer(rf"^( *)```{kind}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        yield "\n".join(line.removeprefix(found[1]) for line in found[2].splitlines())


def without_what_differs(text: str) -> list[str]:
    """Lines without what is another thing in each run: where a registry listens, a digest, an ID."""
    text = re.sub(r"127\.0\.0\.1:\d+|registry\.example", "REGISTRY", text)
    text = re.sub(r"\b(?:sha256:)?[0-9a-f]{8,64}…?", "HEX", re.sub(r"/\S*/try/", "/tmp/try/", text))
    return [line.strip() for line in text.splitlines() if line.strip()]


def not_shown(page: str, output: str) -> list[str]:
    """Return the lines of a page's samples that its blocks didn't write."""
    seen = without_what_differs(output)
    return [line for sample in blocks_of(page, "text") for line in without_what_differs(sample) if line not in seen]


class Place:
    """Where a page's blocks run."""

    def __init__(self, directory: pathlib.Path, shared: pathlib.Path, lifecycle: pathlib.Path, ground: Ground) -> None:
        self.engine, self.registry = ground.engine, ground.registry
        self.directory = directory
        self.layers = Layers(directory / "layers")
        self.lifecycle = directory / "cnb" / "lifecycle"
        shutil.copytree(lifecycle, self.lifecycle, symlinks=True)
        self.shared, self.checkout = shared, shared / "analyzed-shim"  # by one path, as scripts name it
        shutil.rmtree(self.checkout, ignore_errors=True)
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
        for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.checkout / name)
        tools, socket = directory / "tools", directory / "podman" / "podman.sock"
        tools.mkdir()
        socket.parent.mkdir()
        socket.symlink_to(self.engine.url.removeprefix("unix://"))
        self.recorded = directory / "recorded"
        program(tools / "pack", f'#!/bin/sh\necho "$@" >{self.recorded}\n')
        # The stand-in is written in Python, which a builder needn't have; and this daemon has no network of its own.
        more = "--network host --volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro"
        insert = f'if [ "$1" = run ]; then shift; set -- run {more} "$@"; fi'
        program(tools / "docker", f'#!/bin/sh\n{insert}\nexec {shutil.which("docker")} "$@"\n')
        switch, base = ground.lay("multi") or "", f"{self.registry.host}/run/base:1.0"
        self.standin = {"STANDIN_SWITCH": switch, "STANDIN_RUN_IMAGE": base}
        self.environ = {
            **package_index(),
            **self.standin,
            "HOME": str(directory),
            "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin",
            "DOCKER_HOST": self.engine.url,
            "CNB_LAYERS_DIR": str(self.layers.path),
            "XDG_RUNTIME_DIR": str(directory),
        }

    def put(self, text: str, *kept: str) -> str:
        """Put what is here in the place of a page's examples, but for some."""
        names = {
            "/cnb/lifecycle": str(self.lifecycle),
            "/layers": str(self.layers.path),
            "/tmp/try": str(self.directory / "try"),
            "registry.example": self.registry.host,
            "/var/run/docker.sock:/var": f"{self.engine.url.removeprefix('unix://')}:/var",
        }
        wanted = "|".join(re.escape(name) for name in names if name not in kept)
        return re.sub(rf"(?<![\w.])(?:{wanted})", lambda found: names[found[0]], text)

    def run(self, script: str, shell: str = "sh", **environ: str) -> str:
        """Run a script that has to succeed, line by line, and return what it wrote."""
        script = re.sub(AND, r"\1\ntest $? -eq 0", script)
        ended = subprocess.run([shell, "-euc", script], env=self.environ | environ, cwd=self.checkout, **TO_TEXT)
        assert ended.returncode == 0, (script, ended.stdout)
        assert "Traceback" not in ended.stdout
        return str(ended.stdout)

    def install(self, script: str) -> str:
        """Do what a script begins with, and return the rest of it."""
        line = INSTALLING.match(script)
        if line is None:
            return script
        kept, venv = self.shared / f"installed {line[1]}", self.checkout / ".venv"
        if kept.exists():
            shutil.copytree(kept, venv, symlinks=True)
        else:
            self.run(line[0])
            shutil.copytree(venv, kept, symlinks=True)
        return script.removeprefix(line[0]).removeprefix(" && ")

    def bare(self, *phases: Sequence[str]) -> None:
        """Run phases without the shim: what lies there when a page begins."""
        for phase, *arguments in phases:
            self.run(f"{self.lifecycle / phase} {' '.join(arguments)}", CNB_PLATFORM_API="0.11")

    def shim(self, *words: str) -> None:
        ended = subprocess.run([*SHIM, *words], env=os.environ | {"DOCKER_HOST": self.engine.url}, cwd=ROOT, **TO_TEXT)
        assert ended.returncode == 0, ended.stdout

    def push_image(self, name: str) -> str:
        """Push an image with the stand-in's lifecycle, as a builder or a lifecycle image is."""
        text = pathlib.Path(standin.__file__).read_text().partition("\n")[2]
        files = [member("cnb/lifecycle/lifecycle", f"#!/usr/bin/python3 -S\n{text}".encode())]
        files += [member(f"cnb/lifecycle/{phase}", link="lifecycle") for phase in standin.PHASES]
        files += [member(directory, link=f"usr/{directory}") for directory in ("lib", "lib64", "bin")]
        environ = {**self.standin, "CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000"}
        return self.registry.push(name, image(files, environ=[f"{key}={value}" for key, value in environ.items()]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the checkout is, and what the pages' first lines left."""
    directory = tmp_path_factory.mktemp("pages")
    directory.chmod(0o755)
    return directory


@pytest.fixture
def place(tmp_path: pathlib.Path, shared: pathlib.Path, lifecycle: pathlib.Path, ground: Ground) -> Place:
    if shutil.which("docker") is None or not os.path.exists("/usr/bin/python3"):
        leave_out("not installed: docker's command, or /usr/bin/python3")
    for directory in (tmp_path, tmp_path.parent):
        directory.chmod(0o755)
    return Place(tmp_path, shared, lifecycle, ground)


def outcomes(output: str) -> list[str]:
    return re.findall(r"^(?:.*analyzed-shim: |set |the daemon ).*\[([a-z-]+)\]$", output, re.MULTILINE)


def test_no_page_with_shell_blocks_is_left_out() -> None:
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    assert {str(page.relative_to(ROOT)) for page in pages if "```sh\n" in page.read_text()} == set(LAST_OUTCOME)


@pytest.mark.parametrize("page", LAST_OUTCOME)
def test_the_blocks_of_a_page_run(page: str, place: Place) -> None:
    text = (ROOT / page).read_text()
    for name in ("builder", "lifecycle"):
        place.push_image(name)
    bare = [("analyzer", "-daemon", "my-app"), ("detector",)]
    place.bare(*bare, *([("restorer",)] if "image-has-no-layers" in page else []))
    blocks = [block for block in blocks_of(text, "sh") if not CHECKS.search(block)]
    assert blocks
    output = place.run(place.install(place.put("\n".join(blocks))))
    assert not not_shown(text, output), output
    assert outcomes(output)[-1:] == [outcome for outcome in (LAST_OUTCOME[page],) if outcome], output
    for made in re.findall(r"--tag (\S+)", "\n".join(blocks)):
        assert place.engine.id_of(place.put(made)), made
    if place.recorded.exists():
        words = place.recorded.read_text().split()
        assert {word for word in words if word.startswith("--")} <= {"--builder", "--lifecycle-image"}
        assert place.engine.id_of(words[words.index("--lifecycle-image") + 1])


def test_a_sample_that_no_block_wrote_is_noticed() -> None:
    page = "```text\nset to 3bcd0eed08dc… in 127.0.0.1:5000/a\nnever said\n```\n"
    assert not_shown(page, "  set to 0123456789ab in registry.example/a\n") == ["never said"]


def of_ci(at: int) -> Any:
    return yaml.safe_load(list(blocks_of((ROOT / "docs" / "how-to" / "ci.md").read_text(), "yaml"))[at])


def test_the_steps_for_github_build_in_containers_of_the_copy(place: Place) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    _, copy, build = of_ci(0)["jobs"]["build"]["steps"]
    assert copy["with"].keys() <= action["inputs"].keys()
    image = place.push_image("builder")
    assert place.put(copy["with"]["image"]) == image
    place.shim("builder", image, "--tag", place.put(copy["with"]["tag"]))
    output = place.run(place.put(build["run"], "/layers", "/cnb/lifecycle"), "bash")
    assert outcomes(output) == ["prevented"]
    assert "*** Images on" in output


def test_the_job_for_gitlab_asks_the_daemon_beside_it(place: Place) -> None:
    job = of_ci(1)["build"]
    variables = {name: str(value) for name, value in job["variables"].items()}
    assert job["services"] == ["docker:dind"]  # which listens on 2375 if and only if this is empty
    assert (variables.pop("DOCKER_TLS_CERTDIR"), variables.pop("DOCKER_HOST")) == ("", "tcp://docker:2375")
    place.shim("install", str(place.lifecycle))
    script = place.put("\n".join(job["script"]))
    output = place.run(script, CI_PROJECT_DIR=str(place.checkout), **variables)
    assert outcomes(output) == ["prevented"]
    assert "*** Images on" in output


def test_the_task_for_tekton_runs_each_phase_wrapped_once(place: Place) -> None:
    task = of_ci(2)["spec"]
    assert {one["name"] for one in task["stepTemplate"]["volumeMounts"]} <= {one["name"] for one in task["volumes"]}
    place.shim("install", str(place.lifecycle))
    variables = {one["name"]: one["value"] for one in task["stepTemplate"]["env"]}
    output = ""
    for step in task["steps"]:
        script = place.put(" ".join(step["command"]))
        output += place.run(script, CNB_LOG_LEVEL="debug", **variables)
    assert outcomes(output) == ["noted", "prevented", "resolves"]
    assert "*** Images on" in output
