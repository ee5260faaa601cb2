"""The documents say what the code does."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import zipfile

from shim import errors, settings
from tests.conftest import SHIM, Shim

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_reference_pages_are_what_the_code_says() -> None:
    subprocess.run([sys.executable, "docs/render.py", "--check"], check=True, cwd=ROOT)


def test_the_readme_names_every_option_variable_and_exit_code() -> None:
    for name, variable in settings.VARIABLES.items():
        assert f"`--{name}" in README
        assert f"`{variable}`" in README
    for error in (errors.WrongUse, errors.NotInDaemon, errors.NotRepaired, errors.CannotRun, errors.NotThere):
        assert re.search(rf"\b{error.exit_code}\b", README)


def test_help_names_every_option_and_variable(shim: Shim) -> None:
    text = shim.call(*SHIM, "run", "--help", COLUMNS="240").out
    for name, variable in settings.VARIABLES.items():
        assert f"--{name}" in text
        assert variable in text


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
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
    assert {name.partition("/")[0] for name in names - package} == {
        f"analyzed_shim-{wheel.name.split('-')[1]}.dist-info"
    }
    assert modes["shim/demo/lifecycle.py"] & 0o111
    assert "shim/py.typed" in names
