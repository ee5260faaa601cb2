"""Bad input: the build is no worse than without the shim, one line names the file and the way out, nothing is lost."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.layers import EXTENSION, GROUP, ID, Layers, analyzed_toml
from tests.support.mounts import in_mount_namespace
from tests.support.needs import needs_root
from tests.support.processes import program

BAD_TOML = {
    "empty": b"",
    "malformed": b"[run-image\nreference",
    "not UTF-8": b"\xff\xfe[run-image]",
    "no run image": b'[image]\nreference = ""\n',
    "reference not a string": b'[run-image]\nreference = 5\nimage = "r:1"\n',
    "image not a string": b'[run-image]\nreference = "r:1"\nimage = ["r:1"]\n',
    "run-image not a table": b'run-image = "x"\n',
}


@pytest.fixture
def phase(tmp_path: pathlib.Path) -> pathlib.Path:
    """A phase that says what it was called with and ends with a status of its own."""
    directory = tmp_path / "phases"
    directory.mkdir()
    for name in ("analyzer", "restorer", "exporter"):
        program(directory / name, '#!/bin/sh\necho "called with $*"\nexit 23\n')
    return directory


@pytest.mark.parametrize("name", ["restorer", "exporter"])
@pytest.mark.parametrize("content", BAD_TOML.values(), ids=BAD_TOML)
@pytest.mark.parametrize("option", ["--daemon", "--no-daemon", "--strict"])
def test_an_analyzed_toml_that_is_none(
    build: Build, layers: Layers, phase: pathlib.Path, name: str, content: bytes, option: str
) -> None:
    layers.group.write_text(GROUP + EXTENSION)
    layers.toml.write_bytes(content)
    ended = build.run(phase / name, "-skip-layers", options=(option,))
    ended.expect(code=23, out="called with -skip-layers\n", outcome="passed-through")
    assert ended.err.count("\n") == 1
    assert str(layers.toml) in ended.err
    assert layers.toml.read_bytes() == content
    assert layers.stray() == set()


@pytest.mark.parametrize(
    "content", [b"[[group-extensions\n", b"\xff\\", b"group-extensions = 1\n", b"group-extensions = [\n"]
)
def test_a_group_toml_that_is_none(build: Build, layers: Layers, phase: pathlib.Path, content: bytes) -> None:
    layers.write("r:1", "r:1")
    layers.group.write_bytes(content)
    ended = build.run(phase / "restorer", "-skip-layers", options=("--daemon",))
    ended.expect(code=23, out="called with -skip-layers\n", outcome="passed-through")
    assert ended.err.count("\n") == 1
    assert str(layers.group) in ended.err


@pytest.mark.parametrize("missing", ["analyzed.toml", "group.toml"])
def test_a_file_that_is_not_there(build: Build, layers: Layers, phase: pathlib.Path, missing: str) -> None:
    layers.write("r:1", "r:1")
    (layers.path / missing).unlink()
    ended = build.run(phase / "restorer", options=("--daemon",), CNB_LOG_LEVEL="debug")
    ended.expect(code=23, outcome="passed-through")
    assert ended.err.count("\n") == 1
    assert f"{layers.path}/{missing}" in ended.err
    assert ended.err.endswith(" [passed-through]\n")


@pytest.mark.parametrize("content", [b"\xff", b"daemon = 3\n", b"daemon = [", b"[daemon]\n"])
def test_a_note_that_is_none(build: Build, layers: Layers, engine: servers.Engine, content: bytes) -> None:
    layers.write("r:1", "r:1")
    engine.tag("r:1", f"sha256:{ID}")
    layers.note.write_bytes(content)
    ended = build.run("restorer", options=("--daemon",), DOCKER_HOST=engine.url)
    ended.expect(code=0, outcome="prevented", reference=ID)
    first, _ = ended.err.splitlines()
    assert str(layers.note) in first
    assert "remove it" in first or "fix it" in first or "UTF-8" in first


@pytest.mark.parametrize(
    "reference", ["not a reference!!", "a@sha256:", "http://x/y", "r:1\\u0000", "-rm", "../..", "a b"]
)
def test_a_reference_that_is_none(
    build: Build, layers: Layers, engine: servers.Engine, tmp_path: pathlib.Path, reference: str
) -> None:
    """The phases themselves take it here: no build that they let through fails for it."""
    for name in ("restorer", "exporter"):
        build.phase(name)
    for before, command in ((reference, ("restorer",)), (f"{reference}@sha256:{ID}", ("exporter", "-daemon", "app"))):
        layers.write(before, reference)
        content = layers.toml.read_bytes()
        ended = build.run(tmp_path / command[0], *command[1:], options=("--daemon",), DOCKER_HOST=engine.url)
        ended.expect(code=0, outcome="not-in-daemon")
        assert reference.partition("\\u")[0] in ended.err
        assert layers.toml.read_bytes() == content
        ended = build.run(tmp_path / command[0], *command[1:], options=("--daemon", "--strict"), DOCKER_HOST=engine.url)
        assert (ended.code, layers.toml.read_bytes()) == (81, content)


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_an_analyzed_toml_that_is_no_file(build: Build, layers: Layers, phase: pathlib.Path, kind: str) -> None:
    layers.group.write_text(GROUP + EXTENSION)
    target = layers.path.parent / "target"
    target.write_text(analyzed_toml("r:1", "r:1"))
    if kind == "link":
        layers.toml.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(layers.toml)
    else:
        layers.toml.mkdir()
    ended = build.run(phase / "restorer", options=("--daemon",))
    ended.expect(code=23, outcome="passed-through")
    assert str(layers.toml) in ended.err
    assert target.read_text() == analyzed_toml("r:1", "r:1")


def test_an_analyzer_whose_layers_directory_is_not_there_has_a_debug_line(
    build: Build, tmp_path: pathlib.Path, phase: pathlib.Path
) -> None:
    gone = str(tmp_path / "gone")
    build.run(phase / "analyzer", "-daemon", "app", CNB_LAYERS_DIR=gone).expect(
        code=23, err="", outcome="passed-through"
    )
    ended = build.run(phase / "analyzer", "-daemon", "app", CNB_LAYERS_DIR=gone, CNB_LOG_LEVEL="debug")
    assert f"{gone}/analyzed-shim.toml can't be written" in ended.err


def test_a_note_s_place_that_is_taken_by_a_directory(build: Build, layers: Layers, phase: pathlib.Path) -> None:
    layers.note.mkdir()
    build.run(phase / "analyzer", "-daemon", "app").expect(code=23, err="")
    assert layers.stray() == set()


@needs_root
def test_a_bind_mounted_file_keeps_its_inode(known: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside.toml"
    outside.write_bytes(layers.toml.read_bytes())
    outside.chmod(0o640)
    os.chown(outside, 1000, 1000)
    inode = outside.stat().st_ino
    ended = in_mount_namespace(
        f"mount --bind {outside} {layers.toml}", *SHIM, "run", "--", str(known.lifecycle / "restorer"), build=known
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.endswith(" [prevented]\n")
    assert outside.read_text() == analyzed_toml(ID, "r:1")
    about = outside.stat()
    assert (about.st_ino, about.st_mode & 0o777, about.st_uid) == (inode, 0o640, 1000)
    assert layers.stray() == set()


@needs_root
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 81)])
def test_a_read_only_layers_directory(
    known: Build, layers: Layers, tmp_path: pathlib.Path, strict: str, code: int
) -> None:
    before = layers.toml.read_bytes()
    phase = known.phase()
    ended = in_mount_namespace(
        f"mount --bind {layers.path} {layers.path}; mount -o remount,ro,bind {layers.path}",
        *(*SHIM, "run", "--", str(phase)),
        build=known,
        ANALYZED_SHIM_STRICT=strict,
    )
    assert ended.returncode == code, ended.stderr
    assert f"{layers.toml} can't be written" in ended.stderr
    assert ID in ended.stderr
    assert "Traceback" not in ended.stderr
    assert layers.toml.read_bytes() == before


@needs_root
@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 81)])
def test_a_full_disk(known: Build, layers: Layers, tmp_path: pathlib.Path, room: bool, strict: str, code: int) -> None:
    """On a tmpfs of a few pages that a restorer filled up; what the file's last page has room for is written."""
    said = tmp_path / "said"
    phase = known.phase(does=f"cat /dev/zero > {layers.path}/fill 2>{said}", exits=0)
    if not room:
        short = 4096 - 5 - layers.toml.stat().st_size
        layers.toml.write_text(f"#{'x' * (short - 2)}\n{layers.toml.read_text()}")
    content = layers.toml.read_text()
    ended = in_mount_namespace(
        f"cp -a {layers.path} {tmp_path}/kept; mount -t tmpfs -o size=64k none {layers.path};"
        f"cp {tmp_path}/kept/* {layers.path}/",
        *("sh", "-c", '"$@"; code=$?; cat "$CNB_LAYERS_DIR/analyzed.toml"; exit $code', "sh"),
        *(*SHIM, "run", "--", str(phase)),
        build=known,
        ANALYZED_SHIM_STRICT=strict,
    )
    assert "No space left" in said.read_text()
    assert "Traceback" not in ended.stderr
    if room:
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == content.replace('reference = "r:1"', f'reference = "{ID}"')
    else:
        assert ended.returncode == code, ended.stderr
        assert f"{layers.toml} can't be written: No space left" in ended.stderr
        assert ended.stdout == content


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o444], ids=["file writable", "file not writable"])
@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 81)])
def test_a_directory_that_is_not_writable(
    known: Build, layers: Layers, tmp_path: pathlib.Path, mode: int, strict: str, code: int
) -> None:
    """For the user that the restorer drops to: the file itself is written where that may be."""
    phase = known.phase()
    for path in (layers.toml, layers.group, layers.path):
        os.chown(path, 1000, 1000)
    layers.toml.chmod(mode)
    layers.path.chmod(0o555)
    before = layers.toml.read_text()
    for parent in layers.path.parents[:3]:
        parent.chmod(0o755)
    ended = known.run(phase, "-uid", "1000", "-gid", "1000", ANALYZED_SHIM_STRICT=strict)
    after = layers.toml.read_text()
    if mode == 0o644:
        ended.expect(code=0, outcome="prevented")
        assert after == before.replace('reference = "r:1"', f'reference = "{ID}"')
    else:
        assert (ended.code, ended.outcome, after) == (code, "unrepaired", before), ended.err
        assert f"{layers.toml} can't be written" in ended.err
    about = layers.toml.stat()
    assert (about.st_mode & 0o777, about.st_uid, about.st_gid) == (mode, 1000, 1000)
    assert layers.stray() == set()


@needs_root
@pytest.mark.parametrize("option", ["", "--no-daemon"])
def test_without_proc_the_note_stands_in_for_the_memory_file(
    known: Build, layers: Layers, tmp_path: pathlib.Path, option: str
) -> None:
    """For a binary, too; `echo` is one, and says what it is called with."""
    if option:
        layers.write(ID)  # no switch, so it is execed
    phase = shutil.copy("/bin/echo", tmp_path / "restorer")
    ended = in_mount_namespace(
        "mount -t tmpfs none /proc",
        *(*SHIM, "run", *([option] if option else []), "--", str(phase), "-skip-layers"),
        build=known,
    )
    assert (ended.returncode, ended.stdout) == (0, f"-group={layers.note} -skip-layers\n"), ended.stderr
    assert layers.note.read_text().endswith(f"{GROUP}\n")
    assert layers.note.stat().st_mode & 0o777 == 0o644


@needs_root
def test_where_no_copy_can_be_had_either_the_restorer_runs_as_called(
    known: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    known.unmeasured()
    phase = known.phase(does='echo "called with $*"', exits=5)
    ended = in_mount_namespace(
        f"mount -t tmpfs none /proc; for d in /tmp /var/tmp /usr/tmp {os.getcwd()}; do [ -d $d ] || continue;"
        "mount --rbind $d $d; mount -o remount,ro,bind $d; done",
        *(*SHIM, "run", "--", str(phase), "-skip-layers"),
        build=known,
    )
    assert (ended.returncode, ended.stdout) == (5, "called with -skip-layers\n"), ended.stderr
    assert "the registry lookup can't be prevented" in ended.stderr


def test_a_restorer_that_leaves_rubbish_is_told_of(known: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    phase = known.phase(does=f"echo '[' > {layers.toml}")
    known.run(phase).expect(code=0, outcome="unrepaired")
    assert layers.toml.read_text() == "[\n"
    phase = known.phase(does=f"rm {layers.toml}", exits=3)
    layers.write("r:1", "r:1")
    known.run(phase, options=("--strict",)).expect(code=3, outcome="unrepaired")


def test_a_closed_stderr_or_stdout_changes_nothing(known: Build, layers: Layers) -> None:
    for redirect in ("2>&-", ">&-", "2>&- >&- <&-", "2>/dev/full"):
        layers.write("r:1", "r:1")
        command = f'"$@" {redirect}'
        full = ["sh", "-c", command, "sh", *SHIM, "run", "--", str(known.lifecycle / "restorer")]
        assert subprocess.run(full, env=known.env, check=False, timeout=60).returncode == 0, redirect
        assert layers.reference == ID, redirect


def test_a_pipe_that_breaks_under_stderr_changes_nothing(known: Build, layers: Layers) -> None:
    command = ["sh", "-c", '{ "$@"; echo $? > "$CNB_LAYERS_DIR/../code"; } 2>&1 | true', "sh"]
    command += [*SHIM, "run", "--", str(known.lifecycle / "restorer")]
    subprocess.run(command, env=known.env, check=True, timeout=60)
    assert (layers.path.parent / "code").read_text() == "0\n"
    assert layers.reference == ID


@pytest.mark.parametrize("package", ["http", "tomlkit"])
def test_a_fault_of_the_shim_itself_fails_no_build(
    known: Build, layers: Layers, tmp_path: pathlib.Path, package: str
) -> None:
    """An installation that is broken: the package is there and can't be imported."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{package}.py").write_text("raise RuntimeError('broken')\n")
    phase = known.phase(does="echo ran")

    def as_a_person_writes_it() -> None:  # what the lifecycle writes is edited without tomlkit
        layers.toml.write_text(layers.toml.read_text().replace('"', "'"))

    as_a_person_writes_it()
    ended = known.run(phase, PYTHONPATH=f"{tmp_path}/broken:{os.getcwd()}")
    ended.expect(code=0, out="ran\n", reference="r:1")
    assert "broken" in ended.err
    assert ended.err.count("\n") == 1
    layers.write(f"r@sha256:{ID}", "r:1")
    as_a_person_writes_it()
    phase = known.phase("exporter", does="echo ran", exits=9)
    ended = known.run(phase, "-daemon", "app", PYTHONPATH=f"{tmp_path}/broken:{os.getcwd()}")
    ended.expect(code=9, out="ran\n")
    assert "broken" in ended.err


# What people read.


@pytest.mark.parametrize("command", ["check", "check --help", "--version"])
def test_output_that_can_t_be_written_is_a_line_and_a_reader_that_left_is_none(build: Build, command: str) -> None:
    words = [*SHIM, *command.split()]
    full = build.call("sh", "-c", 'exec "$@" > /dev/full', "sh", *words)
    full.expect(code=1, err="analyzed-shim: ERROR: the output can't be written: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.run(words, env=build.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (left.returncode, left.stderr) == (1, b"")
    build.call("sh", "-c", 'exec "$@" >&-', "sh", *words).expect(code=0, out="", err="")


def test_a_working_directory_that_was_removed_is_named(build: Build, tmp_path: pathlib.Path) -> None:
    script = f'mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec "$@"'
    ended = build.call("sh", "-c", script, "sh", *SHIM, "bundle", "made", PYTHONPATH=os.getcwd())
    ended.expect(code=1, err="analyzed-shim: ERROR: the working directory: No such file or directory\n")
