"""As root, nothing is done with more rights than the owner of the first directory that isn't root's has."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from shim import files
from shim.errors import FileProblem, WriteRefused
from tests.support.build import SHIM, Build
from tests.support.forbid import FORBID
from tests.support.layers import GROUP, ID, analyzed_toml
from tests.support.processes import program
from tests.support.users import let_in

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users, which needs root")
U = os.getuid() or 1000  # the user of the build
STALE = f"r@sha256:{'0' * 64}"


@pytest.fixture
def owned(known: Build) -> Build:
    """A daemon build whose run image the daemon has, with a layers directory of the build's user."""
    known.unmeasured()
    (known.directory / "engine.sock").chmod(0o600)  # the daemon's connection needs root
    known.layers.give(U)
    let_in(known.directory)
    return known


def tree(top: pathlib.Path, *directories: tuple[int, int]) -> pathlib.Path:
    """Make directories, each in the one before, with their owners and modes, and return the last one."""
    let_in(top)
    path = top.joinpath(*(f"d{number}" for number in range(len(directories))))
    path.mkdir(parents=True)
    for one, (owner, mode) in zip((path, *path.parents), reversed(directories), strict=False):
        os.chown(one, owner, owner + (owner > 0))
        one.chmod(mode)
    return path


@needs_root
@pytest.mark.parametrize(
    ("directories", "owner"),
    [
        ([(0, 0o1777)], 0),
        ([(0, 0o755), (1000, 0o755)], 1000),
        ([(1000, 0o2755)], 1000),
        ([(1000, 0o755), (1234, 0o777)], 1000),
        ([(1000, 0o755), (0, 0o777)], 1000),
        ([(1000, 0o755), (1234, 0o755)], None),
        ([(1000, 0o755), (6, 0o775)], None),  # its group is one of root's
        ([(1000, 0o755), (0, 0o700), (1000, 0o755)], None),
        ([(1000660000, 0o755)], 1000660000),
    ],
)
def test_the_owner_of_the_first_directory_that_is_not_root_s_is_who_acts(
    tmp_path: pathlib.Path, directories: list[tuple[int, int]], owner: int | None
) -> None:
    """None: that user may not. Root may be in other groups, which are its own again afterwards."""
    path = tree(tmp_path, *directories) / "f"
    before, descriptors = os.getgroups(), os.listdir("/proc/self/fd")
    os.setgroups([7, 8])
    os.setegid(5)
    try:
        for act in (lambda: files.replace(str(path), b"x"), lambda: files.read(str(path)) and None):
            if owner is None:
                with pytest.raises((WriteRefused, FileProblem)):
                    act()
            else:
                act()
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 5, [7, 8])
    finally:
        os.setegid(os.getgid())
        os.setgroups(before)
    assert os.listdir("/proc/self/fd") == descriptors
    assert path.exists() is (owner is not None)
    if owner is not None:
        about = path.stat()
        gid = path.parent.stat().st_gid if path.parent.stat().st_mode & stat.S_ISGID else owner + 1 if owner else 5
        assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (owner, gid, 0o644)


@needs_root
def test_links_in_a_path_lead_root_nowhere_and_are_the_kernel_s_business_to_another(tmp_path: pathlib.Path) -> None:
    """Anybody may have put them into a directory of root's. Who isn't root never takes on other rights."""
    place = tree(tmp_path, (0, 0o1777))
    link = place / "link"
    link.symlink_to(place)
    code = (
        "import os, sys; sys.path.insert(0, os.getcwd()); from shim import files\n"
        "os.setgroups([7]); os.setgid(2000); os.setuid(2000)\n"
        "for name in ('setgroups', 'setegid', 'seteuid'): setattr(os, name, None)\n"
        "files.replace(sys.argv[1], b'x'); print(files.read(sys.argv[1])[0], os.geteuid(), os.getgroups())"
    )
    ended = subprocess.run([sys.executable, "-c", code, link / "f"], capture_output=True, text=True)
    assert ended.stdout == "b'x' 2000 [7]\n", ended.stderr
    assert (place / "f").stat().st_uid == 2000
    for act in (lambda path: files.replace(path, b"y"), files.remove, files.read):
        with pytest.raises((WriteRefused, FileProblem)):
            act(str(link / "f"))
    assert (place / "f").read_text() == "x"


GROUPS = ("setpriv", "--groups=0,7")
ROWS = ("daemon-build", "unknown", "analyzer", "exporter")
HALF_WAY: list[tuple[tuple[str, ...], str]]
HALF_WAY = [((*GROUPS, *FORBID, "setgroups"), row) for row in ROWS]  # as in a user namespace
HALF_WAY += [((*GROUPS, *FORBID, call), "daemon-build") for call in ("setresgid", "setresuid")]
HALF_WAY += [(("unshare", "--user", "--map-root-user"), "daemon-build")]


@needs_root
@pytest.mark.parametrize(("start", "row"), HALF_WAY)
def test_root_that_can_not_take_on_all_of_a_user(owned: Build, start: tuple[str, ...], row: str) -> None:
    """It repairs if it can, and in any case the phase gets the IDs and groups that the shim was started with."""
    phase, ids = row if row in ("analyzer", "exporter") else "restorer", owned.directory / "ids"
    text = f"#!/bin/sh -p\ngrep -E '^(Uid|Gid|Groups)' /proc/self/status > {ids}\n"  # without -p it sets them itself
    path = program(owned.directory / phase, text)
    owned.layers.write(STALE if row == "exporter" else "r:1", "r:1")
    subprocess.run([*start, str(path)], check=True)
    bare = ids.read_text()
    ids.unlink()
    environ = {"ANALYZED_SHIM_DAEMON": ""} if row == "unknown" else {}
    ended = owned.call(*start, *SHIM, "run", "--", str(path), "-daemon", **environ).expect(code=0, err="")
    assert (ids.read_text(), "internal error" in ended.out, owned.layers.stray()) == (bare, False, set())
    if "setgroups" in start:
        about = owned.layers.note if phase == "analyzer" else owned.layers.toml
        assert (about.stat().st_uid, ended.report["row"]) == (U, row)
        assert owned.layers.reference == (ID if row in ("daemon-build", "exporter") else "r:1")


SWAP = """
import contextlib, os, shutil, sys, time
os.setgroups([]); os.setgid(1000); os.setuid(1000)
layers, target, end = sys.argv[1], sys.argv[2], time.monotonic() + 60
swapped, was = f"{layers}/swapped", f"{layers}/was"
print("up", flush=True)
while time.monotonic() < end and os.path.exists(layers):
    try:
        os.symlink(target, swapped); time.sleep(0.00005); os.unlink(swapped)
        os.mkdir(swapped); time.sleep(0.00005); os.rename(swapped, was)
        shutil.rmtree(was)
    except OSError:
        for path in (swapped, was):
            with contextlib.suppress(OSError): os.unlink(path)
"""
"""A user who makes a directory of the layers directory a link, and a directory again, as fast as can be."""


@needs_root
def test_a_directory_that_is_swapped_for_a_link_leads_root_nowhere(owned: Build) -> None:
    target, swapped = owned.directory / "root-s", str(owned.layers.path / "swapped" / "f")
    target.mkdir(mode=0o700)
    (target / "f").write_text("precious")
    command = [sys.executable, "-c", SWAP, str(owned.layers.path), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "up\n"
        end, done, refused = time.monotonic() + 4, 0, 0
        while time.monotonic() < end:
            for act in (lambda path: files.replace(path, b"x"), files.read, files.remove):
                try:
                    assert "precious" not in str(act(swapped)), "root's file was read"
                    done += 1
                except (WriteRefused, FileProblem):
                    refused += 1
        other.kill()
    assert [path.read_text() for path in target.iterdir()] == ["precious"]
    assert refused and done, "it never met the directory, so nothing was tried"


KINDS = ["hard link", "pipe", "unreadable", "device"][: 3 if os.getuid() else 4]
PLACES = ["analyzed.toml", "group.toml", "analyzed-shim.toml", "report.json", "analyzed-shim.snapshot.toml"]
USES = {"analyzer": PLACES[2:4], "restorer": PLACES[:4], "exporter": PLACES[:1]}
USES |= dict.fromkeys(("snapshot", "fix"), PLACES[4:])
PLANTED = {(verb, name, "link") for verb, names in USES.items() for name in names}
PLANTED |= {("restorer", PLACES[0], kind) for kind in KINDS} | {("analyzer", PLACES[3], kind) for kind in KINDS}


@pytest.mark.parametrize(("verb", "name", "kind"), sorted(PLANTED))
def test_what_is_planted_leads_nowhere_and_fails_no_build(owned: Build, verb: str, name: str, kind: str) -> None:
    """What else lies in a file's place is test_files's. A pipe that nobody reads isn't waited for."""
    layers, target = owned.layers, owned.directory / "target"
    layers.write(STALE if verb in ("exporter", "fix") else "r:1", "r:1")
    layers.group.rename(target) if name == "group.toml" else target.write_text(analyzed_toml("r:1", "r:1"))
    target.chmod(0o600 if os.getuid() == 0 else 0o644)
    before = target.read_bytes(), target.stat().st_mtime_ns, target.stat().st_mode, target.stat().st_uid
    path = layers.path / name
    path.unlink(missing_ok=True)
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(target),
        "hard link": lambda: os.link(target, path),
        "pipe": lambda: os.mkfifo(path),
        "unreadable": lambda: path.touch(0),
        "device": lambda: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    }
    make[kind]()
    environ = {"ANALYZED_SHIM_REPORT": str(layers.path / "report.json"), "ANALYZED_SHIM_DAEMON": ""}
    if verb in ("snapshot", "fix"):
        ended = owned.call(*SHIM, verb, *["--daemon"][: verb == "fix"], **environ)
    else:
        ended = owned.run(owned.phase(verb, exits=23), "-daemon", "app", **environ).expect(code=23, err="")
    about = target.stat()
    assert (target.read_bytes(), about.st_mtime_ns, about.st_mode, about.st_uid) == before
    assert str(path) in ended.out + ended.err and "internal error" not in ended.out
    assert {one.name for one in layers.path.iterdir()} <= set(PLACES)


@pytest.mark.parametrize("verb", ["fix", "snapshot"])
def test_no_set_uid_bit_is_copied_by_the_ci_step(owned: Build, verb: str) -> None:
    """By which root's file was a way to root; where `run` writes, see below."""
    kept = owned.layers.path / "analyzed-shim.snapshot.toml"
    for path in (kept, owned.layers.toml):
        path.write_text(analyzed_toml(STALE if verb == "fix" else "r:1", "r:1"))
        path.chmod(0o6755)
    owned.layers.give(U)
    owned.call(*SHIM, verb).expect(code=0, reference=ID if verb == "fix" else "r:1")
    about = (kept if verb == "snapshot" else owned.layers.toml).stat()
    assert (stat.S_IMODE(about.st_mode), about.st_uid) == (0o755, U)


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "directory", "repaired"),
    [
        ((1234, 1000), 0o664, (1000, 1000, 0o755), True),  # written in place
        ((1234, 1234), 0o644, (1000, 1000, 0o755), False),
        ((1000, 1000), 0o600, (0, 0, 0o1777), True),  # the directory is root's
        ((1000, 1000), 0o6755, (0, 0, 0o755), True),  # no set-uid bit is copied
    ],
)
def test_a_file_of_another_owner_is_changed_if_that_user_may_and_stays_the_owner_s(
    owned: Build, owner: tuple[int, int], mode: int, directory: tuple[int, int, int], repaired: bool
) -> None:
    layers = owned.layers
    os.chown(layers.toml, *owner)
    layers.toml.chmod(mode)
    os.chown(layers.path, *directory[:2])
    layers.path.chmod(directory[2])
    outcome, reference = ("prevented", ID) if repaired else ("kept-name", "r:1")
    owned.run("restorer").expect(code=0, outcome=outcome, reference=reference)
    about = layers.toml.stat()
    assert ((about.st_uid, about.st_gid), stat.S_IMODE(about.st_mode)) == (owner, mode & 0o777)
    assert layers.stray() == set()


@needs_root
def test_a_directory_of_root_s_at_the_analyzer_is_the_user_s_afterwards(owned: Build) -> None:
    """As on a new volume: the note is root's, and with the directory it becomes the user's."""
    layers = owned.layers
    owned.env["ANALYZED_SHIM_DAEMON"] = ""
    layers.give(0)
    owned.run("analyzer", "-daemon", "-uid", "1000", "-gid", "1000", "app").expect(code=0, outcome="noted")
    layers.write("r:1", "r:1")
    owned.run("restorer", "-uid", "1000", "-gid", "1000").expect(outcome="prevented", reference=ID, known_by="note")
    assert {path.stat().st_uid for path in layers.path.iterdir()} == {1000}
    assert layers.note.read_text().endswith(f"daemon = true\n{GROUP}\n")
