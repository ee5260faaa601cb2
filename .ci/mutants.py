#!/usr/bin/env python3
"""Mutation testing of what is decided, of the edit, of a phase's command line and of the group.

    .venv/bin/python .ci/mutants.py [MODULE]...

One operator, constant or exception is changed at a time, by cosmic-ray's operators, in a copy of the tracked files, and
the tests of that module are run: each change has to fail one. What survives must stand in `.ci/mutants.accepted`, with
the reason why it makes no difference. Words, the order of rows and the like aren't changed.

A change that makes an endless loop is killed by time: by a limit relative to what the tests take unchanged, measured
again whenever a run reaches it. Where even that doesn't settle it the machine is busy, and the line says so. The exit
status is 1 if a change survived, 75 if none did and some couldn't be told.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

Verdict = Literal["killed", "killed by time", "survived", "busy"]

ROOT = pathlib.Path(__file__).parent.parent
ACCEPTED = ROOT / ".ci" / "mutants.accepted"
TESTS = {
    "policy": "tests/unit/test_policy.py tests/unit/test_never_worse.py",
    "analyzed": "tests/unit/test_files.py tests/process/test_properties.py -k 'not (arguments or huge or group)'",
    "call": "tests/unit/test_call.py",
    "group": "tests/unit/test_files.py tests/process/test_properties.py -k 'note or group'",
}
OPTIONS = "-x -q -p no:cacheprovider -p no:xdist --hypothesis-seed=1457 --hypothesis-profile=first"
LEFT_OUT = (
    # Of words only whether they are equal means anything.
    r"core/ReplaceComparisonOperator_(Eq|NotEq)_(Lt|LtE|Gt|GtE|Is|IsNot)$",
    # Types of annotations, flags of `open` that no file system tells apart, and the same of sums.
    r"core/ReplaceBinaryOperator_(BitOr|Pow)_",
    r"core/ReplaceBinaryOperator_(Add|Sub|BitAnd)_(?!Sub|Add)",
)
FACTOR = 8
"""So many times as long as the tests take unchanged, and SPARE seconds, may a run with a change take."""
SPARE = 5
HANGS = 900
"""Seconds after which the unchanged tests are taken to hang."""
BUSY = 75
"""The exit status if it couldn't be told, `EX_TEMPFAIL`."""


class Mutant(NamedTuple):
    """A module with one change."""

    module: str
    text: str
    change: str
    """The line as it was and the line as it is."""


def mutants_of(module: str) -> Iterator[Mutant]:
    """Yield every change of a module."""
    text = (ROOT / "shim" / f"{module}.py").read_text()
    lines = text.splitlines()
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or any(re.match(pattern, name) for pattern in LEFT_OUT):
            continue
        for occurrence in itertools.count():
            changed = MutationVisitor.mutate_code(text, operator(), occurrence)
            if changed is None:
                break
            diff = difflib.unified_diff(lines, changed.splitlines(), n=0, lineterm="")
            sides = [line[1:].strip() for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]
            yield Mutant(module, changed, f"{module}: {' => '.join(sides)}")


class Copy:
    """A copy of the tracked files in which one thread tries mutants."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["xargs", "-0", "cp", "--parents", "-t", directory], cwd=ROOT, input=listed, check=True)
        self.limits: dict[str, float] = {}

    def verdict(self, mutant: Mutant) -> Verdict:
        """Run the tests with a change."""
        path = pathlib.Path(self.directory, "shim", f"{mutant.module}.py")
        limit = self.limits.get(mutant.module) or self.measured(mutant.module)
        for _ in range(4):
            before = path.read_text()
            path.write_text(mutant.text)
            try:
                status = self.run_tests(mutant.module, limit)
            finally:
                path.write_text(before)
            if status is not None:
                return "killed" if status else "survived"
            of_now = self.measured(mutant.module)
            if of_now <= limit:
                return "killed by time"
            limit = of_now
        return "busy"

    def measured(self, module: str) -> float:
        """Return the seconds that a change of a module may take now."""
        began = time.monotonic()
        status = self.run_tests(module, HANGS)
        if status is None:
            return float("inf")
        if status:
            raise SystemExit(f"the tests of shim/{module}.py fail unchanged:\n{self.said.read_text()}")
        self.limits[module] = SPARE + FACTOR * (time.monotonic() - began)
        return self.limits[module]

    def run_tests(self, module: str, seconds: float) -> int | None:
        """Return the exit status of a module's tests, or None if they took longer."""
        command = [sys.executable, "-m", "pytest", *shlex.split(f"{OPTIONS} {TESTS[module]}")]
        own = {"FUZZ": "0.25", "PYTEST_DEBUG_TEMPROOT": self.directory, "PYTHONDONTWRITEBYTECODE": "1"}
        env = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"} | own
        # Into a file: what a test leaves running can't keep a pipe open, whose end would be waited for.
        with self.said.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.directory, env=env, stdout=out, stderr=out, start_new_session=True
            )
            try:
                return process.wait(min(seconds, HANGS))
            except subprocess.TimeoutExpired:
                return None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @property
    def said(self) -> pathlib.Path:
        """The file of what the tests said last."""
        return pathlib.Path(self.directory, "said")


def main() -> int:
    """Print a line for each module and each mutant that lives or couldn't be told, and return the exit status."""
    modules = sys.argv[1:] or list(TESTS)
    accepted = {line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")}
    mine = threading.local()
    found: Counter[Verdict] = Counter()
    with contextlib.ExitStack() as stack:

        def prepare() -> None:
            mine.copy = Copy(stack.enter_context(tempfile.TemporaryDirectory(prefix="analyzed-shim-mutants-")))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=prepare) as pool:
            for module in modules:
                mutants = list(mutants_of(module))
                verdicts = list(pool.map(lambda mutant: mine.copy.verdict(mutant), mutants))
                known = sum(v == "survived" and m.change in accepted for m, v in zip(mutants, verdicts, strict=True))
                of_module = Counter(verdicts)
                of_module["survived"] -= known
                found += of_module
                told = ", ".join(f"{verdict} {number}" for verdict, number in of_module.items() if number)
                print(f"mutants of shim/{module}.py: {len(mutants)}, {told}, accepted {known}", flush=True)
                for mutant, verdict in zip(mutants, verdicts, strict=True):
                    if verdict == "busy" or (verdict == "survived" and mutant.change not in accepted):
                        print(f"  {verdict.upper()} {mutant.change}", flush=True)
    return 1 if found["survived"] else BUSY if found["busy"] else 0


if __name__ == "__main__":
    sys.exit(main())
