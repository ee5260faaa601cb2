#!/usr/bin/env python3
"""What the shim costs, in bare interpreter starts of this machine, measured interleaved in one run.

    python benchmarks/ratios.py [--runs N] [--check]

Each case is measured beside the same phase without the shim; the difference of the medians is
divided by the median of `python -c pass`. Absolute times are noise, the ratios are not. With
`--check` the exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable

import shim
from shim.demo import servers

COMMAND = shutil.which("analyzed-shim", path=os.path.dirname(sys.executable)) or "analyzed-shim"
NAME = "registry.example/run:1.0"
ID = "c5eae3d06f9f2ad6587e814ebdc0e956538fb51d00df79916c59824fff32d0a6"
GROUP = '[[group]]\n  id = "bp/a"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSION = '\n[[group-extensions]]\n  id = "ext/a"\n  version = "0.1"\n  api = "0.9"\n'
MEGABYTE = 1_000_000


class Bench:
    """A layers directory, phases, an engine, and the clock."""

    def __init__(self, directory: pathlib.Path, engine: servers.Engine) -> None:
        self.directory = directory
        self.layers = directory / "layers"
        self.layers.mkdir()
        self.engine = engine
        engine.tag(NAME, f"sha256:{ID}")
        self.phases = {}
        for phase in ("analyzer", "restorer", "exporter"):
            self.phases[phase] = self.program(phase, "#!/bin/sh\nexit 0\n")
        self.slow = self.program("slow/restorer", "#!/bin/sh\nexec sleep 0.4\n")
        rewrite = f'sed -i \'s|reference = "{NAME}"|reference = "x@sha256:{ID}"|\' {self.layers}/analyzed.toml'
        self.rewriting = self.program("rewriting/restorer", f"#!/bin/sh\n{rewrite}\nexec sleep 0.4\n")

    def program(self, name: str, text: str) -> str:
        """Write a program, and return its path."""
        path = self.directory / "phases" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def lay(self, reference: str, image: str | None, extensions: bool = True, size: int = 0) -> None:
        """Write analyzed.toml, of at least so many bytes, and group.toml."""
        (self.layers / "analyzed-shim.toml").unlink(missing_ok=True)  # the note would be evidence
        name = f'  image = "{image}"\n' if image else ""
        text = f'[image]\n  reference = ""\n\n[run-image]\n  reference = "{reference}"\n{name}\n[metadata]\n'
        blocks = [text]
        length = len(text)
        while length < size:
            blocks.append(
                f'\n[[metadata.buildpacks]]\n  key = "bp/{len(blocks)}"\n  version = "0.1"\n'
                f'  [metadata.buildpacks.layers.l]\n    sha = "sha256:{ID}"\n    build = true\n    launch = true\n'
            )
            length += len(blocks[-1])
        (self.layers / "analyzed.toml").write_text("".join(blocks))
        (self.layers / "group.toml").write_text(GROUP + (EXTENSION if extensions else ""))

    def time(self, command: list[str], **environ: str) -> float:
        """Return the seconds that a command takes."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CNB_", "ANALYZED_SHIM_", "DOCKER_"))}
        env |= {"CNB_PLATFORM_API": "0.11", "CNB_LAYERS_DIR": str(self.layers), "DOCKER_HOST": "unix:///no/such.sock"}
        env |= environ
        began = time.perf_counter()
        subprocess.run(command, env=env, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began


def main() -> int:
    """Measure, print a table, and return the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=21, help="how often each case is run")
    options.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    options.add_argument("--json", help="write the ratios to this file")
    chosen = options.parse_args()
    compileall.compile_dir(os.path.dirname(shim.__file__), quiet=1)  # as pip does where it installs
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        engine = servers.Engine(str(directory / "engine.sock"))
        try:
            rows = measure(Bench(directory, engine), chosen.runs)
        finally:
            engine.stop()
    print(f"{'case':58} {'over bare':>9} {'goal':>5}")
    missed = False
    for case, ratio, goal in rows:
        missed |= ratio > goal
        print(f"{case:58} {ratio:9.2f} {goal:5.1f}{'  missed' if ratio > goal else ''}")
    if chosen.json:
        pathlib.Path(chosen.json).write_text(json.dumps({case: ratio for case, ratio, _ in rows}, indent=1) + "\n")
    return 1 if missed and chosen.check else 0


def measure(bench: Bench, runs: int) -> list[tuple[str, float, float]]:
    """Return each case with its ratio and its goal."""
    at = {"DOCKER_HOST": bench.engine.url}
    phases = bench.phases

    def wrapped(phase: str, *options: str, **environ: str) -> Callable[[], float]:
        return lambda: bench.time([COMMAND, "run", *options, "--", phase], **environ)

    def bare(phase: str) -> Callable[[], float]:
        return lambda: bench.time([phase])

    switched = lambda: bench.lay(NAME, NAME)  # noqa: E731
    cases: list[tuple[str, Callable[[], None], Callable[[], float], Callable[[], float], float]] = [
        ("nothing to do: Platform API 0.12 (row 1)", switched, bare(phases["restorer"]),
         wrapped(phases["restorer"], CNB_PLATFORM_API="0.12"), 1.7),
        ("nothing to do: no extension (row 1)", lambda: bench.lay(ID, None, extensions=False),
         bare(phases["restorer"]), wrapped(phases["restorer"]), 1.7),
        ("the analyzer and its note", switched, bare(phases["analyzer"]), wrapped(phases["analyzer"]), 1.7),
        ("no image was switched (row 2)", lambda: bench.lay(ID, None), bare(phases["restorer"]),
         wrapped(phases["restorer"]), 1.7),
        ("known to be no daemon build (row 3)", switched, bare(phases["restorer"]),
         wrapped(phases["restorer"], CNB_USE_DAEMON="false"), 1.7),
        ("the same by option", switched, bare(phases["restorer"]), wrapped(phases["restorer"], "--no-daemon"), 1.7),
        ("known daemon build, no socket (row 5)", switched, bare(phases["restorer"]),
         wrapped(phases["restorer"], CNB_USE_DAEMON="true"), 1.7),
        ("the exporter, nothing to do (row 8)", switched, bare(phases["exporter"]),
         wrapped(phases["exporter"], CNB_USE_DAEMON="true"), 1.7),
        ("known daemon build, restorer of 0.4 s (row 4)", switched, bare(bench.slow),
         wrapped(bench.slow, "--daemon", **at), 5.0),
        ("a repair, restorer of 0.4 s (row 6)", switched, bare(bench.rewriting), wrapped(bench.rewriting, **at), 5.0),
    ]  # fmt: skip
    start: list[float] = []
    times: dict[str, tuple[list[float], list[float]]] = {case[0]: ([], []) for case in cases}
    small: list[float] = []
    large: list[float] = []
    parses: list[float] = []
    for _ in range(runs):
        start.append(bench.time([sys.executable, "-c", "pass"]))
        for name, lay, without, with_shim, _ in cases:
            lay()
            times[name][0].append(without())
            lay()
            times[name][1].append(with_shim())
    for _ in range(max(3, runs // 3)):
        for size, into in ((0, small), (MEGABYTE, large)):
            bench.lay(NAME, NAME, size=size)
            into.append(bench.time([COMMAND, "run", "--", bench.rewriting], **at))
        text = (bench.layers / "analyzed.toml").read_text()
        began = time.perf_counter()
        tomllib.loads(text)
        parses.append(time.perf_counter() - began)
    unit = statistics.median(start)
    rows = [
        (name, (statistics.median(times[name][1]) - statistics.median(times[name][0])) / unit, goal)
        for name, *_, goal in cases
    ]
    more = (statistics.median(large) - statistics.median(small)) / statistics.median(parses)
    return [*rows, ("1 MB more of analyzed.toml at a repair, in tomllib parses", more, 4.0)]


if __name__ == "__main__":
    sys.exit(main())
