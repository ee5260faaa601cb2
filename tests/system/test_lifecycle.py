"""Whole builds, analyze to export, with real phase binaries: what is in the directory that LIFECYCLE_DIR names.

Such a directory can be taken out of the published lifecycle image. Without one these are left out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from shim.demo import images, servers
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.build import SHIM
from tests.support.ground import APIS, FAILS_BARE, WAYS, Ground
from tests.support.layers import ID
from tests.support.processes import program

LIFECYCLE = os.environ.get("LIFECYCLE_DIR", "")
pytestmark = [
    pytest.mark.skipif(not LIFECYCLE, reason="LIFECYCLE_DIR names no directory of real phases"),
    pytest.mark.skipif(os.getuid() != 0, reason="the phases change owners, which needs root"),
]
CASES = ("multi", "single", "daemon-only", "stale", "unrelated", "no-switch")
USER = 1000

TREE = {
    "buildpacks/standin_bp/0.1/buildpack.toml": (
        'api = "0.9"\n[buildpack]\nid = "standin/bp"\nversion = "0.1"\n[[stacks]]\nid = "*"\n'
    ),
    "buildpacks/standin_bp/0.1/bin/detect": "#!/bin/sh\nexit 0\n",
    "buildpacks/standin_bp/0.1/bin/build": (
        '#!/bin/sh\nprintf \'[[processes]]\\ntype = "web"\\ncommand = ["/bin/true"]\\ndefault = true\\n\''
        ' > "$CNB_LAYERS_DIR/launch.toml"\n'
    ),
    "extensions/standin_ext/0.1/extension.toml": ('api = "0.9"\n[extension]\nid = "standin/ext"\nversion = "0.1"\n'),
    "extensions/standin_ext/0.1/bin/detect": "#!/bin/sh\nexit 0\n",
    "extensions/standin_ext/0.1/bin/generate": (
        '#!/bin/sh\n[ ! -f run-image ] || echo "FROM $(cat run-image)" > "$CNB_OUTPUT_DIR/run.Dockerfile"\n'
    ),
    "order.toml": (
        '[[order]]\n[[order.group]]\nid = "standin/bp"\nversion = "0.1"\n'
        '[[order-extensions]]\n[[order-extensions.group]]\nid = "standin/ext"\nversion = "0.1"\n'
    ),
}


class Build:
    """One whole build."""

    numbers = itertools.count()

    def __init__(self, ground: Ground, api: str, name: str | None, daemon: bool) -> None:
        self.ground = ground
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="analyzed-shim-build-"))
        self.root.chmod(0o755)
        self.layers = self.root / "layers"
        self.base = f"{ground.registry.host}/run/base:1.0"
        self.app = f"{ground.registry.host}/app/real:{next(self.numbers)}"  # no previous image: it tells
        self.daemon = daemon
        for path, text in {**TREE, "stack.toml": f'[run-image]\nimage = "{self.base}"\n', "app/x": ""}.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
            (self.root / path).chmod(0o755 if "/bin/" in path else 0o644)
        if name:
            (self.root / "app" / "run-image").write_text(name)
        for directory in ("layers", "cache", "platform", "home"):
            (self.root / directory).mkdir()
        for path in ("layers", "cache", "app", "home"):
            os.chown(self.root / path, USER, USER)
        self.launcher: tuple[str, ...] = ()
        """What stands before a wrapped phase."""
        self.before: tuple[str, ...] = ()
        """What stands before the shim."""
        self.script = ""
        """What stands for a wrapped phase: a script that runs the real one, REAL."""
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "CNB_PLATFORM_API": api,
            "CNB_EXPERIMENTAL_MODE": "warn",
            "CNB_STACK_ID": "standin",
            "DOCKER_HOST": ground.engine.url,
        }

    def arguments(self, phase: str) -> list[str]:
        root = self.root
        daemon = ["-daemon"] if self.daemon else []
        ids = ["-uid", str(USER), "-gid", str(USER)]
        stack = ["-stack", f"{root}/stack.toml"]
        app, platform = ["-app", f"{root}/app"], ["-platform", f"{root}/platform"]
        buildpacks = ["-buildpacks", f"{root}/buildpacks"]
        order = ["-order", f"{root}/order.toml", *buildpacks, "-extensions", f"{root}/extensions"]
        own = {
            "analyzer": [*daemon, *ids, *stack, "-run-image", self.base, self.app],
            "detector": [*order, *app, *platform, "-generated", f"{self.layers}/generated"],
            "restorer": [*ids, "-cache-dir", f"{root}/cache"],
            "builder": [*buildpacks, *app, *platform],
            "exporter": [*daemon, *ids, *stack, *app, "-launcher", f"{LIFECYCLE}/launcher", self.app],
        }
        return ["-layers", str(self.layers), *own[phase]]

    def program(self, phase: str, wrapped: bool) -> str:
        real = f"{LIFECYCLE}/{phase}"
        if not wrapped or not self.script:
            return real
        return str(program(self.root / phase, self.script.replace("REAL", real).replace("PYTHON", sys.executable)))

    def run(self, phase: str, wrapped: bool, **environ: str) -> None:
        command = [*(self.launcher if wrapped else ()), self.program(phase, wrapped), *self.arguments(phase)]
        user = {"user": USER, "group": USER, "extra_groups": []} if phase in ("detector", "builder") else {}
        ended = subprocess.run(
            [*self.before, *SHIM, "run", "--", *command] if wrapped else command,
            env={**self.environ, "PYTHONPATH": os.getcwd(), **environ},
            cwd=self.root / "app",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **user,  # type: ignore[call-overload]
        )
        assert ended.returncode == 0, (phase, ended.stdout, ended.stderr)

    @property
    def reference(self) -> str:
        from shim import analyzed

        return analyzed.read(str(self.layers / "analyzed.toml")).reference


PHASES = ("analyzer", "detector", "restorer", "builder", "exporter")


@pytest.fixture(scope="module")
def ground(real_parts: tuple[real.Engine, real.Registry]) -> Iterator[Ground]:
    made = {
        "base": images.single("base", ARCHITECTURE),
        "single": images.single("single", ARCHITECTURE),
        "multi": images.multi("multi"),
        "newer": images.multi("newer"),
    }
    ground = Ground(*real_parts, made)
    yield ground
    ground.engine.forget(ground.registry.host)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("way", "case"),
    [(way, case) for way in WAYS for case in CASES if way != "the exporter alone" or case not in FAILS_BARE],
)
def test_daemon_builds(ground: Ground, way: str, case: str, api: str) -> None:
    name = ground.lay(case)
    build = Build(ground, api, name, daemon=True)
    try:
        for phase in PHASES:
            no_socket = phase == "restorer" and "no socket" in way
            build.run(phase, phase in WAYS[way], **({"DOCKER_HOST": "unix:///no/such.sock"} if no_socket else {}))
        check_it_stands_on(ground, name, build)
    finally:
        shutil.rmtree(build.root)


def check_it_stands_on(ground: Ground, name: str | None, build: Build) -> None:
    run_image = ground.engine.client.inspect_image(name or build.base)  # type: ignore[no-untyped-call]
    app = ground.engine.client.inspect_image(build.app)  # type: ignore[no-untyped-call]
    layers = run_image["RootFS"]["Layers"]
    assert app["RootFS"]["Layers"][: len(layers)] == layers
    assert layers
    label = json.loads(app["Config"]["Labels"]["io.buildpacks.lifecycle.metadata"])
    assert label["runImage"]["topLayer"] == layers[-1]


SCRIPTS = {
    "python": "#!PYTHON\nimport subprocess, sys\nsys.exit(subprocess.run(['REAL', *sys.argv[1:]]).returncode)\n",
    "closefrom": "#!PYTHON\nimport os, sys\nos.closerange(3, 999)\nos.execv('REAL', sys.argv)\n",
    "shell": '#!/bin/sh\nREAL "$@"\nexit $?\n',
}
LAUNCHERS = {
    "env": ("env", "A=b"),
    "nice": ("nice", "-n", "1"),
    "timeout": ("timeout", "60"),
    "bash": ("bash", "-c", 'exec "$@"', "--"),
    "setpriv": ("setpriv", "--no-new-privs"),
    "several": ("env", "A=b", "nice", "timeout", "60", "sh", "-c", '"$@"', "sh"),
}


@pytest.mark.parametrize("case", ["multi", "daemon-only", "no-switch"])
@pytest.mark.parametrize("how", [*LAUNCHERS, *SCRIPTS])
def test_launchers_and_scripts(ground: Ground, how: str, case: str) -> None:
    name = ground.lay(case)
    build = Build(ground, "0.11", name, daemon=True)
    build.launcher, build.script = LAUNCHERS.get(how, ()), SCRIPTS.get(how, "")
    try:
        for phase in PHASES:
            build.run(phase, phase in WAYS["all three"])
        check_it_stands_on(ground, name, build)
    finally:
        shutil.rmtree(build.root)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", ["multi", "daemon-only", "no-switch", "registry", "registry-no-switch"])
def test_an_extension_that_extends_the_run_image(ground: Ground, case: str, api: str) -> None:
    name = ground.lay("multi" if case == "registry" else case.removeprefix("registry-"))
    build = Build(ground, api, name, daemon=not case.startswith("registry"))
    generate = build.root / "extensions/standin_ext/0.1/bin/generate"
    start = "FROM $(cat run-image)" if name else "ARG base_image\nFROM \\${base_image}"
    generate.write_text(f'#!/bin/sh\nprintf "%b" "{start}\\nRUN true\\n" > "$CNB_OUTPUT_DIR/run.Dockerfile"\n')
    try:
        for phase in PHASES:
            build.run(phase, phase in WAYS["all three"])
            if phase == "detector":
                assert "extend = true" in (build.layers / "analyzed.toml").read_text()
        if build.daemon:
            check_it_stands_on(ground, name, build)
        elif name:
            assert "@sha256:" in build.reference
    finally:
        shutil.rmtree(build.root)


def test_a_docker_context_and_other_sockets_are_nobody_s_business(ground: Ground, tmp_path: pathlib.Path) -> None:
    """With DOCKER_HOST unset the daemon is at /var/run/docker.sock, whatever the docker CLI would take."""
    name = ground.lay("multi")
    build = Build(ground, "0.11", name, daemon=True)
    other = servers.Engine(str(tmp_path / "docker.sock"))
    other.tag(str(name), f"sha256:{ID}")
    meta = build.root / "home" / ".docker" / "contexts" / "meta" / hashlib.sha256(b"other").hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Name": "other", "Endpoints": {"docker": {"Host": other.url}}}
    (meta / "meta.json").write_text(json.dumps(endpoint))
    (build.root / "home" / ".docker" / "config.json").write_text('{"currentContext": "other", "auths": {"r": null}}')
    build.environ |= {"XDG_RUNTIME_DIR": str(tmp_path)}
    here = 'mount -t tmpfs none /run; ln -s "$DAEMON" /run/docker.sock; unset DOCKER_HOST; exec "$@"'
    build.environ["DAEMON"] = ground.engine.url.removeprefix("unix://")
    try:
        for phase in PHASES:
            root = phase in WAYS["all three"]
            build.before = ("unshare", "-m", "sh", "-ec", here, "sh") if root else ()
            build.run(phase, root)
        check_it_stands_on(ground, name, build)
        assert other.asked == []
    finally:
        other.stop()
        shutil.rmtree(build.root)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    "wrapped", [("analyzer", "restorer", "exporter"), ("restorer", "exporter")], ids=["known", "guessed"]
)
def test_registry_builds(ground: Ground, wrapped: tuple[str, ...], api: str) -> None:
    name = ground.lay("multi")
    build = Build(ground, api, name, daemon=False)
    digest = f"{ground.registry.host}/run/multi@{ground.images['multi'].manifest_digest(ARCHITECTURE)}"
    kept = "analyzer" in wrapped or ground.engine.kind == "podman"  # which knows the digest
    try:
        for phase in PHASES:
            build.run(phase, phase in wrapped)
            if phase == "restorer":
                assert build.reference == (digest if kept else name)
        assert build.reference == (digest if kept else name)
    finally:
        shutil.rmtree(build.root)
