"""The story of lifecycle issue 1457, played with real processes: what fails, and what the shim does about it."""

from __future__ import annotations

import contextlib
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shim.demo import images, layout
from shim.demo.lifecycle import ARCHITECTURE
from shim.demo.servers import Engine, Registry

_LONGEST = 60
"""Bytes of a temporary directory's path that leave room for a socket's in it, which may have 107."""
_INTRODUCTION = """\
Real: the shim, every process, the sockets. Embedded: the registry, on 127.0.0.1, and the daemon, on a temporary socket.
A stand-in: the lifecycle, which does to analyzed.toml what lifecycle 0.18 to 0.21 does at Platform API 0.11, and builds
nothing.
"""


class Scene(NamedTuple):
    """One build, without the shim and with it."""

    title: str
    what: str
    image: str | None
    """The run image that the extension switches to; None: it switches none."""
    wrapped: tuple[str, ...] = ("analyzer", "restorer", "exporter")
    daemon: bool = True


class Told(NamedTuple):
    """How one build went: the last phase that ran, what all said, and analyzed.toml around the restorer and after."""

    phase: str
    code: int
    lines: list[str]
    before: str
    after: str


def play() -> int:
    """Play all scenes on stdout, and return 0 if each went as it should."""
    usual = tempfile.gettempdir()
    place = usual if len(os.fsencode(usual)) < _LONGEST else "/tmp"  # noqa: S108  # by a name of its own
    with tempfile.TemporaryDirectory(prefix="analyzed-shim-demo-", dir=place) as name, contextlib.ExitStack() as ends:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        registry, engine = Registry(), Engine(str(directory / "engine.sock"))
        for server in (registry, engine):
            ends.callback(server.stop)
        print(_INTRODUCTION)
        stage = _Stage(directory, registry, engine)
        wrong = [scene.title for number, scene in enumerate(stage.scenes(), 1) if not stage.play(number, scene)]
        print(f"Went otherwise than it should: {', '.join(wrong)}." if wrong else "Every scene went as it should.")
        return 1 if wrong else 0


class _Stage:
    """Where the scenes are played."""

    def __init__(self, directory: pathlib.Path, registry: Registry, engine: Engine) -> None:
        self.directory, self.registry, self.engine = directory, registry, engine
        self.lifecycle = layout.lay_out(directory / "lifecycle")

    def scenes(self) -> list[Scene]:
        run_image = self.registry.push("run/app:1.0", images.multi("the run image"))
        base = self.registry.push("run/base:1.0", images.single("the builder's run image", ARCHITECTURE))
        for image in (run_image, base):
            self.engine.pull(image)
        local = f"{self.registry.host}/run/local:1.0"
        self.engine.tag(local, self.engine.find(base) or "")
        rewrites = "The restorer writes the digest reference for this architecture, which the daemon doesn't have."
        lacks = "The restorer asks the registry, which doesn't have it."
        last = "The restorer rewrites the reference; the wrapped exporter sees -daemon, and sets it to the image ID."
        right = "The digest reference is right, and stays."
        return [
            Scene("A multi-arch run image, pulled by its tag", rewrites, run_image),
            Scene("A run image that is only in the daemon", lacks, local),
            Scene("An extension that switches no run image", "The restorer crashes.", None),
            Scene("Only the exporter is wrapped", last, run_image, wrapped=("exporter",)),
            Scene("A build for a registry, on the same machine", right, run_image, daemon=False),
        ]

    def play(self, number: int, scene: Scene) -> bool:
        """Play a scene, and return whether it went as it should."""
        print(_colour("1", f"{number}. {scene.title}"), f"   {scene.what}", sep="\n")
        bare = self._build(scene, ())
        _show(f"Without the shim: {_verdict(bare)}", bare.lines)
        if bare.after != bare.before:
            _show("analyzed.toml, before and after the restorer:", _diff(bare.before, bare.after))
        shimmed = self._build(scene, scene.wrapped)
        _show(f"With {', '.join(scene.wrapped)} wrapped: {_verdict(shimmed)}", shimmed.lines)
        if shimmed.after != bare.after:
            _show("analyzed.toml, without the shim and with it:", _diff(bare.after, shimmed.after))
        elif not scene.daemon:
            _show("analyzed.toml is the same, byte for byte.", ())
        print(flush=True)
        return not shimmed.code and (bool(bare.code) if scene.daemon else shimmed.after == bare.after)

    def _build(self, scene: Scene, wrapped: tuple[str, ...]) -> Told:
        """Run the phases one after the other, as a platform does, until one fails."""
        layers = pathlib.Path(tempfile.mkdtemp(dir=self.directory, prefix="layers-"))
        gone = ("CNB_", "ANALYZED_SHIM_", "STANDIN_", "DOCKER_")  # they aren't about the embedded daemon
        kept = {key: value for key, value in os.environ.items() if not key.startswith(gone)}
        environ = {**kept, "CNB_PLATFORM_API": "0.11", "CNB_LAYERS_DIR": str(layers), "DOCKER_HOST": self.engine.url}
        environ |= {"STANDIN_SWITCH": scene.image} if scene.image else {"STANDIN_EXTENSION": "1"}
        daemon = ["-daemon"] if scene.daemon else []
        app = f"{self.registry.host}/app/demo:latest"
        calls = {"analyzer": [*daemon, "-run-image", f"{self.registry.host}/run/base:1.0", app]}
        calls |= {"detector": [], "restorer": [], "exporter": [*daemon, app]}
        lines, before, phase, code = [], "", "", 0
        for phase, arguments in calls.items():
            command = [str(self.lifecycle / phase), *arguments]
            if phase in wrapped:
                command = [sys.executable, "-m", "shim", "run", "--", *command]
            if phase == "restorer":
                before = (layers / "analyzed.toml").read_text()
            ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
            lines += [f"{phase}: {line}" for line in (ended.stdout + ended.stderr).splitlines()]
            code = ended.returncode
            if code:
                break
        return Told(phase, code, lines, before, (layers / "analyzed.toml").read_text())


def _verdict(told: Told) -> str:
    fails = f"the {told.phase} fails with exit status {told.code}"
    return _colour("31", fails) if told.code else _colour("32", "the build exports")


def _diff(old: str, new: str) -> Iterator[str]:
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield _colour("31" if line.startswith("-") else "32", line)


def _show(title: str, lines: Iterable[str]) -> None:
    print(f"   {title}", *(f"     {line}" for line in lines), sep="\n", flush=True)


def _colour(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
