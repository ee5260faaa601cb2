"""The documents say what the code does."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shim import errors
from shim.phase import settings
from tests.support.layers import Layers
from tests.support.parts import Parts
from tests.support.processes import program
from tests.support.shim import SHIM, Shim

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_reference_pages_are_what_the_code_says() -> None:
    subprocess.run([sys.executable, "docs/render.py", "--check"], check=True, cwd=ROOT)


def test_the_readme_names_every_option_and_variable() -> None:
    for name, variable in settings.VARIABLES.items():
        assert f"`--{name}" in README
        assert f"`{variable}`" in README


def test_every_exit_code_of_an_error_has_its_place_where_exit_codes_are_told_of() -> None:
    of_errors = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    assert {64, 80, 81, 126, 127} <= of_errors
    (paragraph,) = re.findall(r"^The exit status is .*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert set(map(int, re.findall(r"\b\d+(?= [a-z])", paragraph.replace("\n", " ").replace("128 + n", "")))) == (
        of_errors - {1}
    )
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    assert set(map(int, re.findall(r"^\| (\d+) \|", page, re.MULTILINE))) == of_errors | {1}


def test_the_environment_page_names_every_variable_that_the_code_reads() -> None:
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    read = set()
    for path in (ROOT / "shim").rglob("*.py"):
        read |= set(re.findall(r'"((?:CNB|DOCKER|ANALYZED_SHIM)_[A-Z_]+)"', path.read_text()))
    read.discard("CNB_BUILD_IMAGE")  # only looked at by check
    assert len(read) > 12
    for variable in read:
        assert f"`{variable}`" in page, variable


def test_completion_and_its_installation_are_there(shim: Shim) -> None:
    environ = {"COMP_WORDS": "analyzed-shim fi", "COMP_CWORD": "1", "_ANALYZED_SHIM_COMPLETE": "complete_bash"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'analyzed-shim'; from shim.tools.cli import main; main()",
    ]
    ended = shim.call(*command, PYTHONPATH=str(ROOT), **environ)
    assert ended.out.split() == ["fix"]
    assert "--install-completion" in shim.call(*SHIM, "--help", COLUMNS="200").out


def test_help_names_every_option_and_variable(shim: Shim) -> None:
    text = shim.call(*SHIM, "run", "--help", COLUMNS="240").out
    for name, variable in settings.VARIABLES.items():
        assert f"--{name}" in text
        assert variable in text


def test_the_site_builds_strictly_with_every_link_leading_somewhere(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("index.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        assert "```sequence" not in text
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', text), f"{page} loads from elsewhere"
    assert sum('<svg class="sequence"' in page.read_text() for page in pages) >= 3


def test_a_diagram_with_a_line_that_is_no_step_does_not_build() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import hooks
    finally:
        sys.path.pop(0)
    assert hooks.draw("actors: a | b\na -> b: x").count("<text") == 3
    for step in ("a -> c: x", "a x", "a -> x", "c .. x"):
        with pytest.raises(ValueError, match="no step"):
            hooks.draw(f"actors: a | b\n{step}")


def shell_of(page: pathlib.Path) -> Iterator[str]:
    """Yield the shell parts of a page: its `sh` blocks, and what its YAML has a shell run."""
    for kind, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        text = "\n".join(line[indent:] for line in lines)
        if kind == "sh":
            yield text
        elif kind == "yaml":
            yield "\n".join(scripts_in(yaml.safe_load(text)))


def scripts_in(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from scripts_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from scripts_in(value)


PAGES = sorted(
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if re.search(r"```(sh|yaml)", page.read_text())
)


CALLS: dict[tuple[str, ...], set[str]] = {
    ("docker", "load"): {"--input"},
    ("docker", "tag"): set(),
    ("docker", "image", "inspect"): set(),
    ("pack", "build"): {"--builder", "--lifecycle-image"},
    ("systemctl", "--user", "start"): set(),
    ("pip", "install"): set(),
}
"""What the pages call of other programs, and the options that those have there."""


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_shell_parts_of_the_documents_run(
    shim: Shim, layers: Layers, parts: Parts, tmp_path: pathlib.Path, page: pathlib.Path, bundle: pathlib.Path
) -> None:
    """In the order of the page, with the stand-in where the lifecycle is, and recorders where docker and pack are.

    The bundle is there already, and deriving images of a registry that has none only prints; other tests do both. What
    is called of other programs has only what those have, and names what the page made.
    """
    (tmp_path / "bundle").symlink_to(bundle)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(tmp_path / "tools")
    lifecycle = tmp_path / "cnb" / "lifecycle"
    shutil.copytree(shim.lifecycle, lifecycle, symlinks=True)
    tools, recorded = tmp_path / "tools", tmp_path / "recorded"
    tools.mkdir()
    recorded.touch()
    derived: set[str] = set()
    called = 0
    program(
        tools / "analyzed-shim", f"#!{sys.executable}\nimport sys\nfrom shim.__main__ import main\nsys.exit(main())\n"
    )
    for name in ("docker", "pack", "systemctl", "pip"):
        program(tools / name, f'#!/bin/sh\nprintf "%s\\t" "${{0##*/}}" "$@" >> {recorded}\necho >> {recorded}\n')
    place = tmp_path / "try"
    names = {
        "/cnb/lifecycle": str(lifecycle),
        "/layers": str(layers.path),
        "/tmp/try": str(place),
        "registry.example": parts.registry.host,
    }
    ran = 0
    for block in shell_of(page):
        if "-m venv" in block or ".ci/setup" in block:  # those two lines are run by CI's own script
            continue
        layers.write(f"{parts.registry.host}/run/app:1.0", f"{parts.registry.host}/run/app:1.0")
        layers.note.unlink(missing_ok=True)
        text = re.sub(rf"(?<![\w.])(?:{'|'.join(map(re.escape, names))})", lambda found: names[found[0]], block)
        lines = [line for line in text.splitlines() if not line.startswith("#!") and "packaging/bundle.py" not in line]
        script = re.sub(r"(analyzed-shim builder .*)", r"\1 --print", "\n".join(lines))
        environ = {
            **shim.env,
            **parts.at,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LIFECYCLE": "lifecycle:1",
            "STANDIN_RUN_IMAGE": parts.name,
            "STANDIN_SWITCH": parts.name,
            "XDG_RUNTIME_DIR": str(tmp_path),
        }
        if "XDG_RUNTIME_DIR" in script:  # there the page names a socket that isn't here
            script += "\nunset DOCKER_HOST"
        ended = subprocess.run(
            ["sh", "-euc", script],
            env=environ,
            cwd=place if place.exists() else tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, (script, ended.stdout, ended.stderr)
        assert "Traceback" not in ended.stderr
        printed = re.findall(r"commit it as ([^\s,]+)", ended.stdout)
        assert printed == re.findall(r"analyzed-shim builder .*--tag (\S+)", script)
        derived.update(printed)
        called += len(re.findall(r"^(?:docker|pack|systemctl|pip) ", script, re.MULTILINE))
        ran += 1
    assert ran, page
    calls = [line.split("\t")[:-1] for line in recorded.read_text().splitlines()]
    assert len(calls) == called
    for call in calls:
        verb = next(verb for verb in CALLS if tuple(call[: len(verb)]) == verb)
        options = [word.partition("=")[0] for word in call[len(verb) :] if word.startswith("-")]
        assert set(options) <= CALLS[verb], call
        if "--lifecycle-image" in call:
            assert call[call.index("--lifecycle-image") + 1] in derived


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: pathlib.Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    package = {name for name in names if name.startswith("shim/")}
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "shim"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert package == set(files.stdout.split())
    stem = "-".join(wheel.name.split("-")[:2])
    script = f"{stem}.data/scripts/analyzed-shim"
    assert {name.partition("/")[0] for name in names - package - {script}} == {f"{stem}.dist-info"}
    assert modes[script] & 0o111
    assert modes["shim/demo/lifecycle.py"] & 0o111
    assert "shim/py.typed" in names
