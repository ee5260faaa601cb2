"""Imports point one way, what execs a phase imports nothing heavy, and a bundle has whatever is imported late."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

from shim import install
from tests.support.build import Build
from tests.support.layers import ID

PACKAGE = pathlib.Path(__file__).parents[2] / "shim"
ORDER = ["errors", "log", "call", "process", "files", "toml", "group", "analyzed", "policy"]
ORDER += ["daemon", "settings", "report", "nothing", "wrap"]
"""The wrapper's house: each imports what stands before it only."""
FAST = {"errors", "log", "call", "process", "files", "toml", "group", "nothing"}
FOR_PEOPLE = {"cli", "fix", "check", "install", "image", "demo"}
"""On top: nothing of the wrapper imports them."""
HEAVY = {"docker", "typer", "tomlkit"}
MODULES = sorted(PACKAGE.rglob("*.py"))
PATH = [str(PACKAGE.parent), *(entry for entry in sys.path if entry.endswith("site-packages"))]


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield what is imported at run time."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in getattr(node, "orelse", ()) if for_types else ast.iter_child_nodes(node):
        yield from imports(child)


def imported(path: pathlib.Path) -> set[str]:
    """Return what a module imports anywhere in it: `shim`'s modules by their own name."""
    found: set[str] = set()
    for node in imports(ast.parse(path.read_text())):
        module = str(getattr(node, "module", ""))
        found.update(f"{module}.{one.name}".strip(".") if module in ("", "shim") else module for one in node.names)
    return found - {"__future__", "shim.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_point_one_way(path: pathlib.Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    names = imported(path)
    assert not [name for name in names if name.startswith("_")], "what begins with _ is another's own"
    below = {name.split(".")[1] for name in names if name.startswith("shim.")}
    assert own in {"__init__", "__main__", *FOR_PEOPLE, *ORDER}, "a module that has no place in the house"
    if own not in FOR_PEOPLE:
        assert below <= ({*ORDER, "cli"} if own == "__main__" else {*ORDER[: [*ORDER, own].index(own)]})
    heavy = {name.partition(".")[0] for name in names} & HEAVY
    allowed = {"daemon": {"docker"}, "analyzed": {"tomlkit"}, "cli": {"typer", "docker"}}
    assert heavy <= allowed.get(own, {"docker"} if own in FOR_PEOPLE else set())


def test_the_runtime_dependencies_are_three_and_the_installed_script_imports_nothing_but_the_shim() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert {line.partition(">")[0] for line in project["dependencies"]} == HEAVY
    script = PACKAGE.parent / "packaging" / "analyzed-shim"
    assert script.read_text().startswith("#!python\n") and imported(script) == {"sys", "shim.__main__"}


LATE = """
import sys
sys.path[:0] = {path!r}
import {needed}
before = set(sys.modules)
{late}
print(*set(sys.modules) - before)
"""


def test_what_is_imported_late_is_in_a_bundle() -> None:
    """A bundle has what `install._NEEDED` and the wrapper's modules import at once, and a drop-in needs no more."""
    wrapper = [path for path in MODULES if path.parent == PACKAGE and path.stem not in FOR_PEOPLE]
    nodes = [node for path in wrapper for node in ast.walk(ast.parse(path.read_text()))]
    late = {ast.unparse(one) for node in nodes if isinstance(node, ast.FunctionDef) for one in imports(node)}
    late.remove("from shim import cli")
    assert {"import tomllib", "from docker.api.client import APIClient", "from shim.wrap import wrap"} <= late
    needed = ", ".join([*install._NEEDED, *(f"shim.{path.stem}" for path in wrapper)])
    code = LATE.format(path=PATH, needed=needed, late="\n".join(sorted(late)))
    command = (sys.executable, "-IS", "-c", code)
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "\n"


# Says what was imported when the phase is started, and so what a bare interpreter would not have.
TELLS = """
import sys
sys.path[:0] = {path!r}
sys.argv[0] = "analyzed-shim"
before = set(sys.modules)
def tell(event, arguments):
    if event in ("os.exec", "os.fork"):
        print("imported", *sorted(set(sys.modules) - before), flush=True)
sys.addaudithook(tell)
from shim.__main__ import main
main()
"""


CASES = dict.fromkeys(("restorer CNB_PLATFORM_API=0.12", "restorer extensions=", "exporter", "detector"), "nothing")
CASES |= {f"exporter CNB_USE_DAEMON=true image= reference={ID}": "nothing", f"restorer image= reference={ID}": "little"}
CASES |= dict.fromkeys(("analyzer", "--no-daemon restorer", "restorer"), "little")
CASES |= {"--no-daemon restorer reference=": "tomlkit", "--daemon restorer": "docker tomlkit"}
CASES |= {"exporter CNB_USE_DAEMON=true": "docker"}


@pytest.mark.parametrize("case", CASES)
def test_what_execs_a_phase_imports_nothing_heavy(known: Build, case: str) -> None:
    """A case is options, a phase and variables, among which are the values of analyzed.toml."""
    environ = dict(word.split("=") for word in case.split() if "=" in word)
    *options, phase = [word for word in case.split() if "=" not in word]
    known.unmeasured()
    del known.env["ANALYZED_SHIM_DAEMON"]
    image = environ.get("image", "r:1")
    known.layers.write(environ.get("reference", "r:1"), image, extensions="extensions" not in environ)
    command = [sys.executable, "-IS", "-c", TELLS.format(path=PATH), "run", *options, "--", str(known.phase(phase))]
    env = {**known.env, **environ}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    found = set(next(line for line in ended.stdout.splitlines() if line.startswith("imported ")).split()[1:])
    tops = {name.partition(".")[0] for name in found}
    assert "shim.process" in found and tops & HEAVY == {*CASES[case].split()} & HEAVY
    if CASES[case] in ("nothing", "little"):
        assert not tops & {"json", "http", "ssl", "socket", "subprocess", "threading", "urllib", "asyncio", "inspect"}
    if CASES[case] == "nothing":
        assert not tops & {"re", "typing", "tomllib", "dataclasses", "pathlib", "warnings"}
        assert not found & {f"shim.{name}" for name in set(ORDER) - FAST}
