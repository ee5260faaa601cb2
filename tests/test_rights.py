"""As root, nothing below the layers directory is done with more rights than its owner has."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess

import pytest

from shim.demo import servers
from shim.layers.rights import AS_IT_IS, Rights
from shim.phase import invocation
from tests.conftest import ID, SHIM, Layers, Shim, analyzed_toml
from tests.test_process import program

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users, which needs root")
USER = ("-uid", "1000", "-gid", "1000")


@pytest.fixture
def owned(layers: Layers, tmp_path: pathlib.Path, engine: servers.Engine, shim: Shim) -> Layers:
    """A layers directory of user 1000, in a daemon build whose run image the engine has."""
    shim.unmeasured()
    layers.write("r:1", "r:1")
    engine.tag("r:1", f"sha256:{ID}")
    shim.env |= {"DOCKER_HOST": engine.url, "ANALYZED_SHIM_DAEMON": "true"}
    (tmp_path / "engine.sock").chmod(0o600)  # the daemon's connection needs root
    for path in (layers.path, layers.toml, layers.group):
        os.chown(path, 1000, 1000)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    return layers


def test_the_user_is_the_flag_s_else_the_variable_s() -> None:
    def rights(*argv: str, **environ: str) -> Rights:
        return invocation.read(("restorer", *argv), environ).rights

    assert rights() == AS_IT_IS
    assert rights("-uid", "5", "-gid", "6", CNB_USER_ID="7") == Rights(uid=5, gid=6)
    assert rights(CNB_USER_ID="7", CNB_GROUP_ID="8") == Rights(uid=7, gid=8)
    assert rights(CNB_USER_ID="banana", CNB_GROUP_ID="-1") == AS_IT_IS


def test_rights_are_taken_where_somebody_could_have_planted_something(tmp_path: pathlib.Path) -> None:
    user = Rights(uid=1000, gid=1001)
    os.setegid(5)  # root may be in another group, which is its own again afterwards
    mine = (os.geteuid(), os.getegid(), os.getgroups())
    for mode, owner, taken in ((0o755, 0, False), (0o777, 0, True), (0o775, 0, True), (0o755, 1000, True)):
        tmp_path.chmod(mode)
        os.chown(tmp_path, owner, 0)
        with user.within(str(tmp_path)):
            assert (os.geteuid(), os.getegid()) == ((1000, 1001) if taken else mine[:2])
            assert os.getgroups() == ([] if taken else mine[2])
        assert (os.geteuid(), os.getegid(), os.getgroups()) == mine
    os.setegid(os.getgid())


def test_a_repair_is_made_with_the_user_s_rights_and_the_daemon_asked_with_root_s(shim: Shim, owned: Layers) -> None:
    ended = shim.run("restorer", *USER)
    assert (ended.code, ended.outcome, owned.reference) == (0, "prevented", ID)
    about = owned.toml.stat()
    assert (about.st_uid, about.st_gid) == (1000, 1000)
    assert owned.stray() == set()


def test_the_variables_say_who_the_user_is_too(shim: Shim, owned: Layers) -> None:
    ended = shim.run("restorer", CNB_USER_ID="1000", CNB_GROUP_ID="1000")
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
    shim: Shim, owned: Layers, tmp_path: pathlib.Path, kind: str, phase: str
) -> None:
    target = tmp_path / "target.toml"
    target.write_text(analyzed_toml(f"r@sha256:{ID}", "r:1"))
    target.chmod(0o644)
    owned.toml.unlink()
    plant(owned.toml, kind, target)
    before = target.read_bytes(), target.stat().st_mtime_ns
    path = program(tmp_path / phase, "#!/bin/sh\nexit 23\n")
    ended = shim.run(path, *USER, "-daemon", "app")
    assert (ended.code, ended.outcome) == (23, "passed-through")
    assert str(owned.toml) in ended.err
    assert ended.err.count("\n") == 1
    assert (target.read_bytes(), target.stat().st_mtime_ns) == before
    assert os.listdir(owned.path).count("analyzed.toml") == 1


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "another owner"])
def test_what_was_planted_as_the_note_tells_nothing(
    shim: Shim, owned: Layers, tmp_path: pathlib.Path, kind: str
) -> None:
    target = tmp_path / "note.toml"
    target.write_text("daemon = false\n")
    plant(owned.note, kind, target)
    ended = shim.run("restorer", *USER, ANALYZED_SHIM_DAEMON="")
    assert ended.code in (0, 1)
    assert str(owned.note) in ended.err
    assert ended.report["certainty"] == "likely"


def test_a_note_is_left_over_a_planted_link_and_not_through_it(
    shim: Shim, owned: Layers, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "target"
    target.write_text("precious\n")
    owned.note.symlink_to(target)
    ended = shim.run(program(tmp_path / "analyzer", "#!/bin/sh\n"), "-daemon", *USER, "app")
    assert ended.outcome == "noted"
    assert target.read_text() == "precious\n"
    assert owned.note.stat().st_uid == 1000
    assert stat.S_IMODE(owned.note.lstat().st_mode) == 0o644


def test_a_restorer_that_plants_a_link_while_it_runs_leads_nowhere(
    shim: Shim, owned: Layers, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "target.toml"
    target.write_text(analyzed_toml("r:1", "r:1"))
    phase = program(tmp_path / "restorer", f"#!/bin/sh\nrm {owned.toml}\nln -s {target} {owned.toml}\n")
    ended = shim.run(phase, *USER)
    assert (ended.code, ended.outcome) == (0, "unrepaired")
    assert target.read_text() == analyzed_toml("r:1", "r:1")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "directory", "unreadable"])
@pytest.mark.parametrize("verb", ["run", "fix"])
def test_what_was_planted_as_the_report_is_left_alone(
    shim: Shim, owned: Layers, tmp_path: pathlib.Path, kind: str, verb: str
) -> None:
    """In the layers directory; a pipe that nobody reads isn't waited for."""
    target = tmp_path / "precious"
    target.write_text("precious\n")
    target.chmod(0o600)
    report = owned.path / "report.json"
    plant(report, kind, target)
    phase = program(tmp_path / "exporter", "#!/bin/sh\nexit 23\n")
    owned.write(f"r@sha256:{'0' * 64}", "r:1")
    command = [*SHIM, "run", "--", str(phase), "-daemon", "app"] if verb == "run" else [*SHIM, "fix"]
    environ = {"CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000", "ANALYZED_SHIM_REPORT": str(report)}
    ended = subprocess.run(
        command, env={**shim.env, **environ}, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, owned.reference) == (23 if verb == "run" else 0, ID), ended.stderr
    assert f"the report can't be written to {report}" in ended.stderr
    assert target.read_text() == "precious\n"


def test_a_report_in_the_layers_directory_is_the_user_s(shim: Shim, owned: Layers) -> None:
    report = owned.path / "report.json"
    assert shim.run("restorer", *USER, ANALYZED_SHIM_REPORT=str(report)).code == 0
    assert (json.loads(report.read_text())["outcome"], report.stat().st_uid) == ("prevented", 1000)


def test_a_snapshot_and_a_repair_are_made_with_the_user_s_rights(shim: Shim, owned: Layers) -> None:
    owned.write(f"r@sha256:{'0' * 64}", "r:1")
    user = {"CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000"}
    assert shim.call(*SHIM, "snapshot", **user).code == 0
    assert (owned.path / "analyzed-shim.snapshot.toml").stat().st_uid == 1000
    ended = shim.call(*SHIM, "fix", **user)
    assert (ended.code, owned.reference, owned.toml.stat().st_uid) == (0, ID, 1000), ended.err
    assert owned.stray() == set()


def test_a_layers_directory_that_is_still_root_s_takes_the_note(
    shim: Shim, layers: Layers, tmp_path: pathlib.Path
) -> None:
    """As on a new volume, which the analyzer gives to the user only later."""
    ended = shim.run(program(tmp_path / "analyzer", "#!/bin/sh\n"), "-daemon", *USER, "app")
    assert ended.outcome == "noted"
    assert layers.note.stat().st_uid == 0
