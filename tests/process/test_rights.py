"""As root, nothing below the layers directory is done with more rights than its owner has."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from shim.demo import servers
from shim.errors import BrokenFile
from shim.layers import note, replacing
from shim.layers.rights import AS_IT_IS, Rights
from shim.phase import invocation
from tests.support.build import SHIM, Build
from tests.support.layers import ID, Layers, analyzed_toml
from tests.support.users import let_in

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users, which needs root")
USER = ("-uid", "1000", "-gid", "1000")
FORBID = (sys.executable, "-m", "tests.support.forbid")


@pytest.fixture
def owned(layers: Layers, tmp_path: pathlib.Path, engine: servers.Engine, build: Build) -> Layers:
    """A layers directory of user 1000, in a daemon build whose run image the engine has."""
    build.unmeasured()
    layers.write("r:1", "r:1")
    engine.tag("r:1", f"sha256:{ID}")
    build.env |= {"DOCKER_HOST": engine.url, "ANALYZED_SHIM_DAEMON": "true"}
    (tmp_path / "engine.sock").chmod(0o600)  # the daemon's connection needs root
    for path in (layers.path, layers.toml, layers.group):
        os.chown(path, 1000, 1000)
    let_in(tmp_path)
    return layers


def test_the_user_is_the_flag_s_else_the_variable_s() -> None:
    def rights(*argv: str, **environ: str) -> Rights:
        return invocation.read(("restorer", *argv), environ).rights

    assert rights() == AS_IT_IS
    assert rights("-uid", "5", "-gid", "6", CNB_USER_ID="7") == Rights(uid=5, gid=6)
    assert rights(CNB_USER_ID="7", CNB_GROUP_ID="8") == Rights(uid=7, gid=8)
    assert rights(CNB_USER_ID="banana", CNB_GROUP_ID="-1") == AS_IT_IS


USER_1000 = Rights(uid=1000, gid=1001)


def who(path: pathlib.Path) -> tuple[int, int, list[int], Rights | None]:
    """Return as whom something is done beside a path, by an act that needs to write there."""

    def do(directory: int, name: str, user: Rights | None) -> tuple[int, int, list[int], Rights | None]:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o666, dir_fd=directory))
        return os.geteuid(), os.getegid(), os.getgroups(), user

    return USER_1000.act(str(path), do)


@pytest.mark.parametrize(
    ("mode", "owner", "taken"), [(0o755, 0, False), (0o777, 0, True), (0o755, 1000, True), (0o2775, 1000, True)]
)
def test_root_acts_as_the_user_if_that_is_enough_and_by_itself_only_in_what_is_root_s_alone(
    tmp_path: pathlib.Path, mode: int, owner: int, taken: bool
) -> None:
    """Root may be in other groups, which are its own again afterwards."""
    let_in(tmp_path)
    tmp_path.chmod(mode)
    os.chown(tmp_path, owner, 0)
    before = os.getgroups()
    os.setgroups([7, 8])
    os.setegid(5)
    try:
        assert who(tmp_path / "f") == ((1000, 1001, [], USER_1000) if taken else (0, 5, [7, 8], None))
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 5, [7, 8])
    finally:
        os.setegid(os.getgid())
        os.setgroups(before)


@pytest.mark.parametrize(
    "kind", ["of another user", "of another user above", "written by a group", "a link", "a link of another user"]
)
def test_root_does_not_do_by_itself_what_the_user_may_not_if_somebody_could_have_led_it_there(
    tmp_path: pathlib.Path, kind: str
) -> None:
    place = tmp_path / "above" / "place"
    place.mkdir(parents=True)
    let_in(tmp_path)
    (tmp_path / "above").chmod(0o755)
    if kind.startswith("a link"):
        os.rename(place, tmp_path / "target")
        place.symlink_to(tmp_path / "target")
    if kind in ("of another user above", "a link of another user"):
        os.chown(tmp_path / "above", 1234, 0)
    elif kind == "of another user":
        os.chown(place, 1234, 0)
    elif kind == "written by a group":
        place.chmod(0o775)
    if kind == "a link":  # root's own, in a directory of root's own
        assert who(place / "f")[0] == 0
        return
    if kind == "a link of another user":  # by now it leads to root's own, but somebody can make it lead elsewhere
        (tmp_path / "target").chmod(0o700)
        os.chown(tmp_path / "target", 1234, 0)
    with pytest.raises(PermissionError):
        who(place / "f")
    assert not (place / "f").exists()


def test_someone_who_is_not_root_never_takes_on_other_rights(tmp_path: pathlib.Path) -> None:
    """Also if a variable names a user: nothing is even tried."""
    code = (
        "import os, sys; os.chdir('/'); from shim.layers.rights import Rights\n"
        "os.setgroups([7]); os.setgid(2000); os.setuid(2000)\n"
        "for name in ('setgroups', 'setegid', 'seteuid'): setattr(os, name, None)\n"
        "print(Rights(uid=1000, gid=1000).act('/tmp/f', lambda at, name, user: (os.geteuid(), os.getgroups(), user)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True
    )
    assert ended.stdout == "(2000, [7], None)\n", ended.stderr


@pytest.mark.parametrize(
    "start", ["setgroups denied", "setresuid denied", "no CAP_SETGID", "no CAP_SETUID", "no user 1000"]
)
def test_a_repair_by_root_that_can_not_take_on_all_of_a_user(build: Build, owned: Layers, start: str) -> None:
    """It repairs if it can, and in any case the phase gets the IDs and groups that the shim was started with."""
    phase = build.phase(does=f"id -u >> {owned.path}/ids\nid -G >> {owned.path}/ids")
    starts = {
        "setgroups denied": [*FORBID, "setgroups"],
        "setresuid denied": [*FORBID, "setresuid"],
        "no CAP_SETGID": ["setpriv", "--bounding-set=-setgid", "--inh-caps=-setgid", "--groups=0,7"],
        "no CAP_SETUID": ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", "--groups=0,7"],
        "no user 1000": ["unshare", "--user", "--map-root-user"],
    }
    (owned.path / "ids").write_text("")
    bare = subprocess.run([*starts[start], str(phase)], env=build.env, capture_output=True, text=True, check=True)
    ids = (owned.path / "ids").read_text()
    (owned.path / "ids").write_text("")
    ended = build.call(*starts[start], *SHIM, "run", "--", str(phase), *USER)
    assert (bare.returncode, ended.code) == (0, 0), ended.err
    assert (owned.path / "ids").read_text() == ids
    assert "internal error" not in ended.err


def test_setgroups_denied_is_no_reason_not_to_repair(build: Build, owned: Layers) -> None:
    """As in a user namespace, or with the groups kept by the container's runtime: a filter stands in for both."""
    phase = build.phase()
    ended = build.call(*FORBID, "setgroups", *SHIM, "run", "--", str(phase), *USER)
    assert (ended.code, ended.outcome, owned.reference) == (0, "prevented", ID), ended.err
    assert owned.toml.stat().st_uid == 1000


@pytest.mark.parametrize("way", ["as the user", "in a shared directory"])
def test_a_file_of_another_owner_that_the_user_may_write_is_the_user_s_to_change(
    build: Build, owned: Layers, way: str
) -> None:
    os.chown(owned.toml, 1234, 1000)
    owned.toml.chmod(0o664)
    if way == "in a shared directory":
        os.chown(owned.path, 1234, 1000)
        owned.path.chmod(0o2775)
    ended = build.run("restorer", *USER)
    assert (ended.code, ended.outcome, owned.reference) == (0, "prevented", ID), ended.err
    about = owned.toml.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (1234, 1000, 0o664)
    assert owned.stray() == set()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("hard link", "hard link"), ("another owner", "user 1000 may not write it"), ("unreadable", "Permission denied")],
)
def test_the_line_says_whether_it_may_be_planted_or_may_not_be_read(
    build: Build, owned: Layers, tmp_path: pathlib.Path, kind: str, words: str
) -> None:
    target = tmp_path / "target.toml"
    target.write_text(analyzed_toml("r:1", "r:1"))
    target.chmod(0o644)
    owned.toml.unlink()
    plant(owned.toml, kind, target)
    ended = build.run(build.phase(), *USER)
    ended.expect(code=0, outcome="passed-through")
    assert words in ended.err
    assert ("may be planted" in ended.err) is (kind != "unreadable")


SWAP = """
import os, sys, time
os.setgroups([]); os.setgid(1000); os.setuid(1000)
layers, target, end = sys.argv[1], sys.argv[2], time.monotonic() + 60
print("up", flush=True)
while time.monotonic() < end and os.path.exists(layers):
    try:
        os.symlink(target, f"{layers}/swapped"); time.sleep(0.00005); os.unlink(f"{layers}/swapped")
        os.mkdir(f"{layers}/swapped"); time.sleep(0.00005); os.rename(f"{layers}/swapped", f"{layers}/was")
        for name in os.listdir(f"{layers}/was"): os.unlink(f"{layers}/was/{name}")
        os.rmdir(f"{layers}/was")
    except OSError:
        for path in ("swapped", "was"):
            try:
                os.unlink(f"{layers}/{path}")
            except OSError:
                pass
"""
"""A user who makes a directory of the layers directory a link, and a directory again, as fast as can be."""


@pytest.mark.parametrize("what", ["report", "note", "snapshot"])
def test_a_directory_that_is_swapped_for_a_link_leads_root_nowhere(
    owned: Layers, tmp_path: pathlib.Path, what: str
) -> None:
    target = tmp_path / "root-s"
    target.mkdir()
    target.chmod(0o755)
    swapped = owned.path / "swapped"
    act: dict[str, Callable[[], None]] = {
        "report": lambda: replacing.write(str(swapped / "f"), b"x", USER_1000),
        "note": lambda: note.leave(str(swapped / "f"), True, USER_1000),
        "snapshot": lambda: replacing.remove(str(swapped / "f"), USER_1000),
    }
    if what == "snapshot":
        (target / "f").write_text("precious")
    with subprocess.Popen(
        [sys.executable, "-c", SWAP, str(owned.path), str(target)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        end, done = time.monotonic() + 3, 0
        while time.monotonic() < end:
            try:
                act[what]()
                done += 1
            except (OSError, BrokenFile):
                pass
        other.kill()
    assert os.listdir(target) == (["f"] if what == "snapshot" else [])
    assert done or what == "snapshot", "it never met the directory, so nothing was tried"


@pytest.mark.parametrize("place", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"])
def test_a_report_can_go_to_a_stream(build: Build, owned: Layers, place: str) -> None:
    ended = build.run("restorer", *USER, ANALYZED_SHIM_REPORT=place)
    assert (ended.code, '"outcome": "prevented"' in ended.err) == (0, True), ended.err


def test_a_report_can_go_to_a_pipe_and_below_root_s_own_links(
    build: Build, owned: Layers, tmp_path: pathlib.Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(0.2)
        build.run("restorer", *USER, ANALYZED_SHIM_REPORT=str(pipe)).expect(code=0)
        assert json.loads(reader.communicate(timeout=60)[0])["outcome"] == "prevented"
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    owned.write("r:1", "r:1")
    build.run("restorer", *USER, ANALYZED_SHIM_REPORT=f"{tmp_path}/link/r.json").expect(code=0)
    assert json.loads((tmp_path / "place" / "r.json").read_text())["outcome"] == "prevented"


def test_a_second_report_that_is_shorter_is_whole_and_keeps_the_mode(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    replacing.write(str(path), b"longer")
    path.chmod(0o600)
    replacing.write(str(path), b"short")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"short", 0o600)


def test_a_repair_is_made_with_the_user_s_rights_and_the_daemon_asked_with_root_s(build: Build, owned: Layers) -> None:
    ended = build.run("restorer", *USER)
    assert (ended.code, ended.outcome, owned.reference) == (0, "prevented", ID)
    about = owned.toml.stat()
    assert (about.st_uid, about.st_gid) == (1000, 1000)
    assert owned.stray() == set()


def test_the_variables_say_who_the_user_is_too(build: Build, owned: Layers) -> None:
    ended = build.run("restorer", CNB_USER_ID="1000", CNB_GROUP_ID="1000")
    assert (ended.outcome, owned.toml.stat().st_uid) == ("prevented", 1000)


def plant(path: pathlib.Path, kind: str, target: pathlib.Path) -> None:
    """Put something else than a file of its own in a file's place."""
    if kind == "link":
        path.symlink_to(target)
    elif kind == "hard link":
        os.link(target, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text(target.read_text())
        os.chown(path, 1234 if kind == "another owner" else 0, 0)
        path.chmod(0o644 if kind == "another owner" else 0o600)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "another owner", "unreadable"])
@pytest.mark.parametrize("phase", ["restorer", "exporter"])
def test_what_was_planted_as_analyzed_toml_is_refused_and_its_target_untouched(
    build: Build, owned: Layers, tmp_path: pathlib.Path, kind: str, phase: str
) -> None:
    target = tmp_path / "target.toml"
    target.write_text(analyzed_toml(f"r@sha256:{ID}", "r:1"))
    target.chmod(0o644)
    owned.toml.unlink()
    plant(owned.toml, kind, target)
    before = target.read_bytes(), target.stat().st_mtime_ns
    path = build.phase(phase, exits=23)
    ended = build.run(path, *USER, "-daemon", "app")
    ended.expect(code=23, outcome="passed-through")
    assert str(owned.toml) in ended.err
    assert ended.err.count("\n") == 1
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
    assert os.listdir(owned.path).count("analyzed.toml") == 1


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "another owner"])
def test_what_was_planted_as_the_note_tells_nothing(
    build: Build, owned: Layers, tmp_path: pathlib.Path, kind: str
) -> None:
    target = tmp_path / "note.toml"
    target.write_text("daemon = false\n")
    plant(owned.note, kind, target)
    ended = build.run("restorer", *USER, ANALYZED_SHIM_DAEMON="")
    assert ended.code in (0, 1)
    assert str(owned.note) in ended.err
    ended.expect(certainty="likely")


def test_a_note_is_left_over_a_planted_link_and_not_through_it(
    build: Build, owned: Layers, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "target"
    target.write_text("precious\n")
    owned.note.symlink_to(target)
    build.run(build.phase("analyzer"), "-daemon", *USER, "app").expect(outcome="noted")
    assert target.read_text() == "precious\n"
    assert owned.note.stat().st_uid == 1000
    assert stat.S_IMODE(owned.note.lstat().st_mode) == 0o644


def test_a_restorer_that_plants_a_link_while_it_runs_leads_nowhere(
    build: Build, owned: Layers, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "target.toml"
    target.write_text(analyzed_toml("r:1", "r:1"))
    phase = build.phase(does=f"rm {owned.toml}\nln -s {target} {owned.toml}")
    build.run(phase, *USER).expect(code=0, outcome="unrepaired")
    assert target.read_text() == analyzed_toml("r:1", "r:1")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "unreadable"])
@pytest.mark.parametrize("verb", ["run", "fix"])
def test_what_was_planted_as_the_report_is_left_alone(
    build: Build, owned: Layers, tmp_path: pathlib.Path, kind: str, verb: str
) -> None:
    """In the layers directory; a pipe that nobody reads isn't waited for."""
    target = tmp_path / "precious"
    target.write_text("precious\n")
    target.chmod(0o600)
    report = owned.path / "report.json"
    plant(report, kind, target)
    phase = build.phase("exporter", exits=23)
    owned.write(f"r@sha256:{'0' * 64}", "r:1")
    command = [*SHIM, "run", "--", str(phase), "-daemon", "app"] if verb == "run" else [*SHIM, "fix"]
    environ = {"CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000", "ANALYZED_SHIM_REPORT": str(report)}
    ended = subprocess.run(
        command, env={**build.env, **environ}, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, owned.reference) == (23 if verb == "run" else 0, ID), ended.stderr
    assert f"the report can't be written to {report}" in ended.stderr
    assert target.read_text() == "precious\n"


def test_a_report_in_the_layers_directory_is_the_user_s(build: Build, owned: Layers) -> None:
    report = owned.path / "report.json"
    build.run("restorer", *USER, ANALYZED_SHIM_REPORT=str(report)).expect(code=0)
    assert (json.loads(report.read_text())["outcome"], report.stat().st_uid) == ("prevented", 1000)


def test_a_snapshot_and_a_repair_are_made_with_the_user_s_rights(build: Build, owned: Layers) -> None:
    owned.write(f"r@sha256:{'0' * 64}", "r:1")
    user = {"CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000"}
    build.call(*SHIM, "snapshot", **user).expect(code=0)
    assert (owned.path / "analyzed-shim.snapshot.toml").stat().st_uid == 1000
    ended = build.call(*SHIM, "fix", **user)
    assert (ended.code, owned.reference, owned.toml.stat().st_uid) == (0, ID, 1000), ended.err
    assert owned.stray() == set()


def test_a_layers_directory_that_is_still_root_s_takes_the_note(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    """As on a new volume, which the analyzer gives to the user only later."""
    build.run(build.phase("analyzer"), "-daemon", *USER, "app").expect(outcome="noted")
    assert layers.note.stat().st_uid == 0
