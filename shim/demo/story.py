"""The story of lifecycle issue 1457, played with real processes: what fails, and what the shim does about it."""

from __future__ import annotations

import contextlib
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Protocol

from shim.demo import images, layout
from shim.demo.lifecycle import ARCHITECTURE
from shim.demo.servers import Engine, Registry
from shim.errors import PullFailed, ShimError, Unreachable
from shim.record import Record

_LONGEST = 60
"""Bytes of a temporary directory's path that leave room for a socket's in it, which may have 107."""


class AnEngine(Protocol):
    """What the scenes need of an engine, embedded or the user's own."""

    url: str

    def pull(self, name: str) -> bool:
        """Pull an image by name."""

    def tag(self, reference: str, image_id: str) -> None:
        """Have an image under another name."""

    def find(self, reference: str) -> str | None:
        """Return the ID of what is under a reference."""


class Scene(Record):
    """One build, without the shim and with it."""

    title: str
    what: str
    image: str | None
    """The run image that the extension switches to; None: it switches none."""
    wrapped: tuple[str, ...] = ("analyzer", "restorer", "exporter")
    daemon: bool = True


class Told(Record):
    """How one build went."""

    codes: dict[str, int]
    """Exit status by phase; a build ends at the first that isn't 0."""
    lines: list[str]
    """What the phases and the shim said on the way."""
    before: str
    """analyzed.toml before the restorer."""
    after: str
    """analyzed.toml at the end."""

    @property
    def right(self) -> bool:
        """Whether every phase ended well."""
        return not any(self.codes.values())


class DockerEngine:
    """The user's own daemon, and what of the demonstration to take out of it again."""

    def __init__(self, registry: Registry) -> None:
        """Connect to the daemon as the shim does.

        Raises:
            ShimError: there is none that answers.

        """
        from shim.daemon.containers import Daemon

        try:
            self._daemon = Daemon(os.environ.get("DOCKER_HOST") or None, 10, os.environ)
        except Unreachable as problem:
            raise ShimError(str(problem), "start it, or play the demonstration without --docker") from None
        self.url = self._daemon.url
        self._prefix = f"{registry.host}/"

    def pull(self, name: str) -> bool:
        """Pull an image by name."""
        try:
            self._daemon.pull(name, lambda *_: None)
        except PullFailed as problem:  # Podman wants TLS on 127.0.0.1 too
            raise ShimError(
                f"your daemon doesn't pull from the demonstration's registry on 127.0.0.1: {problem}",
                "play the demonstration without --docker",
            ) from None
        return True

    def tag(self, reference: str, image_id: str) -> None:
        """Have an image under another name."""
        self._daemon.tag(image_id, reference)

    def find(self, reference: str) -> str | None:
        """Return the ID of what is under a reference."""
        return self._daemon.image_id(reference)

    def clean_up(self) -> None:
        """Take every name of the demonstration's registry out of the daemon."""
        self._daemon.forget(self._prefix)


def play(docker: bool) -> int:
    """Play all scenes on stdout, and return 0 if each went as it should.

    Args:
        docker: use the user's own daemon instead of the embedded engine.

    Raises:
        ShimError: the user's daemon can't be used.

    """
    usual = tempfile.gettempdir()
    place = usual if len(os.fsencode(usual)) < _LONGEST else "/tmp"  # noqa: S108  # by a name of its own
    with tempfile.TemporaryDirectory(prefix="analyzed-shim-demo-", dir=place) as name, contextlib.ExitStack() as ends:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        registry = Registry()
        ends.callback(registry.stop)
        engine: AnEngine
        if docker:
            engine = own = DockerEngine(registry)
            ends.callback(own.clean_up)
        else:
            engine = embedded = Engine(str(directory / "engine.sock"))
            ends.callback(embedded.stop)
        kind = "your own daemon" if docker else "an embedded one on a temporary socket"
        _say(f"Real: the shim, every process, the sockets. The daemon: {kind}.")
        _say("Embedded: the registry, on 127.0.0.1. A stand-in: the lifecycle, which does to analyzed.toml")
        _say("what lifecycle 0.18 to 0.21 does at Platform API 0.11, and builds nothing.\n")
        stage = _Stage(directory, registry, engine)
        wrong = [scene.title for scene in _scenes(registry, engine) if not stage.play(scene)]
        _say("Every scene went as it should." if not wrong else f"Went otherwise than it should: {', '.join(wrong)}.")
        return 1 if wrong else 0


def _scenes(registry: Registry, engine: AnEngine) -> list[Scene]:
    run_image = registry.push("run/app:1.0", images.multi("the run image"))
    engine.pull(run_image)
    base = registry.push("run/base:1.0", images.single("the builder's run image", ARCHITECTURE))
    engine.pull(base)
    local = f"{registry.host}/run/local:1.0"
    engine.tag(local, engine.find(base) or "")
    return [
        Scene(
            title="A multi-arch run image, pulled by its tag",
            what="The restorer writes the digest for this architecture, which the daemon never heard of.",
            image=run_image,
        ),
        Scene(
            title="A run image that is only in the daemon",
            what="The restorer asks the registry, which doesn't have it.",
            image=local,
        ),
        Scene(
            title="An extension that switches no run image",
            what="The restorer crashes.",
            image=None,
        ),
        Scene(
            title="Only the exporter is wrapped",
            what="The restorer rewrites; the exporter's wrapper knows by -daemon what build it is.",
            image=run_image,
            wrapped=("exporter",),
        ),
        Scene(
            title="A build for a registry, on the same machine",
            what="Here the digest is right, and stays.",
            image=run_image,
            daemon=False,
        ),
    ]


class _Stage:
    """Where the scenes are played."""

    def __init__(self, directory: pathlib.Path, registry: Registry, engine: AnEngine) -> None:
        self.directory = directory
        self.registry = registry
        self.engine = engine
        self.lifecycle = layout.lay_out(directory / "lifecycle")
        self.played = 0

    def play(self, scene: Scene) -> bool:
        """Play a scene, and say whether it went as it should."""
        self.played += 1
        _say(_bold(f"{self.played}. {scene.title}"))
        _say(f"   {scene.what}")
        bare = self._build(scene, ())
        _say(f"   Without the shim: {_verdict(bare)}")
        _show(bare.lines)
        if bare.after != bare.before:
            _say("   analyzed.toml, before and after the restorer:")
            _show(_diff(bare.before, bare.after))
        shimmed = self._build(scene, scene.wrapped)
        _say(f"   With {', '.join(scene.wrapped)} wrapped: {_verdict(shimmed)}")
        _show(shimmed.lines)
        if shimmed.after != bare.after:
            _say("   analyzed.toml, without the shim and with it:")
            _show(_diff(bare.after, shimmed.after))
        elif not scene.daemon:
            _say("   analyzed.toml is the same, byte for byte.")
        _say("")
        expected = shimmed.after == bare.after if not scene.daemon else not bare.right
        return shimmed.right and expected

    def _build(self, scene: Scene, wrapped: tuple[str, ...]) -> Told:
        """Run the phases one after the other, as a platform does, until one fails."""
        layers = pathlib.Path(tempfile.mkdtemp(dir=self.directory, prefix="layers-"))
        # The embedded engine isn't the one that the user's variables are about.
        gone = ("CNB_", "ANALYZED_SHIM_", "STANDIN_", *(["DOCKER_"] if isinstance(self.engine, Engine) else []))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(gone)}
        environ = {**kept, "CNB_PLATFORM_API": "0.11", "CNB_LAYERS_DIR": str(layers), "DOCKER_HOST": self.engine.url}
        environ |= {"STANDIN_SWITCH": scene.image} if scene.image else {"STANDIN_EXTENSION": "1"}
        daemon = ["-daemon"] if scene.daemon else []
        app = f"{self.registry.host}/app/demo:latest"
        calls = {
            "analyzer": [*daemon, "-run-image", f"{self.registry.host}/run/base:1.0", app],
            "detector": [],
            "restorer": [],
            "exporter": [*daemon, app],
        }
        toml = layers / "analyzed.toml"
        codes: dict[str, int] = {}
        lines: list[str] = []
        before = ""
        for phase, arguments in calls.items():
            command = [str(self.lifecycle / phase), *arguments]
            if phase in wrapped:
                command = [sys.executable, "-m", "shim", "run", "--", *command]
            if phase == "restorer":
                before = toml.read_text()
            ended = subprocess.run(
                command,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                check=False,
            )
            lines += [f"{phase}: {line}" for line in ended.stdout.splitlines()]
            codes[phase] = ended.returncode
            if ended.returncode:
                break
        return Told(codes=codes, lines=lines, before=before, after=toml.read_text())


def _verdict(told: Told) -> str:
    if told.right:
        return _colour("32", "the build exports")
    phase, code = list(told.codes.items())[-1]
    return _colour("31", f"the {phase} fails with exit status {code}")


def _diff(old: str, new: str) -> Iterator[str]:
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield _colour("31" if line.startswith("-") else "32", line)


def _show(lines: list[str] | Iterator[str]) -> None:
    for line in lines:
        _say(f"     {line}")


def _say(text: str) -> None:
    print(text, flush=True)


def _bold(text: str) -> str:
    return _colour("1", text)


def _colour(code: str, text: str) -> str:
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\x1b[{code}m{text}\x1b[0m"
    return text
