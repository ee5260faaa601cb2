#!/usr/bin/env python3
"""Mutation testing of what is decided, of the evidence and of the edit: each change to the code has to fail a test.

    .venv/bin/python .ci/mutants.py [MODULE]...

cosmic-ray changes one operator, constant or exception at a time in a copy of the tracked files, and runs the tests of
that module. What survives must stand in `.ci/mutants.accepted`, with the reason why it makes no difference.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome

ROOT = pathlib.Path(__file__).parent.parent
BIN = pathlib.Path(sys.executable).parent
ACCEPTED = ROOT / ".ci" / "mutants.accepted"
TESTS = {
    "policy": "tests/test_policy.py tests/test_never_worse.py -k 'not every_combination'",
    "analyzed": "tests/test_files.py tests/test_properties.py -k 'not (arguments or huge or group or agrees)'",
}
CONFIG = """\
[cosmic-ray]
module-path = "shim/{module}.py"
timeout = 12.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -p no:cacheprovider --hypothesis-seed=1457 --hypothesis-profile=first {tests}"
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


def mutate(module: str) -> tuple[int, list[str]]:
    """Return how many mutants there were, and those that survived: module, line as it was, line as it is."""
    with tempfile.TemporaryDirectory(prefix="analyzed-shim-mutants-") as name:
        copy = pathlib.Path(name)

        def run(*command: str) -> None:
            subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                cwd=copy,
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "FUZZ": "0.25"},
            )

        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["xargs", "-0", "cp", "--parents", "-t", name], cwd=ROOT, input=listed, check=True)
        (copy / "cr.toml").write_text(CONFIG.format(module=module, python=sys.executable, tests=TESTS[module]))
        run("cosmic-ray", "init", "cr.toml", "cr.sqlite")
        run("cr-filter-operators", "cr.sqlite", "cr.toml")
        run("cosmic-ray", "baseline", "cr.toml")
        run("cosmic-ray", "exec", "cr.toml", "cr.sqlite")
        with use_db(str(copy / "cr.sqlite"), WorkDB.Mode.open) as database:
            results = [result for _, result in database.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    survivors = []
    for result in results:
        if result.test_outcome == TestOutcome.SURVIVED:
            lines = [
                line for line in str(result.diff).splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]
            survivors.append(f"{module}: " + " => ".join(line[1:].strip() for line in lines))
    return len(results), survivors


def main() -> int:
    """Print a line for each module and each survivor, and return 1 where one isn't accepted."""
    modules = sys.argv[1:] or list(TESTS)
    accepted = [line for line in ACCEPTED.read_text().splitlines() if line and not line.startswith("#")]
    failed = False
    with ThreadPoolExecutor(2) as pool:
        for module, (count, survivors) in zip(modules, pool.map(mutate, modules), strict=True):
            new = [survivor for survivor in survivors if survivor not in accepted]
            dead, known = count - len(survivors), len(survivors) - len(new)
            print(f"mutants of shim/{module}.py: {count}, killed {dead}, accepted {known}", flush=True)
            for survivor in new:
                failed = True
                print(f"  SURVIVED {survivor}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
