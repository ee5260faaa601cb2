#!/usr/bin/env python3
"""What the shim costs a phase, measured interleaved in one run.

    python benchmarks/measure.py [--runs N]
    python benchmarks/measure.py --guard       exit 1 if a limit is surely missed

Absolute times are noise, ratios are not. The phase is /bin/true, whose own time is taken off. A cost is the median of
the runs, in bare starts of the interpreter that runs the shim, or in `import docker`, which is what asking a daemon
with docker-py costs. The daemon is the embedded one.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from shim.demo import servers

NAME = "registry.example/run:1.0"
ID = "c5eae3d06f9f2ad6587e814ebdc0e956538fb51d00df79916c59824fff32d0a6"
GROUP = '[[group]]\n  id = "bp/a"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSION = '\n[[group-extensions]]\n  id = "ext/a"\n  version = "0.1"\n  api = "0.9"\n'
NOTHING, UNASKED, ASKED = 2.0, 4.0, 1.5
"""Limits: nothing to do and no daemon asked in bare starts, the daemon asked in `import docker`."""
SLACK = 1.15
"""Times the limit at which one is surely missed: by so much machines differ in what an import costs."""


class Case(NamedTuple):
    """One call of a phase."""

    name: str
    words: list[str]
    limit: float
    unit: str
    reference: str = NAME
    image: str = NAME
    extension: str = EXTENSION
    environ: tuple[tuple[str, str], ...] = ()


CASES = (
    Case(
        "nothing to do: Platform API 0.12",
        ["--", "restorer"],
        NOTHING,
        "start",
        environ=(("CNB_PLATFORM_API", "0.12"),),
    ),
    Case("nothing to do: no extension", ["--", "restorer"], NOTHING, "start", extension=""),
    Case("nothing to do: the exporter of a registry build", ["--", "exporter"], NOTHING, "start"),
    Case("the analyzer leaves the note", ["--", "analyzer", "-daemon"], UNASKED, "start"),
    Case("registry build", ["--no-daemon", "--", "restorer"], UNASKED, "start"),
    Case("no run image switched", ["--", "restorer"], UNASKED, "start", image=""),
    Case("daemon build, the ID is set", ["--daemon", "--", "restorer"], ASKED, "docker"),
    Case(
        "daemon build, out of reach",
        ["--daemon", "--", "restorer"],
        ASKED,
        "docker",
        environ=(("DOCKER_HOST", "unix:///no"),),
    ),
    Case(
        "the exporter sets the ID", ["--", "exporter", "-daemon"], ASKED, "docker", reference="run@sha256:" + "5" * 64
    ),
)


class Ground:
    """A layers directory, phases that do nothing, and a daemon."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.layers = directory / "layers"
        self.layers.mkdir()
        for phase in ("analyzer", "restorer", "exporter"):
            (directory / phase).symlink_to("/bin/true")
        self.daemon = servers.Engine(str(directory / "daemon.sock"))
        self.daemon.tag(NAME, f"sha256:{ID}")
        self.directory = directory
        self.shim = [str(pathlib.Path(sys.executable).parent / "analyzed-shim"), "run"]

    def lay(self, case: Case) -> Callable[[], None]:
        """Lay the files of a case, and return what runs it."""
        image = f'  image = "{case.image}"\n' if case.image else ""
        (self.layers / "analyzed.toml").write_text(f'[run-image]\n  reference = "{case.reference}"\n{image}')
        (self.layers / "group.toml").write_text(GROUP + case.extension)
        (self.layers / "analyzed-shim.toml").unlink(missing_ok=True)
        words = [str(self.directory / word) if (self.directory / word).exists() else word for word in case.words]
        environ = {"CNB_PLATFORM_API": "0.11", "CNB_LAYERS_DIR": str(self.layers), "DOCKER_HOST": self.daemon.url}
        return lambda: run([*self.shim, *words], environ | dict(case.environ))


def run(command: list[str], environ: dict[str, str]) -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, env={"PATH": os.environ["PATH"], **environ}, check=True, stdout=subprocess.DEVNULL)


def timed(what: Callable[[], None]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def measure(runs: int) -> list[tuple[Case, float]]:
    """Return each case's cost in its unit."""
    python = [sys.executable, "-c"]
    units = {"phase": ["/bin/true"], "start": [*python, "pass"], "docker": [*python, "import docker"]}
    times: dict[str, list[float]] = {name: [] for name in (*units, *(case.name for case in CASES))}
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(pathlib.Path(name))
        for _ in range(runs):
            for unit, command in units.items():
                times[unit].append(timed(lambda command=command: run(command, {})))  # type: ignore[misc]
            for case in CASES:
                times[case.name].append(timed(ground.lay(case)))
        ground.daemon.stop()
    median = {name: statistics.median(taken) for name, taken in times.items()}
    return [(case, (median[case.name] - median["phase"]) / (median[case.unit] - median["phase"])) for case in CASES]


def main() -> int:
    """Measure, print a table, and with --guard return 1 if a limit is missed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=15)
    options.add_argument("--guard", action="store_true", help="measure again what misses its limit, and exit 1")
    chosen = options.parse_args()
    measured = measure(chosen.runs)
    if chosen.guard and any(cost > case.limit * SLACK for case, cost in measured):
        measured = measure(2 * chosen.runs)  # the machine may have been busy
    words = {"start": "bare starts", "docker": "× import docker"}
    for case, cost in measured:
        print(f"{case.name:50} {cost:5.2f} {words[case.unit]:16} (at most {case.limit:g})")
    return int(chosen.guard and any(cost > case.limit * SLACK for case, cost in measured))


if __name__ == "__main__":
    sys.exit(main())
