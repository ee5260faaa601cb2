#!/usr/bin/env python3
"""What the shim costs, in bare interpreter starts of this machine, measured interleaved in one run.

    python benchmarks/measure.py [--runs N] [--docs]
    python benchmarks/measure.py --guard          a few runs; exit 1 where a goal is surely missed

Absolute times are noise, ratios are not. A case is run beside the same without the shim, run by run; its cost is the
median of the differences, divided by the median of bare starts of the interpreter that it is run by, and the interval
is a bootstrap of both. The lifecycle is the stand-in, which asks the registry the questions that the real one was seen
to ask, or the restorer in the directory that LIFECYCLE_DIR names. In the tables of whole restorers the daemon is the
embedded engine, or the one on the Unix socket that DOCKER_HOST names, which has to reach a registry on 127.0.0.1. A
case is named for the row of the decision tables that it comes to.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import shim
from shim.demo import images, layout, servers
from shim.demo.lifecycle import ARCHITECTURE, UnixConnection
from shim.tools import install as bundling

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent / "docs" / "explanation"
NAME = "registry.example/run:1.0"
ID = "c5eae3d06f9f2ad6587e814ebdc0e956538fb51d00df79916c59824fff32d0a6"
DIGEST = f"registry.example/run@sha256:{ID}"
GROUP = '[[group]]\n  id = "bp/a"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSION = '\n[[group-extensions]]\n  id = "ext/a"\n  version = "0.1"\n  api = "0.9"\n'
FAR = 0.05
"""Seconds to a far registry and back."""
NOTHING, EXEC, BESIDE = 1.2, 3.0, 3.0
"""Goals in bare starts: nothing to do; an exec, the daemon not asked; a repair beside a restorer of 0.4 s."""
PARSES = 4.0
"""The goal of 1 MB more analyzed.toml, in `tomllib` parses of it."""
SLACK = 1.15
"""Times the goal at which one is surely missed: by so much machines differ in what an import costs beside a start."""
QUIET = 1.25
"""A bare start that waits for nobody takes at most so many times its processor time."""
EXTRA_PULL = "the bare restorer and the extra pull by digest"
BY_NAME = "`daemon-out-of-reach`"
MEGABYTE = "1,000,000 bytes"


class Case(NamedTuple):
    """What is compared: the same without the shim and with it, after the files were laid."""

    name: str
    lay: Callable[[], None]
    without: Callable[[], float]
    wrapped: Callable[[], float]
    goal: float | None = None
    report: Callable[[], str] | None = None
    """Runs it once more with a report, and returns the row that it came to."""
    beside: bool = False
    """The restorer only waits, and what the shim does meanwhile is free as long as a core is."""


class Result(NamedTuple):
    """A ratio, and the interval in which 95 of 100 repetitions would be."""

    name: str
    ratio: float
    low: float
    high: float
    goal: float | None

    def __str__(self) -> str:
        """Return a line of a table in Markdown."""
        goal = (
            "" if self.goal is None else f"≤ {self.goal:g}" if self.ratio <= self.goal else f"**missed: {self.goal:g}**"
        )
        return f"| {self.name} | {self.ratio:.2f} | {self.low:.2f} to {self.high:.2f} | {goal} |"


class Delay:
    """A proxy in front of a server on 127.0.0.1 which takes half of a time each way."""

    def __init__(self, to: str, seconds: float) -> None:
        self.seconds = seconds
        self.to = to
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        host, port = self.to.split(":")
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                time.sleep(self.seconds / 2)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Bench:
    """A layers directory, phases, an engine, registries near and far, and the clock."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.layers = directory / "layers"
        self.layers.mkdir()
        self.engine = servers.Engine(str(directory / "engine.sock"))
        self.engine.tag(NAME, f"sha256:{ID}")
        self.registry = servers.Registry()
        image = images.multi("run")
        self.registry.push("run/app:1.0", image)
        self.far = Delay(self.registry.host, FAR)
        self.digest = image.manifest_digest(ARCHITECTURE)
        real = os.environ.get("LIFECYCLE_DIR")
        self.lifecycle = pathlib.Path(real) if real else layout.lay_out(directory / "lifecycle")
        here = os.path.dirname(sys.executable)
        command = shutil.which("analyzed-shim", path=here) or f"{here}/analyzed-shim"
        self.installed = {"wheel": (command, sys.executable)}
        self.phases = {phase: self.program(phase, "") for phase in ("analyzer", "restorer", "exporter")}
        toml = self.layers / "analyzed.toml"
        for name, seconds in (("0.4 s", 0.4), ("50 ms", 0.05)):
            self.phases[name] = self.program(f"{name}/restorer", f"exec sleep {seconds}")
            rewrite = f'sed -i \'s|reference = "{NAME}"|reference = "{DIGEST}"|\' {toml}\nexec sleep {seconds}'
            self.phases[f"rewriting {name}"] = self.program(f"rewriting {name}/restorer", rewrite)

    def bundle(self) -> None:
        """Make a bundle, and install it where it is measured."""
        made, place = self.directory / "bundle", self.directory / "installed"
        subprocess.run([sys.executable, "-m", "shim", "bundle", made], cwd=HERE.parent, check=True, capture_output=True)
        layout.lay_out(place)
        bundling.install(str(place), str(made))
        inside = place / bundling.NAME / "bin"
        self.installed["bundle"] = (str(inside / "analyzed-shim"), str(inside / "python3"))

    def program(self, name: str, text: str) -> str:
        """Write a program, and return its path."""
        path = self.directory / "phases" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def lay(self, reference: str, image: str | None = None, extensions: bool = True, size: int = 0) -> None:
        """Write analyzed.toml, of at least so many bytes, and group.toml."""
        (self.layers / "analyzed-shim.toml").unlink(missing_ok=True)  # the note would be evidence
        name = f'  image = "{image}"\n' if image else ""
        blocks = [f'[image]\n  reference = ""\n\n[run-image]\n  reference = "{reference}"\n{name}\n[metadata]\n']
        length = len(blocks[0])
        while length < size:
            blocks.append(
                f'\n[[metadata.buildpacks]]\n  key = "bp/{len(blocks)}"\n  version = "0.1"\n'
                f'  [metadata.buildpacks.layers.l]\n    sha = "sha256:{ID}"\n    build = true\n    launch = true\n'
            )
            length += len(blocks[-1])
        (self.layers / "analyzed.toml").write_text("".join(blocks))
        (self.layers / "group.toml").write_text(GROUP + (EXTENSION if extensions else ""))

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a phase is run with."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CNB_", "ANALYZED_SHIM_", "DOCKER_"))}
        env |= {"CNB_PLATFORM_API": "0.11", "CNB_LAYERS_DIR": str(self.layers), "DOCKER_HOST": "unix:///no/such.sock"}
        return env | {"CNB_USER_ID": "0", "CNB_GROUP_ID": "0", "CNB_SKIP_LAYERS": "true"} | more

    def time(self, *command: str, **environ: str) -> float:
        """Return the seconds that a command takes."""
        env = self.environment(**environ)
        began = time.perf_counter()
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def peak(self, *command: str, **environ: str) -> int:
        """Return the bytes that a command has in memory at most."""
        # By a process between: what is started is counted with the memory of whoever started it.
        code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL)"
        code += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
        between = [sys.executable, "-c", code, *command]
        told = subprocess.run(between, env=self.environment(**environ), stdout=subprocess.PIPE, check=True)
        return int(told.stdout)

    def stop(self) -> None:
        """Stop the servers."""
        self.engine.stop()
        self.registry.stop()
        self.far.listening.close()


def starts_over_bare(bench: Bench, how: str) -> list[Case]:
    """Cases that are measured in bare starts."""
    command, _ = bench.installed[how]
    phases = bench.phases
    at: Any = {"DOCKER_HOST": bench.engine.url}

    def case(
        name: str,
        goal: float | None,
        phase: str,
        *options: str,
        lay: Callable[[], None] | None = None,
        beside: bool = False,
        **environ: str,
    ) -> Case:
        given, _, arguments = " ".join(options).partition("--phase")
        words = [command, "run", *given.split(), "--", phases[phase], *arguments.split()]

        def row() -> str:
            report = bench.directory / "report.json"
            bench.time(*words, ANALYZED_SHIM_REPORT=str(report), **environ)
            return str(json.loads(report.read_text())["row"])

        return Case(
            name,
            lay or (lambda: bench.lay(NAME, NAME)),
            lambda: bench.time(phases[phase], *arguments.split()),
            lambda: bench.time(*words, **environ),
            goal,
            row,
            beside,
        )

    daemon = ("--phase", "-daemon", "app")
    digest = lambda: bench.lay(DIGEST, NAME)  # noqa: E731
    return [
        case("`nothing-to-do: Platform API`", NOTHING, "restorer", CNB_PLATFORM_API="0.12"),
        case("`nothing-to-do: no extension`", NOTHING, "restorer", lay=lambda: bench.lay(ID, extensions=False)),
        case("`note`", EXEC, "analyzer", *daemon),
        case("`no-switch`", EXEC, "restorer", lay=lambda: bench.lay(ID)),
        case("`registry-build`", EXEC, "restorer", "--no-daemon"),
        case("`daemon-out-of-reach`", EXEC, "restorer", "--daemon"),
        case("`takes-it`", EXEC, "exporter", *daemon),
        case("`heals`", EXEC, "exporter", lay=lambda: bench.lay(ID, NAME)),
        case("`repairs`", None, "exporter", *daemon, lay=digest, **at),
        case("`daemon-build`, restorer of 0.4 s", BESIDE, "0.4 s", "--daemon", beside=True, **at),
        case("`likely: reverted`, restorer of 0.4 s", BESIDE, "rewriting 0.4 s", beside=True, **at),
        case("`daemon-build`, restorer of 50 ms", None, "50 ms", "--daemon", beside=True, **at),
        case("`likely: reverted`, restorer of 50 ms", None, "rewriting 50 ms", beside=True, **at),
    ]


def whole_restorers(bench: Bench, far: bool) -> list[Case]:
    """Cases that are measured in times of the bare restorer, which asks a registry near or far."""
    name = f"{bench.far.host if far else bench.registry.host}/run/app:1.0"
    restorer = str(bench.lifecycle / "restorer")
    command, _ = bench.installed["wheel"]
    at = {"DOCKER_HOST": os.environ.get("DOCKER_HOST") or bench.engine.url}

    def shimmed(*options: str, **environ: str) -> Callable[[], float]:
        return lambda: bench.time(command, "run", *options, "--", restorer, **environ)

    def bare() -> float:
        return bench.time(restorer)

    repository = name.rpartition(":")[0]

    def ask(method: str, target: str) -> None:
        connection = UnixConnection(at["DOCKER_HOST"].removeprefix("unix://"))
        connection.request(method, target)
        answer = connection.getresponse()
        if answer.status >= 300 or b'"error"' in answer.read():
            raise SystemExit(f"the daemon doesn't do {method} {target}")
        connection.close()

    def pull(tag: str) -> None:
        ask("POST", f"/images/create?{urllib.parse.urlencode({'fromImage': repository, 'tag': tag})}")

    def with_extra_pull() -> float:
        began = time.perf_counter()
        bare()
        pull(bench.digest)
        took = time.perf_counter() - began
        ask("DELETE", f"/images/{repository}@{bench.digest}")
        return took

    pull("1.0")
    policies: list[tuple[str, Callable[[], float], float | None]] = [
        (EXTRA_PULL, with_extra_pull, None),
        (
            "the bare restorer with `CNB_USE_DAEMON=true`",
            lambda: bench.time(restorer, CNB_USE_DAEMON="true", **at),
            None,
        ),
        (BY_NAME, shimmed("--daemon"), 1 if far else None),
        ("`daemon-build`, `if-not-present`", shimmed("--daemon", **at), 1 if far else None),
        ("`daemon-build`, `never`", shimmed("--pull-policy", "never", **at), 1 if far else None),
        ("`daemon-build`, `always`, which pulls", shimmed("--pull-policy", "always", **at), None),
        ("`likely: reverted`", shimmed(**at), None),
        ("`unknown`", shimmed(), None),
    ]
    return [Case(case, lambda: bench.lay(name, name), bare, do, goal) for case, do, goal in policies]


def interleaved(cases: list[Case], runs: int, unit: Callable[[], float]) -> dict[str, list[tuple[float, float, float]]]:
    """Run all cases in turn, each time with a unit beside it."""
    times: dict[str, list[tuple[float, float, float]]] = {case.name: [] for case in cases}
    for _ in range(runs):
        for case in cases:
            one = unit()
            case.lay()
            without = case.without()
            case.lay()
            times[case.name].append((one, without, case.wrapped()))
    return times


def boot(
    samples: list[tuple[float, float, float]], ratio: Callable[[list[tuple[float, float, float]]], float]
) -> tuple[float, float, float]:
    """Return a ratio, and the bounds between which it is in 95 of 100 resamplings."""
    dice = random.Random(1)  # noqa: S311  # nothing secret
    again = sorted(ratio(dice.choices(samples, k=len(samples))) for _ in range(1000))
    return ratio(samples), again[25], again[974]


def over_bare(samples: list[tuple[float, float, float]]) -> float:
    """Return the difference that the shim makes, in bare starts."""
    return statistics.median(s[2] - s[1] for s in samples) / statistics.median(s[0] for s in samples)


def of_bare(samples: list[tuple[float, float, float]]) -> float:
    """Return the whole with the shim, in times of the whole without."""
    return statistics.median(s[2] for s in samples) / statistics.median(s[1] for s in samples)


def sizes(bench: Bench, runs: int, upto: int) -> Iterator[tuple[str, float, float]]:
    """Yield for each size what it costs more at a repair than the smallest, in parses and in times of the file."""
    command, _ = bench.installed["wheel"]
    words, at = (command, "run", "--", bench.phases["rewriting 50 ms"]), {"DOCKER_HOST": bench.engine.url}
    wanted = [size for size in (1_000, 100_000, 1_000_000, 10_000_000) if size <= upto]
    times: dict[int, list[float]] = {size: [] for size in wanted}
    parses: dict[int, list[float]] = {size: [] for size in wanted}
    peaks: dict[int, list[int]] = {size: [] for size in wanted}
    for _ in range(runs):
        for size in wanted:
            bench.lay(NAME, NAME, size=size)
            text = (bench.layers / "analyzed.toml").read_text()
            rewriting = bench.time(bench.phases["rewriting 50 ms"])
            bench.lay(NAME, NAME, size=size)
            times[size].append(bench.time(*words, **at) - rewriting)
            bench.lay(NAME, NAME, size=size)
            peaks[size].append(bench.peak(*words, **at))
            began = time.perf_counter()
            tomllib.loads(text)
            parses[size].append(time.perf_counter() - began)
    base, least = statistics.median(times[wanted[0]]), statistics.median(peaks[wanted[0]])
    for size in wanted[1:]:
        more = (statistics.median(times[size]) - base) / statistics.median(parses[size])
        yield f"{size:,} bytes", more, (statistics.median(peaks[size]) - least) / size


def can_be_run(case: Case) -> bool:
    """Say whether a case works at all: real phases ask more of an engine than the embedded one knows."""
    case.lay()
    try:
        case.wrapped()
    except subprocess.CalledProcessError as problem:
        print(f"left out, as {problem}: {case.name}", file=sys.stderr)
        return False
    return True


def asked_under_never(bench: Bench) -> int:
    """Return how many questions the registry is asked in a known daemon build under `never`."""
    name = f"{bench.registry.host}/run/app:1.0"
    bench.engine.pull(name)
    bench.lay(name, name)
    command, _ = bench.installed["wheel"]
    bench.registry.asked.clear()
    restorer = str(bench.lifecycle / "restorer")
    bench.time(command, "run", "--pull-policy", "never", "--", restorer, DOCKER_HOST=bench.engine.url)
    return len(bench.registry.asked)


def table(title: str, unit: str, results: list[Result]) -> list[str]:
    """Return a table in Markdown."""
    return [f"## {title}", "", f"| | {unit} | 95 % | goal |", "|---|---|---|---|", *map(str, results), ""]


def bars(results: list[Result]) -> str:
    """Draw ratios with their intervals as an SVG."""
    width, line, left = 760, 22, 390
    most = max(result.high for result in results)
    scale = (width - left - 60) / most
    rows = []
    for n, result in enumerate(results):
        y = 10 + n * line
        name = result.name.replace("`", "").replace("&", "&amp;")
        rows.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        rows.append(
            f'<rect x="{left}" y="{y + 3}" width="{max(result.ratio, 0) * scale:.1f}" height="14" class="bar"/>'
        )
        rows.append(
            f'<path d="M{left + result.low * scale:.1f} {y + 10}H{left + result.high * scale:.1f}" class="span"/>'
        )
        rows.append(f'<text x="{left + result.high * scale + 6:.1f}" y="{y + 14}">{result.ratio:.2f}</text>')
    style = "text{font:12px sans-serif;fill:#607d8b}.bar{fill:#26a69a}.span{stroke:#37474f;stroke-width:2}"
    height = 20 + line * len(results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>What the shim costs</title><style>{style}</style>{''.join(rows)}</svg>\n"
    )


def main() -> int:
    """Measure, print, and return the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=31, help="how often each case is run")
    options.add_argument("--docs", action="store_true", help="write the tables and the plot into the docs")
    options.add_argument("--guard", action="store_true", help="exit 1 where a goal is surely missed")
    chosen = options.parse_args()
    compileall.compile_dir(os.path.dirname(shim.__file__), quiet=1)  # as pip does where it installs
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(pathlib.Path(name))
        try:
            return guard(bench) if chosen.guard else everything(bench, chosen.runs, chosen.docs)
        finally:
            bench.stop()


def measured(bench: Bench, how: str, runs: int) -> list[Result]:
    """Measure the cases whose unit is a bare start."""
    cases = starts_over_bare(bench, how)
    start = bench.installed[how][1]
    times = interleaved(cases, runs, lambda: bench.time(start, "-c", "pass"))
    return [Result(case.name, *boot(times[case.name], over_bare), case.goal) for case in cases]


def everything(bench: Bench, runs: int, docs: bool) -> int:
    """Measure all, and return 1 where a goal is missed."""
    lines: list[str] = []
    bench.bundle()
    of_installed = {how: measured(bench, how, runs) for how in bench.installed}
    for how, results in of_installed.items():
        lines += table(f"Over the bare phase, installed as a {how}", "bare starts", results)
    results = of_installed["wheel"]
    missed = [result for all_ in of_installed.values() for result in all_ if result.goal and result.ratio > result.goal]
    for far in (False, True):
        cases = [case for case in whole_restorers(bench, far) if can_be_run(case)]
        times = interleaved(cases, runs, lambda: 0.0)
        wholes = [Result(case.name, *boot(times[case.name], of_bare), case.goal) for case in cases]
        pulled = round(next(result.ratio for result in wholes if result.name == EXTRA_PULL), 2)
        wholes = [one._replace(goal=pulled) if one.name == BY_NAME and not far else one for one in wholes]
        missed += [result for result in wholes if result.goal and result.ratio > result.goal]
        where = f"{FAR * 1000:.0f} ms away" if far else "on loopback"
        lines += table(f"A registry {where}: the whole, in times of the bare restorer", "times", wholes)
    by_size = list(sizes(bench, max(5, runs // 4), 10_000_000))
    lines += [
        "## By the size of analyzed.toml, at a repair",
        "",
        "| | `tomllib` parses of it | memory, in times of it |",
    ]
    lines += ["|---|---|---|", *(f"| {size} | {more:.2f} | {peak:.1f} |" for size, more, peak in by_size), ""]
    lines += [
        "What is more than at 1,000 bytes, and the smallest difference that can be told is some 50,000 bytes.",
        "",
    ]
    lines += memory(bench)
    asked = asked_under_never(bench)
    lines += [f"Under `never` the registry was asked {asked} questions.", ""]
    print("\n".join(lines))
    print("\n".join(f"{result.name:56} {'█' * round(result.ratio * 8)} {result.ratio:.2f}" for result in results))
    if docs:
        (DOCS / "cost.svg").write_text(bars(results))
        page = DOCS / "cost.md"
        mark = "<!-- From here on written by benchmarks/measure.py. -->"
        page.write_text(page.read_text().partition(mark)[0] + f"{mark}\n\n" + "\n".join(lines))
    large = by_size[1:]
    return 1 if missed or asked or max(more for _, more, _ in large) > PARSES or max(p for _, _, p in large) > 6 else 0


def memory(bench: Bench) -> list[str]:
    """Return a table of the memory that the shim has at its peak, in megabytes."""
    rows = []
    for how, (command, start) in bench.installed.items():
        words, at = (command, "run", "--", bench.phases["rewriting 50 ms"]), {"DOCKER_HOST": bench.engine.url}
        bench.lay(ID, extensions=False)
        nothing = bench.peak(command, "run", "--", bench.phases["restorer"])
        bench.lay(NAME, NAME)
        peaks = bench.peak(start, "-c", "pass"), nothing, bench.peak(*words, **at)
        rows.append(f"| {how} | {' | '.join(f'{peak / 1e6:.0f}' for peak in peaks)} |")
    head = [
        "## Memory at its peak, in megabytes",
        "",
        "| | a bare start | nothing to do | a repair |",
        "|---|---|---|---|",
    ]
    return [*head, *rows, ""]


def guard(bench: Bench) -> int:
    """Measure a few times, more often what misses its goal, and return 1 where one is surely missed.

    That is where the whole interval lies above it and its slack in the end. A machine that has no core free makes all
    of a case slower, its bare starts too, but these less, as they seldom wait for their turn twice: there the interval
    has to lie above twice the goal, and of what is done beside a restorer that waits it can't be told.
    """
    missed = 0
    cases = starts_over_bare(bench, "wheel")
    for case in cases:
        case.lay()
        row = case.report() if case.report else ""
        if f"`{row}`" != case.name.partition(", ")[0]:
            print(f"{case.name} comes to {row}")
            missed = 1
    times: dict[str, list[tuple[float, float, float]]] = {case.name: [] for case in cases}
    above = [case for case in cases if case.goal]
    starts: list[tuple[float, float]] = []

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = bench.time(sys.executable, "-c", "pass")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        starts.append((took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        return took

    for runs in (9, 9, 18, 36):
        starts.clear()
        for name, samples in interleaved(above, runs, start).items():
            times[name] += samples
        waits = statistics.median(took for took, _ in starts) / statistics.median(used for _, used in starts)
        above = [case for case in above if over_bare(times[case.name]) > (case.goal or 0)]
        if not above:
            break
    for case in cases:
        if case.goal:
            ratio, low, high = boot(times[case.name], over_bare)
            busy = waits > QUIET
            bad = low > case.goal * (2 if busy else SLACK) and not (busy and case.beside)
            missed |= bad
            verdict = "MISSED" if bad else "" if ratio <= case.goal else "busy, can't be told" if busy else "not surely"
            print(f"{case.name:40} {ratio:6.2f} ({low:.2f} to {high:.2f})  at most {case.goal:g}  {verdict}")
    for runs in (3, 7, 15):
        more = next(more for size, more, _ in sizes(bench, runs, 1_000_000) if size == MEGABYTE)
        if more <= PARSES:
            break
    missed |= more > PARSES
    name = f"{MEGABYTE} more, in tomllib parses"
    print(f"{name:40} {more:6.2f}                 at most {PARSES:g}  {'MISSED' if more > PARSES else ''}")
    asked = asked_under_never(bench)
    print(
        f"{'questions to the registry under never':40} {asked:6}                 at most 0  {'MISSED' if asked else ''}"
    )
    return int(missed or asked > 0)


if __name__ == "__main__":
    sys.exit(main())
