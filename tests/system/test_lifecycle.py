"""Whole builds, analyze to export, on each kind of daemon and a real registry: by the stand-in, and by real phases.

Real phases are those in the directory that LIFECYCLE_DIR names, such as one that was taken out of the published
lifecycle image; without it they are left out. The Platform APIs are tried by turns, with NIGHTLY=1 each with both.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shim import analyzed
from shim.call import WRAPPED as ALL
from shim.demo.lifecycle import ARCHITECTURE, PHASES, split_tag
from tests.support import real
from tests.support.build import SHIM
from tests.support.build import Build as OfOnePhase
from tests.support.ground import CASES, SWITCHED, Ground
from tests.support.launchers import CLOSES, LAUNCHERS, lay_out
from tests.support.processes import program

REAL = os.environ.get("LIFECYCLE_DIR", "")
needs_real = pytest.mark.skipif(not REAL, reason="LIFECYCLE_DIR names no directory of real phases")
LIFECYCLES, APIS = ("0.17", "0.20", "real"), ("0.10", "0.11")
NIGHTLY = bool(os.environ.get("NIGHTLY"))
WAYS = {"all three": ALL, "the restorer alone": ("restorer",), "no socket at the restorer": ALL}
WAYS |= {"the exporter alone": ("exporter",)}
FAILS_BARE = ("daemon-only", "no-switch")
"""Where the restorer itself fails, so that the exporter's wrapper never has its turn."""
KNOWS_THE_DIGEST = {"docker": ["single"], "podman": ["single", "multi", "pinned"], "containerd": ["single"]}
"""By engine the cases in which it has its image under the architecture's digest too."""

NAMED = 'id = "standin/{}"\nversion = "0.1"\n'
TREE = {
    "buildpacks/standin_bp/0.1/buildpack.toml": f'api = "0.9"\n[buildpack]\n{NAMED.format("bp")}[[stacks]]\nid = "*"\n',
    "buildpacks/standin_bp/0.1/bin/detect": "#!/bin/sh\nexit 0\n",
    "buildpacks/standin_bp/0.1/bin/build": (
        '#!/bin/sh\nprintf \'[[processes]]\\ntype = "web"\\ncommand = ["/bin/true"]\\ndefault = true\\n\''
        ' > "$CNB_LAYERS_DIR/launch.toml"\n'
    ),
    "extensions/standin_ext/0.1/extension.toml": f'api = "0.9"\n[extension]\n{NAMED.format("ext")}',
    "extensions/standin_ext/0.1/bin/detect": "#!/bin/sh\nexit 0\n",
    "extensions/standin_ext/0.1/bin/generate": (
        '#!/bin/sh\n[ ! -f run-image ] || echo "FROM $(cat run-image)" > "$CNB_OUTPUT_DIR/run.Dockerfile"\n'
    ),
    "order.toml": f"[[order]]\n[[order.group]]\n{NAMED.format('bp')}",
    "app/x": "",
}
EXTENSIONS = f"[[order-extensions]]\n[[order-extensions.group]]\n{NAMED.format('ext')}"


class Build:
    """One whole build, in a directory of its own."""

    numbers = itertools.count()

    def __init__(
        self, ground: Ground, root: pathlib.Path, standin: pathlib.Path, of: str, case: str, api: str, daemon: bool
    ) -> None:
        self.ground, self.root, self.daemon, self.is_real = ground, root, daemon, of == "real"
        self.directory = pathlib.Path(REAL) if self.is_real else standin
        self.user = 1000 if self.is_real else 0
        self.toml = root / "layers" / "analyzed.toml"
        self.name = ground.lay(case)
        self.base = f"{ground.registry.host}/run/base:1.0"
        self.app = f"{ground.registry.host}/app/whole:{next(self.numbers)}"  # no previous image: it would count
        order = TREE["order.toml"] + EXTENSIONS * (case != "no-extension")
        more = {"stack.toml": f'[run-image]\nimage = "{self.base}"\n', "order.toml": order}
        for path, text in {**TREE, **more, **({"app/run-image": self.name} if self.name else {})}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
            (root / path).chmod(0o755 if "/bin/" in path else 0o644)
        for directory in ("layers", "cache", "platform", "home", "app"):
            (root / directory).mkdir(exist_ok=True)
            os.chown(root / directory, self.user, self.user)
        self.environ = {"PATH": os.environ["PATH"], "HOME": f"{root}/home", "PYTHONPATH": os.getcwd()}
        self.environ |= {"CNB_EXPERIMENTAL_MODE": "warn", "CNB_STACK_ID": "standin", "DOCKER_HOST": ground.engine.url}
        self.environ |= {"STANDIN_SWITCH": self.name or "", "STANDIN_VERSION": "" if self.is_real else of}
        self.environ |= {"STANDIN_EXTENSION": "1" if case != "no-extension" else "", "CNB_PLATFORM_API": api}

    def arguments(self, phase: str) -> list[str]:
        root, daemon = self.root, ["-daemon"] * self.daemon
        ids = ["-uid", str(self.user), "-gid", str(self.user)]
        stack, app = ["-stack", f"{root}/stack.toml"], ["-app", f"{root}/app"]
        platform, buildpacks = ["-platform", f"{root}/platform"], ["-buildpacks", f"{root}/buildpacks"]
        order = ["-order", f"{root}/order.toml", *buildpacks, "-extensions", f"{root}/extensions"]
        own = {
            "analyzer": [*daemon, *ids, *stack, "-run-image", self.base, self.app],
            "detector": [*order, *app, *platform, "-generated", f"{root}/layers/generated"],
            "restorer": [*ids, "-cache-dir", f"{root}/cache"],
            "builder": [*buildpacks, *app, *platform],
            "exporter": [*daemon, *ids, *stack, *app, "-launcher", f"{self.directory}/launcher", self.app],
        }
        return ["-layers", f"{root}/layers", *own[phase]]

    def run(self, phase: str, *more: str, before: tuple[str, ...] = (), **environ: str) -> None:
        """Run a phase with what stands before it."""
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "cwd": self.root / "app"}
        if phase in ("detector", "builder"):
            how |= {"user": self.user, "group": self.user, "extra_groups": []}
        command = [*before, f"{self.directory}/{phase}", *self.arguments(phase), *more]
        ended = subprocess.run(command, env={**self.environ, **environ}, check=False, **how)
        assert ended.returncode == 0, (phase, ended.stdout, ended.stderr)

    def play(self, wrapped: tuple[str, ...], launcher: tuple[str, ...] = (), host: str = "") -> Iterator[str]:
        """Run all phases, some of them wrapped, the restorer with a daemon of its own; say which one comes next."""
        for phase in PHASES:
            yield phase
            before = (*SHIM, "run", "--", *launcher) if phase in wrapped else ()
            self.run(phase, before=before, **({"DOCKER_HOST": host} if host and phase == "restorer" else {}))

    def put_scripts(self, text: str) -> None:
        """Put scripts in the place of the phases that are wrapped."""
        real, self.directory = self.directory, self.root / "scripts"
        self.directory.mkdir()
        for name in (*PHASES, "launcher"):
            if name in ALL:
                program(self.directory / name, text.format(python=sys.executable, real=f"{real}/{name}"))
            else:
                (self.directory / name).symlink_to(real / name)

    @property
    def reference(self) -> str:
        return analyzed.read(str(self.toml)).reference

    @property
    def digest(self) -> str:
        """What the registry has for this architecture, as the restorer writes it."""
        repository = split_tag(str(self.name).partition("@")[0])[0]
        image = self.ground.images["single" if "/single:" in str(self.name) else "multi"]
        return f"{repository}@{image.manifest_digest(ARCHITECTURE)}"

    def reference_at_0_12(self) -> str:
        """Return what a restorer with -daemon would write now; analyzed.toml is as it was afterwards."""
        before = self.toml.read_bytes()
        self.run("restorer", "-daemon", CNB_PLATFORM_API="0.12")
        reference = self.reference
        self.toml.write_bytes(before)
        return reference

    def stands_on_the_daemon_s_image(self) -> None:
        inspect: Any = self.ground.engine.client.inspect_image
        app, layers = inspect(self.app), inspect(self.name or self.base)["RootFS"]["Layers"]
        assert layers and app["RootFS"]["Layers"][: len(layers)] == layers
        if self.is_real:
            label = json.loads(app["Config"]["Labels"]["io.buildpacks.lifecycle.metadata"])
            assert label["runImage"]["topLayer"] == layers[-1]


Start = Callable[..., Build]


@pytest.fixture
def start(ground: Ground, lifecycle: pathlib.Path) -> Iterator[Start]:
    started: list[pathlib.Path] = []

    def begin(of: str, case: str, api: str, daemon: bool = True) -> Build:
        started.append(pathlib.Path(tempfile.mkdtemp(prefix="analyzed-shim-build-")))
        started[-1].chmod(0o755)
        return Build(ground, started[-1], lifecycle, of, case, api, daemon)

    yield begin
    for directory in started:
        shutil.rmtree(directory)


def by_turns(*combinations: tuple[Any, ...]) -> list[Any]:
    """Return combinations with a Platform API each, one after the other; real phases, and NIGHTLY all, with both."""
    found = []
    for number, (of, *others) in enumerate(combinations):
        for api in APIS if NIGHTLY or of == "real" else APIS[number % 2 :][:1]:
            found.append(pytest.param(of, *others, api, marks=[needs_real] * (of == "real")))
    return found


THERE = [case for case in CASES if case != "absent"]
ALL_WAYS = [(of, way, case) for of in ("0.20", "real") for way in WAYS for case in THERE]
BUILDS = [one for one in ALL_WAYS if one[1] != "the exporter alone" or one[2] not in FAILS_BARE]
UNASKED = [("0.17", way, case) for way in list(WAYS)[:2] for case in THERE if case in SWITCHED]
UNASKED += [one for one in BUILDS if one[0] == "0.20" and ("no socket" in one[1] or one[2] not in SWITCHED)]
"""Where the restorer asks nobody, and engines don't differ."""


@pytest.mark.engines(*(real.ENGINES if NIGHTLY else real.ENGINES[:1]))
@pytest.mark.parametrize(("of", "way", "case", "api"), by_turns(*UNASKED))
def test_daemon_builds_whose_restorer_asks_nobody(start: Start, of: str, way: str, case: str, api: str) -> None:
    test_daemon_builds(start, of, way, case, api)


@pytest.mark.parametrize(("of", "way", "case", "api"), by_turns(*(one for one in BUILDS if one not in UNASKED)))
def test_daemon_builds(start: Start, of: str, way: str, case: str, api: str) -> None:
    """By the note the ID, as a restorer with -daemon writes it at 0.12; from a guess the name, or what resolves."""
    build = start(of, case, api)
    for phase in build.play(WAYS[way], host="unix:///no/such.sock" if "no socket" in way else ""):
        if phase == "restorer":
            right = build.name or build.reference
        if phase == "builder" and build.name and way == "all three":
            right = build.reference_at_0_12()
        if phase == "builder" and way != "the exporter alone":
            known = way == "the restorer alone" and of != "0.17" and case in KNOWS_THE_DIGEST[build.ground.engine.kind]
            assert build.reference == (build.digest if known else right)
    build.stands_on_the_daemon_s_image()


@needs_real
@pytest.mark.parametrize("case", ["multi", "daemon-only", "no-switch"])
@pytest.mark.parametrize("how", [*LAUNCHERS, *CLOSES])
def test_launchers_and_scripts_of_real_phases(start: Start, how: str, case: str) -> None:
    """Those of the stand-in are in the random worlds."""
    build = start("real", case, "0.11")
    lay_out(build.root / "launchers")
    if how in CLOSES:
        build.put_scripts(CLOSES[how])
    launcher = tuple(word.replace("LAUNCHERS", f"{build.root}/launchers") for word in LAUNCHERS.get(how, ()))
    assert list(build.play(ALL, launcher)) == list(PHASES)
    build.stands_on_the_daemon_s_image()


@needs_real
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", ["multi", "daemon-only", "no-switch", "registry multi", "registry no-switch"])
def test_an_extension_that_extends_the_run_image(start: Start, case: str, api: str) -> None:
    build = start("real", case.split()[-1], api, "registry" not in case)
    begins = "FROM $(cat run-image)" if build.name else "ARG base_image\nFROM \\${base_image}"
    generate = f'#!/bin/sh\nprintf "%b" "{begins}\\nRUN true\\n" > "$CNB_OUTPUT_DIR/run.Dockerfile"\n'
    (build.root / "extensions/standin_ext/0.1/bin/generate").write_text(generate)
    for phase in build.play(ALL):
        assert phase != "restorer" or "extend = true" in build.toml.read_text()
    if build.daemon:
        build.stands_on_the_daemon_s_image()
    else:
        assert "@sha256:" in build.reference


IN_REGISTRY = [(of, *one) for of in LIFECYCLES for one in itertools.product((True, False), ("multi", "no-switch"))]


@pytest.mark.parametrize(("of", "is_known", "case", "api"), by_turns(*IN_REGISTRY))
def test_registry_builds_on_a_machine_whose_daemon_answers(
    start: Start, of: str, is_known: bool, case: str, api: str
) -> None:
    """A known one is as without the shim; from a guess the name may be put back, which the registry has too."""
    build = start(of, case, api, daemon=False)
    for phase in build.play(ALL if is_known else ALL[1:]):
        if phase == "restorer":
            right = build.reference
        if phase == "builder" and build.name and of != "0.17":
            is_kept = is_known or case in KNOWS_THE_DIGEST[build.ground.engine.kind]
            right = build.digest if is_kept else build.name
        if phase == "builder":
            assert build.reference == (right or build.name)
    assert build.reference == (right or build.name)


@pytest.mark.parametrize("is_there", [True, False])
def test_an_image_for_another_platform_is_not_there(build: OfOnePhase, ground: Ground, is_there: bool) -> None:
    """An arm64 pull before an amd64 build: the restorer's lookup stays, and the exporter says what to pull."""
    other = "arm64" if ARCHITECTURE == "amd64" else "amd64"
    base = ground.lay("no-switch") or ground.pushed("run/other:1.0", "multi")
    if is_there:
        ground.engine.pull(base, platform=f"linux/{other}")
    command = f"docker pull {f'--platform linux/{ARCHITECTURE} ' * is_there}{base}"
    for phase, option in (("restorer", "-skip-layers"), (str(build.phase("exporter")), "-daemon")):
        build.layers.write(base, base)
        ended = build.run(phase, option, options=("--daemon",), DOCKER_HOST=ground.engine.url)
        ended.expect(code=0, outcome="not-in-daemon")
        assert command in ended.out
        assert "@sha256:" in build.layers.reference if phase == "restorer" else build.layers.reference == base


@pytest.mark.parametrize("case", ["multi", "single"])
def test_what_an_engine_knows_of_an_image_that_was_pulled_by_its_tag(ground: Ground, case: str) -> None:
    """The facts in which engines differ, as the docs' page about them has them."""
    name, image, engine = str(ground.lay(case)), ground.images[case], ground.engine
    repository = name.rpartition(":")[0]
    found = engine.client.inspect_image(name)  # type: ignore[no-untyped-call]
    image_id = image.digest if engine.kind == "containerd" else image.config_digest(ARCHITECTURE)
    assert found["Id"].removeprefix("sha256:") == image_id.removeprefix("sha256:")
    known = {image.digest} | ({image.manifest_digest(ARCHITECTURE)} if engine.kind == "podman" else set())
    of_it = {digest for digest in found["RepoDigests"] if digest.startswith(repository)}
    assert of_it == {f"{repository}@{digest}" for digest in known}
    resolves = engine.id_of(f"{repository}@{image.manifest_digest(ARCHITECTURE)}")
    assert resolves == (engine.id_of(name) if case in KNOWS_THE_DIGEST[engine.kind] else None)


def test_the_daemon_finds_a_name_by_any_spelling(build: OfOnePhase, ground: Ground) -> None:
    multi = ground.engine.id_of(str(ground.lay("multi")))
    ground.engine.tag(str(multi), "analyzed-shim-run:1.0")
    try:
        for spelling in ("analyzed-shim-run:1.0", "library/analyzed-shim-run:1.0", "docker.io/analyzed-shim-run:1.0"):
            build.layers.write(spelling, spelling)
            build.run("restorer", options=("--daemon",), DOCKER_HOST=ground.engine.url).expect(code=0, reference=multi)
    finally:
        ground.engine.forget("analyzed-shim-run")
