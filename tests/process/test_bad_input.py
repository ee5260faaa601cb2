"""Bad input: the build is no worse than without the shim, one line names the file and the way out, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.layers import ID, Layers, analyzed_toml
from tests.support.needs import needs_root

DIGEST = f"r@sha256:{'0' * 64}"
RUN_IMAGE = '# group-extensions\n[run-image]\nreference = "r:1"\nimage = "r:1"\n'
FILES = {
    "malformed": "# group-extensions\n[run-image\nimage = ",
    "too deep": f"{RUN_IMAGE}a = {'[' * 100_000}",
    "too large": f"{RUN_IMAGE}{'#' * (16 << 20)}",
    "escapes": f"{RUN_IMAGE}\x1b[2J\r::set-output name=x::y\n",
    "missing": "",
}


@pytest.fixture
def at(unknown: Build) -> Build:
    """The same, unmeasured: other tests go the same ways with less to read."""
    unknown.unmeasured()
    return unknown


def run_as_called(build: Build, phase: str, *words: str, outcome: str = "passed-through") -> None:
    """Wrap a phase, which is to be run as it was called, and see that one line has the words."""
    path = build.phase(phase, does='echo "called with $* $CNB_GROUP_PATH"', exits=23)
    arguments = ("-daemon", "app") if phase != "restorer" else ("-skip-layers",)
    began = time.monotonic()
    ended = build.run(path, *arguments, options=("--daemon", "--strict"))
    ended.expect(code=23, err="", outcome=outcome)
    line, called, rest = ended.out.split("\n")
    assert (called, rest) == (f"called with {' '.join(arguments)} ", "")
    assert line.isprintable() and line.endswith(f" [{outcome}]") and all(word in line for word in words), line
    assert len(line) < 600 and time.monotonic() - began < 10


@pytest.mark.parametrize("where", ["restorer group.toml", "restorer analyzed.toml", "exporter analyzed.toml"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_none(at: Build, where: str, kind: str) -> None:
    """What isn't a plain file is test_rights's."""
    phase, name = where.split()
    path = at.layers.path / name
    path.write_bytes(FILES[kind].encode())
    if kind == "missing":
        path.unlink()
    run_as_called(at, phase, str(path))
    assert kind == "missing" or path.read_bytes().decode() == FILES[kind]
    assert (path.exists(), at.layers.stray()) == (kind != "missing", set())


def test_a_note_that_can_not_be_left_says_what_the_restorer_won_t_know(at: Build) -> None:
    at.env["CNB_LAYERS_DIR"] = path = str(at.directory / "gone")
    run_as_called(at, "analyzer", f"{path}/analyzed-shim.toml can't be written", "--daemon", outcome="daemon-unknown")


NAMES = ["../../containers/x", f"r\\r::set-output name=a::b\\u202e\\u001b[2J\\nERROR: {'a' * 5000}"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:30])
def test_no_reference_is_asked_of_nobody(at: Build, layers: Layers, engine: servers.Engine, name: str) -> None:
    """It stands in a file that the build's user can write, and would become another question, or a line of its own."""
    for reference, phase in ((name, "restorer"), (name, "exporter"), (DIGEST, "restorer")):
        layers.write(reference, name)
        content = layers.toml.read_bytes()
        ended = at.run(at.phase(phase), "-daemon", options=("--daemon",)).expect(code=0, err="")
        assert (ended.out.count("\n"), ended.out[:-1].isprintable(), len(ended.out) < 2100) == (1, True, True)
        assert all(str(value).isprintable() and len(str(value)) <= 2000 for value in ended.report.values())
        assert layers.toml.read_bytes() == content
    assert {asked for asked in engine.asked if "sha256" not in asked} <= {"GET /version"}


# Where it can't be written.


@needs_root
@pytest.mark.parametrize("how", ["read-only", "full"])
@pytest.mark.parametrize("phase", ["restorer", "exporter"])
def test_a_directory_that_takes_nothing(at: Build, layers: Layers, phase: str, how: str) -> None:
    """The note can't be written, and so the lookup isn't prevented; what a file has room for is written in place."""
    layers.write("r:1" if phase == "restorer" else DIGEST, "r:1")
    content, here = layers.toml.read_text(), layers.path
    script = f"mount --bind {here} {here}; mount -o remount,ro,bind {here}"
    if how == "full":
        script = f"cp -a {here} {here}2; mount -t tmpfs -o size=64k none {here}; cp {here}2/* {here}/; "
        script += f"cat /dev/zero > {here}/fill 2>/dev/null || :"
    path = at.phase(phase, does=f"cat {layers.toml}", exits=5)
    inside = ("unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh")
    ended = at.call(*inside, *SHIM, "run", "--daemon", "--", str(path), "-daemon", "app").expect(code=5, err="")
    line, _, rest = ended.out.partition("\n")
    assert rest == (content.replace(DIGEST, ID) if how == "full" else content)
    reason = "No space left on device" if how == "full" else "Read-only file system"
    file = layers.note if phase == "restorer" else layers.toml
    repaired = how == "full" and phase == "exporter"
    assert ("[reverted]" if repaired else f"{file} can't be written: {reason}") in line


def test_a_report_that_can_not_be_written_is_a_line(at: Build) -> None:
    ended = at.run(at.phase(), options=("--daemon", "--report", "/no/such/dir/r.json"))
    ended.expect(code=0, reference=ID, err="")
    assert "/no/such/dir/r.json can't be written" in ended.out and ended.out.count("\n") == 2


@pytest.mark.parametrize("option", ["--no-strict", "--daemon"])
def test_shims_side_by_side_on_one_layers_directory(at: Build, layers: Layers, option: str) -> None:
    (layers.path.parent / "rewritten").write_text(analyzed_toml(DIGEST, "r:1"))
    rewrite = f"dd if={layers.path.parent}/rewritten of={layers.toml} conv=notrunc bs=65536 2>/dev/null"
    command = [*SHIM, "run", option, "--", str(at.phase(does="" if option == "--daemon" else rewrite))]
    for _ in range(3):
        layers.write("r:1", "r:1")
        running = [subprocess.Popen(command, env=at.env, stdout=subprocess.PIPE) for _ in "1234"]
        for one in running:
            out, _ = one.communicate(timeout=60)
            assert (one.returncode, b"Traceback" in out, b"internal" in out) == (0, False, False), out
        wanted = [ID] if option == "--daemon" else ["r:1", DIGEST]
        assert layers.toml.read_text() in [analyzed_toml(reference, "r:1") for reference in wanted]
        assert layers.stray() == set()


# Its settings.


WRONG = {
    "--bogus=s3cret -- PHASE": "unknown option --bogus (analyzed-shim run --help lists the options)",
    "--daemon --docker-host": "--docker-host",
    "--": "no phase to run (analyzed-shim run [OPTIONS] -- [LAUNCHER...] PHASE [ARG]...)",
    "-- PHASE": "ANALYZED_SHIM_STRICT is '\\x1b[2J' (it takes true or false)",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use_is_64_and_one_line(at: Build, words: str) -> None:
    command = [*SHIM, "run", *words.replace("PHASE", str(at.phase(does="echo ran"))).split()]
    environ = {"ANALYZED_SHIM_STRICT": "\x1b[2J"} if words == "-- PHASE" else {}
    ended = at.call(*command, **environ).expect(code=64, err="")
    assert WRONG[words] in ended.out and "s3cret" not in ended.out
    assert (ended.out.count("\n"), ended.out[:-1].isprintable()) == (1, True)
    for level in ("info", "debug") if environ else ():  # a bad variable fails no build with nothing to do
        at.call(*command, **environ, CNB_PLATFORM_API="0.12", CNB_LOG_LEVEL=level).expect(code=0)


SECRETS = {
    'CNB_REGISTRY_AUTH={"https://r/v1":"Basic s3cret/+x=="}|PHASE': 127,
    "env|DOCKER_HOST=tcp://u:s3cret@127.0.0.1:1|CNB_REGISTRY_AUTH=s3cret/x|PHASE|-x|s3cret": 0,
    "env|-S|TOKEN=s3cret PHASE": 0,
}


@pytest.mark.parametrize(("words", "code"), SECRETS.items())
def test_no_line_and_no_report_has_a_launcher_s_words(at: Build, words: str, code: int) -> None:
    command = words.replace("PHASE", str(at.phase())).split("|")
    ended = at.call(*SHIM, "run", "--daemon", "--", *command, CNB_LOG_LEVEL="debug").expect(code=code)
    assert "s3cret" not in ended.out + json.dumps(ended.report)
    assert ended.out[:-1].replace("\n", "").isprintable()


def test_a_path_that_is_no_utf_8_can_be_said(build: Build) -> None:
    odd = build.directory / "odd\udcff"
    odd.mkdir()
    (odd / "group.toml").write_text("group-extensions = [\n")
    ended = build.run(build.phase(exits=7), "-layers", str(odd)).expect(code=7, outcome="passed-through")
    assert "\\udcff/group.toml" in ended.out


# Its own surroundings.


@pytest.mark.parametrize("redirect", [">/dev/full 2>/dev/full", "| true"])
def test_a_stream_that_is_full_or_broken_changes_nothing(known: Build, layers: Layers, redirect: str) -> None:
    phase = known.phase(exits=7)
    for option, outcome in (("--daemon", ID), ("--no-daemon", "r:1")):
        layers.write("r:1", "r:1")
        command = f'{{ "$@"; echo $? > {layers.path.parent}/code; }} {redirect}'
        full = ["sh", "-c", command, "sh", *SHIM, "run", option, "--", str(phase)]
        subprocess.run(full, env={**known.env, "CNB_LOG_LEVEL": "debug"}, check=True, timeout=60)
        assert ((layers.path.parent / "code").read_text(), layers.reference) == ("7\n", outcome)


@pytest.mark.parametrize("package", ["docker", "tomlkit", "tomllib", "json"])
def test_a_fault_of_the_shim_itself_fails_no_build(known: Build, layers: Layers, package: str) -> None:
    """An installation that is broken: the package is there, and has nothing in it."""
    (known.directory / "broken").mkdir()
    (known.directory / "broken" / f"{package}.py").touch()
    known.unmeasured()
    for phase, word, reference in (("restorer", "-x", "r:1"), ("exporter", "-daemon", DIGEST)):
        layers.write(reference, "r:1")
        path = known.phase(phase, does='echo "ran $*"', exits=9)
        ended = known.run(path, word, PYTHONPATH=f"{known.directory}/broken:{os.getcwd()}").expect(code=9, err="")
        line, ran, rest = ended.out.split("\n")
        assert (line[:15], ran, rest) == ("analyzed-shim: ", f"ran {word}", "")
        assert layers.reference in (reference, *([ID] if package == "json" else []))
