"""The documents say what the code does."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

from shim import errors
from shim.phase import settings
from tests.support.build import SHIM, Build

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_reference_pages_are_what_the_code_says() -> None:
    subprocess.run([sys.executable, "docs/render.py", "--check"], check=True, cwd=ROOT)


def test_the_readme_names_every_option_and_variable() -> None:
    for name, variable in settings.VARIABLES.items():
        assert f"`--{name}" in README
        assert f"`{variable}`" in README


def test_the_readme_is_read_in_three_minutes() -> None:
    text = re.sub(r"<!--.*?-->|```.*?```|!\[.*?\]\(.*?\)", "", README, flags=re.DOTALL)
    assert 600 <= len(re.findall(r"\S*[^\W_]\S*", re.sub(r"\]\([^)]*\)", "]", text))) <= 700


def test_every_exit_code_of_an_error_has_its_place_where_exit_codes_are_told_of() -> None:
    of_errors = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    assert {64, 80, 81, 126, 127} <= of_errors
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


def test_completion_and_its_installation_are_there(build: Build) -> None:
    environ = {"COMP_WORDS": "analyzed-shim fi", "COMP_CWORD": "1", "_ANALYZED_SHIM_COMPLETE": "complete_bash"}
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'analyzed-shim'; from shim.tools.cli import main; main()",
    ]
    ended = build.call(*command, PYTHONPATH=str(ROOT), **environ)
    assert ended.out.split() == ["fix"]
    assert "--install-completion" in build.call(*SHIM, "--help", COLUMNS="200").out


def test_help_names_every_option_and_variable(build: Build) -> None:
    text = build.call(*SHIM, "run", "--help", COLUMNS="240").out
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
        assert "sequenceDiagram" not in text
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', text), f"{page} loads from elsewhere"
    diagrams = [tag for page in pages for tag in re.findall(r'<svg class="sequence"[^>]*>', page.read_text())]
    assert len(diagrams) >= 3
    assert all("viewBox" in tag for tag in diagrams)  # without it a narrow window cuts off the lower part


def test_a_diagram_with_a_line_that_is_no_step_does_not_build() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import hooks
    finally:
        sys.path.pop(0)
    actors = "participant a\nparticipant b\n"
    assert hooks.draw(f"{actors}a->>b: x\nNote over b: y").count("<text") == 4
    for step in ("a->>c: x", "a x", "a->>b", "Note over c: x", "loop x"):
        with pytest.raises(ValueError, match="no step"):
            hooks.draw(f"{actors}{step}")


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: pathlib.Path) -> None:
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
