"""Imports point one way, and what becomes the phase imports nothing heavy."""

from __future__ import annotations

import ast
import pathlib
import sys
import tomllib

import pytest

from shim.demo import servers
from tests.support.build import Build
from tests.support.layers import ID, Layers

PACKAGE = pathlib.Path(__file__).parents[2] / "shim"
MAY_IMPORT = {
    "": set(),
    "policy": {""},
    "layers": {"", "policy"},
    "daemon": {""},
    "phase": {"", "policy", "layers", "daemon"},
    "tools": {"", "policy", "layers", "daemon", "phase", "demo"},
    "demo": {"", "daemon"},
}
"""Which folder may import which; "" is the package itself. `__main__` may import all."""
HEAVY = {"docker", "typer", "tomlkit"}


def imported(path: pathlib.Path) -> set[str]:
    """Return what a module imports at run time, anywhere in it: `shim`'s modules by their own name."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.update(f"shim.{alias.name}" if module == "shim" else module for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_point_one_way(path: pathlib.Path) -> None:
    folder = "" if path.parent == PACKAGE else path.parent.name
    if path == PACKAGE / "__main__.py":
        return
    for name in imported(path):
        head, _, module = name.partition(".")
        if head == "shim" and module and not module.startswith("__version"):
            imports = module.partition(".")[0] if (PACKAGE / module.partition(".")[0]).is_dir() else ""
            assert imports in MAY_IMPORT[folder] | {folder}, f"{path} imports {module}"


def test_only_one_module_imports_docker_and_none_of_the_wrapper_imports_typer() -> None:
    importers: dict[str, set[str]] = {name: set() for name in HEAVY}
    for path in PACKAGE.rglob("*.py"):
        for name in imported(path):
            if name.partition(".")[0] in HEAVY:
                importers[name.partition(".")[0]].add(path.stem)
    assert importers == {"docker": {"containers"}, "typer": {"cli"}, "tomlkit": {"analyzed", "group", "bundle"}}


def test_the_runtime_dependencies_are_three() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert {line.partition(">")[0] for line in project["dependencies"]} == HEAVY


def test_the_installed_script_imports_nothing_but_the_shim() -> None:
    script = PACKAGE.parent / "packaging" / "analyzed-shim"
    assert script.read_text().startswith("#!python\n")
    assert imported(script) == {"sys", "shim.__main__"}


@pytest.mark.parametrize(
    ("phase", "options", "environ", "reference", "image", "outcome"),
    [
        ("restorer", (), {"CNB_PLATFORM_API": "0.12"}, "r:1", "r:1", "passed-through"),
        ("restorer", (), {"CNB_PLATFORM_API": ""}, "r:1", "r:1", "passed-through"),
        ("restorer", (), {"no extensions": "1"}, "r:1", "r:1", "passed-through"),
        ("restorer", (), {}, ID, None, "no-lookup"),
        ("restorer", ("--no-daemon",), {}, "r:1", "r:1", "not-a-daemon-build"),
        ("restorer", ("--daemon",), {}, "r:1", "r:1", "kept-name"),
        ("restorer", (), {"CNB_USE_DAEMON": "true"}, "r:1", "r:1", "kept-name"),
        ("exporter", (), {}, "r:1", "r:1", "passed-through"),
        ("exporter", (), {"CNB_USE_DAEMON": "true"}, ID, "r:1", "passed-through"),
        ("exporter", (), {}, ID, "r:1", "name-restored"),
        ("exporter", (), {}, "", "r:1", "filled"),
        ("restorer", ("--no-daemon",), {}, "", "r:1", "filled"),
        ("restorer", ("--daemon",), {}, "", "r:1", "filled"),
        ("analyzer", (), {}, "r:1", "r:1", "noted"),
        ("detector", (), {}, "r:1", "r:1", "passed-through"),
    ],
)
def test_what_becomes_the_phase_imports_nothing_heavy(
    build: Build,
    layers: Layers,
    engine: servers.Engine,
    tmp_path: pathlib.Path,
    phase: str,
    options: tuple[str, ...],
    environ: dict[str, str],
    reference: str,
    image: str | None,
    outcome: str,
) -> None:
    build.unmeasured()
    layers.write(reference, image, extensions="no extensions" not in environ)
    ended = build.run(build.phase(phase), "x", options=options, **environ)
    assert (ended.outcome, engine.asked) == (outcome, [])
    layers.write(reference, image, extensions="no extensions" not in environ)
    layers.note.unlink(missing_ok=True)
    script = (sys.executable, str(PACKAGE.parent / "packaging" / "analyzed-shim"))  # -m would import more itself
    ended = build.call(
        *(*script, "run", *options, "--", str(tmp_path / phase), "x"),
        **{"PYTHONPROFILEIMPORTTIME": "1", "ANALYZED_SHIM_REPORT": "", **environ},
    )
    modules = {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}
    assert "shim.phase.program" in modules
    heavy = {*HEAVY, "json", "http", "ssl", "socket", "threading", "subprocess", "enum", "signal"}
    if outcome == "passed-through" and phase != "exporter":
        heavy |= {"collections", "typing", "dataclasses", "tomllib", "re"}
        assert "shim.policy" not in modules
    else:
        heavy -= {"enum"}  # which tomllib's re needs
    assert not {module.partition(".")[0] for module in modules} & heavy
    if outcome == "passed-through" and phase != "exporter":
        paths = [PACKAGE.joinpath(*module.split(".")[1:]) for module in modules if module.startswith("shim")]
        files = [
            path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py" for path in paths
        ]
        assert sum(len(file.read_text().splitlines()) for file in files) <= 1000
