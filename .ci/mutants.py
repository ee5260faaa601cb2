#!/usr/bin/env python3
"""Mutation testing of what is decided, of the evidence, of the edit and of the reader that verifies it.

    .venv/bin/python .ci/mutants.py [MODULE]...

cosmic-ray changes one operator, constant or exception at a time in a copy of the tracked files, and runs the tests of
that module: each change has to fail one. What survives must stand in `.ci/mutants.accepted`, with the reason why it
makes no difference. Words, the order of rows and the like it doesn't change.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome

ROOT = pathlib.Path(__file__).parent.parent
BIN = pathlib.Path(sys.executable).parent
ACCEPTED = ROOT / ".ci" / "mutants.accepted"
TESTS = {
    "policy/rows": "tests/test_policy.py tests/test_never_worse.py -k 'not every_combination'",
    "layers/analyzed": "tests/test_files.py tests/test_properties.py -k 'not (arguments or huge or group or agrees)'",
    "layers/plain": "tests/test_plain.py",
}
OPTIONS = "-x -q -p no:cacheprovider --hypothesis-seed=1457 --hypothesis-profile=first"
# The tests write to a file: what a test leaves running can't keep a pipe open, whose end cosmic-ray would wait for. An
# endless one ends, too, where cosmic-ray itself is ended.
CONFIG = """\
[cosmic-ray]
module-path = "shim/{module}.py"
timeout = {seconds}
excluded-modules = []
test-command = '''sh -c "exec timeout {at_most} {python} -m pytest {tests} > said 2>&1"'''
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
  # Of words only whether they are equal means anything.
  "core/ReplaceComparisonOperator_(Eq|NotEq)_(Lt|LtE|Gt|GtE|Is|IsNot)$",
  # Types of annotations, flags of `open` that no file system tells apart, and the same of sums.
  "core/ReplaceBinaryOperator_(BitOr|Pow)_.*",
  "core/ReplaceBinaryOperator_(Add|Sub|BitAnd)_(?!Sub|Add).*",
]
"""


def mutate(module: str) -> tuple[int, int, list[str]]:
    """Return how many mutants there were, how many ran without end, and those that survived.

    Of each of these the module, the line as it was and the line as it is.
    """
    with tempfile.TemporaryDirectory(prefix="analyzed-shim-mutants-") as name:
        copy = pathlib.Path(name)

        def run(*command: str) -> None:
            subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                cwd=copy,
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "FUZZ": "0.25", "PYTEST_DEBUG_TEMPROOT": name},
            )

        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["xargs", "-0", "cp", "--parents", "-t", name], cwd=ROOT, input=listed, check=True)

        def configure(seconds: int) -> None:
            tests = f"{OPTIONS} {TESTS[module]}"
            told = CONFIG.format(
                module=module, seconds=seconds, at_most=seconds + 30, python=sys.executable, tests=tests
            )
            (copy / "cr.toml").write_text(told)

        configure(120)
        began = time.monotonic()
        try:
            run("cosmic-ray", "baseline", "cr.toml")
        except subprocess.CalledProcessError:
            print((copy / "said").read_text())
            raise
        configure(round(5 + 8 * (time.monotonic() - began)))
        run("cosmic-ray", "init", "cr.toml", "cr.sqlite")
        run("cr-filter-operators", "cr.sqlite", "cr.toml")
        run("cosmic-ray", "exec", "cr.toml", "cr.sqlite")
        with use_db(str(copy / "cr.sqlite"), WorkDB.Mode.open) as database:
            results = [result for _, result in database.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    survivors = []
    for result in results:
        if result.test_outcome != TestOutcome.KILLED:  # or couldn't be tried
            lines = [
                line for line in str(result.diff).splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]
            survivors.append(f"{module}: " + " => ".join(line[1:].strip() for line in lines))
    return len(results), sum(result.output == "timeout" for result in results), survivors


def main() -> int:
    """Print a line for each module and each survivor, and return 1 where one isn't accepted."""
    modules = sys.argv[1:] or list(TESTS)
    accepted = [line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")]
    failed = False
    with ThreadPoolExecutor(2) as pool:
        for module, (count, endless, survivors) in zip(modules, pool.map(mutate, modules), strict=True):
            new = [survivor for survivor in survivors if survivor not in accepted]
            dead, known = count - len(survivors), len(survivors) - len(new)
            how = f"killed {dead}, {endless} of them by time" if endless else f"killed {dead}"
            print(f"mutants of shim/{module}.py: {count}, {how}, accepted {known}", flush=True)
            for survivor in new:
                failed = True
                print(f"  SURVIVED {survivor}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
