#!/usr/bin/env python3
"""What a user feels: whole builds, bare and wrapped in turn.

    python benchmarks/whole.py [--pairs N]

Five phases by script: the stand-in's, or the real ones in the directory that LIFECYCLE_DIR names; the daemon is an
embedded one, or the one on the Unix socket that DOCKER_HOST names, which has to reach a registry on 127.0.0.1.

If PACK names pack's binary, whole builds by pack too, with the lifecycle images that LIFECYCLE_IMAGE and
LIFECYCLE_IMAGE_SHIM name (the second made of the first by `analyzed-shim builder`) and the builder that BUILDER names,
all three in a registry. EXTENSION_ENV is a setting for the builder's extension, such as RUN_IMAGE=example.com/run:1.0.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from shim.daemon import containers
from shim.demo import images, layout, servers
from shim.demo.lifecycle import ARCHITECTURE
from shim.phase.invocation import WRAPPED

PHASES = ("analyzer", "detector", "restorer", "builder", "exporter")
USER = 1000 if os.getuid() == 0 else os.getuid()
"""Whom the layers belong to; the real detector and builder refuse to run as root."""
TREE = {
    "buildpacks/bench_bp/0.1/buildpack.toml": (
        'api = "0.9"\n[buildpack]\nid = "bench/bp"\nversion = "0.1"\n[[stacks]]\nid = "*"\n'
    ),
    "buildpacks/bench_bp/0.1/bin/detect": "#!/bin/sh\n",
    "buildpacks/bench_bp/0.1/bin/build": "#!/bin/sh\n",
    "extensions/bench_ext/0.1/extension.toml": 'api = "0.9"\n[extension]\nid = "bench/ext"\nversion = "0.1"\n',
    "extensions/bench_ext/0.1/bin/detect": "#!/bin/sh\n",
    "extensions/bench_ext/0.1/bin/generate": (
        '#!/bin/sh\necho "FROM $(cat run-image)" >"$CNB_OUTPUT_DIR/run.Dockerfile"\n'
    ),
    "order.toml": (
        '[[order]]\n[[order.group]]\nid = "bench/bp"\nversion = "0.1"\n'
        '[[order-extensions]]\n[[order-extensions.group]]\nid = "bench/ext"\nversion = "0.1"\n'
    ),
}


class Pairs(NamedTuple):
    """Seconds of builds, in pairs."""

    bare: list[float]
    wrapped: list[float]

    def __str__(self) -> str:
        """Return the medians, their ratio and its spread."""
        each = sorted(wrapped / bare for bare, wrapped in zip(self.bare, self.wrapped, strict=True))
        bare, wrapped = statistics.median(self.bare), statistics.median(self.wrapped)
        return (
            f"bare {bare:.2f} s, wrapped {wrapped:.2f} s: {wrapped / bare:.2f} times ({each[0]:.2f} to {each[-1]:.2f})"
        )


def in_turn(pairs: int, build: Callable[[bool], float]) -> Pairs:
    """Build in pairs, each beginning with the other; the first pair doesn't count."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(pairs + 1):
        for wrapped in (False, True) if number % 2 else (True, False):
            took = build(wrapped)
            if number:
                times[wrapped].append(took)
    return Pairs(times[False], times[True])


class Script:
    """Whole builds by a script, as a platform of one's own would do them."""

    numbers = itertools.count()

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.real = real = os.environ.get("LIFECYCLE_DIR")
        self.lifecycle = pathlib.Path(real) if real else layout.lay_out(directory / "lifecycle")
        self.registry = servers.Registry()
        self.engine = servers.Engine(str(directory / "engine.sock"))
        self.daemon = os.environ.get("DOCKER_HOST") or self.engine.url
        image = images.single("run", ARCHITECTURE)  # with which bare builds work too
        self.base, self.run_image = (f"{self.registry.host}/{name}:1.0" for name in ("run/base", "run/app"))
        for name in ("run/base:1.0", "run/app:1.0"):
            self.registry.push(name, image)
            containers.Daemon(self.daemon, 60, os.environ).pull(f"{self.registry.host}/{name}", lambda *_: None)
        for path, text in {**TREE, "app/run-image": self.run_image}.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
            (directory / path).chmod(0o755)
        directory.chmod(0o755)
        (directory / "stack.toml").write_text(f'[run-image]\nimage = "{self.base}"\n')
        here = os.path.dirname(sys.executable)
        self.command = shutil.which("analyzed-shim", path=here) or f"{here}/analyzed-shim"

    def arguments(self, phase: str, root: pathlib.Path, app: str) -> list[str]:
        """Return a phase's arguments."""
        tree = self.directory
        if not self.real:
            return [
                "-layers",
                f"{root}/layers",
                *{"analyzer": ["-daemon", app], "exporter": ["-daemon", app]}.get(phase, []),
            ]
        ids = ["-uid", str(USER), "-gid", str(USER)]
        stack = ["-stack", f"{tree}/stack.toml"]
        own = {
            "analyzer": ["-daemon", *ids, *stack, "-run-image", self.base, app],
            "detector": [
                *("-order", f"{tree}/order.toml", "-buildpacks", f"{tree}/buildpacks"),
                *("-extensions", f"{tree}/extensions", "-app", f"{tree}/app", "-platform", str(root)),
                *("-generated", f"{root}/layers/generated"),
            ],
            "restorer": ids,
            "builder": ["-buildpacks", f"{tree}/buildpacks", "-app", f"{tree}/app", "-platform", str(root)],
            "exporter": [
                "-daemon",
                *ids,
                *stack,
                "-app",
                f"{tree}/app",
                "-launcher",
                f"{self.lifecycle}/launcher",
                app,
            ],
        }
        return ["-layers", f"{root}/layers", *own[phase]]

    def build(self, wrapped: bool) -> float:
        """Build once, and return the seconds."""
        app = f"{self.registry.host}/app/whole:{next(self.numbers)}"
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            root = pathlib.Path(name)
            root.chmod(0o755)
            (root / "layers").mkdir()
            os.chown(root / "layers", USER, USER)
            env = {
                "PATH": os.environ["PATH"],
                "HOME": name,
                "CNB_PLATFORM_API": "0.11",
                "CNB_EXPERIMENTAL_MODE": "warn",
                "CNB_STACK_ID": "bench",
                "DOCKER_HOST": self.daemon,
                "STANDIN_RUN_IMAGE": self.base,
                "STANDIN_SWITCH": self.run_image,
            }
            began = time.perf_counter()
            for phase in PHASES:
                command = [str(self.lifecycle / phase), *self.arguments(phase, root, app)]
                if wrapped and phase in WRAPPED:
                    command = [self.command, "run", "--", *command]
                drops = self.real and os.getuid() == 0 and phase in ("detector", "builder")
                ended = subprocess.run(
                    command,
                    env=env,
                    cwd=self.directory / "app",
                    capture_output=True,
                    text=True,
                    check=False,
                    user=USER if drops else None,
                    group=USER if drops else None,
                    extra_groups=[] if drops else None,
                )
                if ended.returncode:
                    raise SystemExit(f"{phase}, {'wrapped' if wrapped else 'bare'}: {ended.stderr}{ended.stdout}")
            return time.perf_counter() - began

    def stop(self) -> None:
        """Stop the servers."""
        self.engine.stop()
        self.registry.stop()


def by_pack(pack: str, directory: pathlib.Path) -> Callable[[bool], float]:
    """Return what builds once by pack."""
    images_of = {False: os.environ["LIFECYCLE_IMAGE"], True: os.environ["LIFECYCLE_IMAGE_SHIM"]}
    (directory / "empty").mkdir()
    numbers = itertools.count()

    def build(wrapped: bool) -> float:
        app = f"whole-build-{os.getpid()}-{next(numbers)}"
        setting = os.environ.get("EXTENSION_ENV")
        command = [pack, "build", app, "--path", str(directory / "empty"), "--builder", os.environ["BUILDER"]]
        command += ["--lifecycle-image", images_of[wrapped], "--pull-policy", "always"]
        command += ["--network", "host", "--docker-host", "inherit", *(["--env", setting] if setting else [])]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return build


def main() -> int:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=9)
    pairs = options.parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        script = Script(pathlib.Path(name))
        try:
            real = "real phases" if os.environ.get("LIFECYCLE_DIR") else "the stand-in's phases"
            print(f"five {real} by script, {pairs} pairs: {in_turn(pairs, script.build)}")
        finally:
            script.stop()
        if pack := os.environ.get("PACK"):
            print(f"pack, {pairs} pairs: {in_turn(pairs, by_pack(pack, pathlib.Path(name)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
