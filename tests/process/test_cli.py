"""The command line for people: help, wrong use, output that nobody reads, the CI step and `check`."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess

import pytest

from shim import __version__
from tests.support.build import SHIM, Build, Ran
from tests.support.layers import Layers, analyzed_toml
from tests.support.parts import Parts

COMMANDS = ("run", "snapshot", "fix", "check", "install", "uninstall", "builder", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_of_80_columns_with_an_example(build: Build, command: str) -> None:
    build.unmeasured()
    for option, encoding in (("-h", "utf-8"), ("--help", "ascii")):
        ended = build.call(*SHIM, command, option, COLUMNS="80", PYTHONIOENCODING=encoding).expect(code=0, err="")
        assert f"Example: analyzed-shim {command}" in ended.out
        assert max(map(len, ended.out.splitlines())) <= 80


def test_without_a_command_there_is_help_and_a_version(build: Build) -> None:
    out = build.call(*SHIM).expect(code=0, err="").out
    assert [command for command in COMMANDS if f"  {command} " not in out] == []
    build.call(*SHIM, "--version").expect(code=0, out=f"analyzed-shim {__version__}\n")


WRONG = ["fox", "fix --bogus", "fix --timeout 5s", "fix --timeout", "install", "builder x", "check --layers"]
WRONG += ["--daemon run -- x", "snapshot more", "check --platform-api 0.x"]


@pytest.mark.parametrize("words", [*WRONG, "fix"])
def test_wrong_use_is_64_and_one_line(build: Build, words: str) -> None:
    build.layers.write("r:1", "r:1")
    environ = {"ANALYZED_SHIM_DAEMON": "maybe"} if words == "fix" else {}
    ended = build.call(*SHIM, *words.split(), **environ).expect(code=64, out="")
    assert ended.err.startswith("analyzed-shim: ") and ended.err.count("\n") == 1
    assert not environ or "ANALYZED_SHIM_DAEMON is 'maybe'" in ended.err


@pytest.mark.parametrize("words", [["check"], ["check", "--help"], ["--version"]])
def test_output_that_can_t_be_written_is_a_line_and_a_reader_that_left_is_none(build: Build, words: list[str]) -> None:
    build.layers.write("r:1", "r:1")
    with pathlib.Path("/dev/full").open("w") as full:
        ended = subprocess.run([*SHIM, *words], env=build.env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert "No space left" in ended.stderr
    process = subprocess.Popen([*SHIM, *words], env=build.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""


GONE = ["check --layers LAYERS/nowhere|nowhere", "check|group.toml", "check|analyzed.toml", "snapshot|analyzed.toml"]
NO_TOML = ["fix|analyzed.toml", "fix --daemon|analyzed-shim.snapshot.toml"]


@pytest.mark.parametrize("case", GONE + NO_TOML)
def test_a_file_that_is_none_is_named_and_nothing_is_said_or_changed(build: Build, case: str) -> None:
    build.layers.write("r@sha256:" + "5" * 64, "r:1")
    words, name = case.split("|")
    path = build.layers.path / name
    if case in GONE:
        path.unlink(missing_ok=True)
    else:
        path.write_text("[")
    before = build.layers.toml.exists() and build.layers.identity()
    ended = build.call(*SHIM, *words.replace("LAYERS", str(build.layers.path)).split()).expect(code=64, out="")
    assert ended.err.startswith(f"analyzed-shim: {path} ") and ended.err.count("\n") == 1
    assert (build.layers.toml.exists() and build.layers.identity()) == before


# The CI step.


def fix(build: Build, *options: str, **environ: str) -> Ran:
    return build.call(*SHIM, "fix", *options, **environ)


def test_a_known_daemon_build_gets_the_id_and_the_second_time_nothing(build: Build, parts: Parts) -> None:
    layers = build.layers
    layers.write(parts.digest, parts.name)
    layers.toml.chmod(0o640)
    ended = fix(build, "--daemon", **parts.at).expect(code=0, outcome="reverted", reference=parts.id, exit_code=0)
    assert parts.digest in ended.out
    assert stat.S_IMODE(layers.toml.stat().st_mode) == 0o640
    before = layers.identity()
    fix(build, "--daemon", **parts.at).expect(code=0, outcome="resolves", err="")
    assert layers.identity() == before
    assert {question.split()[0] for question in parts.engine.asked} == {"GET"}


NOTES = {"": ("reverted", "filled", "name"), "daemon = true\n": ("reverted", "filled", "id")}
NOTES |= {"daemon = false\n": ("not-a-daemon-build", "not-a-daemon-build", "")}


@pytest.mark.parametrize("note", NOTES)
def test_the_note_says_what_becomes_of_a_digest_and_an_empty_reference(build: Build, parts: Parts, note: str) -> None:
    build.layers.note.write_text(note)
    *outcomes, right = NOTES[note]
    for reference, outcome in zip((parts.digest, ""), outcomes, strict=True):
        build.layers.write(reference, parts.name)
        ended = fix(build, **parts.at).expect(code=0, outcome=outcome, known_by="note" if note else None)
        assert build.layers.reference == {"name": parts.name, "id": parts.id}.get(right, reference), ended.out
    assert right or parts.engine.asked == []


def test_the_snapshot_tells_what_was_changed_and_is_removed(build: Build, layers: Layers, parts: Parts) -> None:
    """A reference that was a digest before is no rewrite; without the snapshot nobody could say."""
    layers.write(parts.digest, parts.name)
    build.call(*SHIM, "snapshot").expect(code=0, err="")
    kept = layers.path / "analyzed-shim.snapshot.toml"
    assert kept.read_text() == layers.toml.read_text()
    fix(build, **parts.at).expect(code=0, outcome="unchanged", reference=parts.digest)
    assert not kept.exists()
    fix(build, **parts.at).expect(code=0, outcome="reverted", reference=parts.name)
    layers.write("r:1", "r:1")
    build.call(*SHIM, "snapshot").expect(code=0)
    layers.write(parts.digest, parts.name)  # of another build than the snapshot
    fix(build, **parts.at).expect(code=0, outcome="reverted", reference=parts.name)


def test_a_dry_run_shows_the_difference_and_writes_nothing(build: Build, layers: Layers, parts: Parts) -> None:
    """In any encoding."""
    layers.write(parts.digest, parts.name, extra='  x = "\u00e9"\n')
    build.call(*SHIM, "snapshot")
    before, files = layers.identity(), sorted(os.listdir(layers.path))
    ended = fix(build, "--daemon", "--dry-run", PYTHONIOENCODING="ascii", **parts.at).expect(code=0, err="")
    assert f'-  reference = "{parts.digest}"\n+  reference = "{parts.id}"\n' in ended.out
    assert '   x = "\\xe9"\n' in ended.out and "dry run" in ended.out
    assert (layers.identity(), sorted(os.listdir(layers.path))) == (before, files)


@pytest.mark.parametrize("api", ["", "0.12"])
def test_at_another_platform_api_there_is_nothing_to_do(build: Build, parts: Parts, api: str) -> None:
    build.layers.write(parts.digest, parts.name)
    fix(build, "--daemon", CNB_PLATFORM_API=api, **parts.at).expect(outcome="passed-through", reference=parts.digest)
    fix(build, "--daemon", "--platform-api", "0.10", CNB_PLATFORM_API=api, **parts.at).expect(reference=parts.id)
    build.layers.write(parts.digest)  # no run image was switched
    fix(build, "--daemon", "--platform-api", "0.10", **parts.at).expect(outcome="passed-through")


def test_what_can_not_be_repaired_is_said_and_81_under_strict(build: Build, layers: Layers, parts: Parts) -> None:
    """A daemon without the image, and a file that can't be edited."""
    head, _, _ = analyzed_toml(parts.digest, parts.name).partition("[run-image]")
    inline = f'run-image = {{reference = "{parts.digest}", image = "{parts.name}"}}\n{head}'
    for text, outcome, words in (
        (analyzed_toml("gone@sha256:" + "5" * 64, "gone:1"), "not-in-daemon", "docker pull gone:1"),
        (inline, "unrepaired", str(layers.toml)),
    ):
        layers.toml.write_text(text)
        for code, options in ((0, ()), (81, ("--strict",))):
            ended = fix(build, "--daemon", *options, **parts.at).expect(code=code, outcome=outcome, exit_code=code)
            assert words in (ended.err if code else ended.out)
            assert layers.toml.read_text() == text


# `check`, which says only what it read, and changes nothing.


def check(build: Build, *options: str, **environ: str) -> str:
    return build.call(*SHIM, "check", *options, **environ).expect(code=0, err="").out


def test_what_check_foresees_is_what_run_does(build: Build, layers: Layers, parts: Parts) -> None:
    """Each row of the restorer: check beforehand, then run; check changed nothing and started nothing."""
    gone = "r.example/gone:1"
    cases: list[tuple[str, str | None, tuple[str, ...], dict[str, str], str]] = [
        (parts.name, parts.name, ("--daemon",), parts.at, "prevented"),
        (parts.name, parts.name, ("--daemon",), {}, "kept-name"),
        (parts.name, parts.name, ("--no-daemon",), parts.at, "not-a-daemon-build"),
        (gone, gone, ("--daemon",), parts.at, "not-in-daemon"),
        (parts.name, None, (), parts.at, "no-lookup"),
    ]
    for reference, image, options, environ, outcome in cases:
        layers.write(reference, image)
        before, files = layers.identity(), sorted(os.listdir(layers.path))
        assert f"[{outcome}]" in check(build, *options, **environ)
        assert (layers.identity(), sorted(os.listdir(layers.path))) == (before, files)
        build.run("restorer", options=options, **environ).expect(outcome=outcome)
        layers.note.unlink(missing_ok=True)


def test_check_says_what_is_unknown_what_the_daemon_lacks_and_what_to_do(build: Build, parts: Parts) -> None:
    build.layers.write(parts.name, parts.name)
    out = check(build, **parts.at)
    assert "build type: unknown\n" in out and f"daemon: has {parts.name} ({parts.id})\n" in out
    assert "to do: wrap the analyzer too, or pass --daemon or --no-daemon\n" in out
    build.layers.write(parts.digest, parts.name)  # after a failed export
    out = check(build, **parts.at)
    assert f"at the export: the daemon does not have {parts.digest}; " in out
    assert "to do: wrap the exporter, or run analyzed-shim fix --daemon before it\n" in out
    for image, extra, words in (
        (None, "", "[no-lookup]\n"),
        (parts.name, "  [run-image.target]\n    os = 'linux'\n", "nothing to do, as the restorer looks nothing up\n"),
        (parts.digest, "", "to do: wrap the analyzer too, or pass --daemon or --no-daemon\n"),
    ):
        build.layers.write(parts.digest, image, extra=extra)
        assert check(build, **parts.at).endswith(words)


APIS = {"": "not set; 0.10 and 0.11 behave the same", "0.12": "nothing to do at this Platform API", "v0.11": "[kept-na"}


@pytest.mark.parametrize("api", APIS)
def test_the_platform_api(build: Build, api: str) -> None:
    build.layers.write("r:1", "r:1")
    out = check(build, "--daemon", CNB_PLATFORM_API=api)
    assert (APIS[api] in out, "[kept-name]" in out) == (True, api != "0.12")


def test_the_drop_ins(build: Build) -> None:
    build.layers.write("r:1", "r:1", extensions=False)
    for phase, said in (
        ("restorer", "restorer (not analyzer, exporter: wrap all three)"),
        ("analyzer", "analyzer, restorer (not exporter: wrap all three)"),
        ("exporter", "analyzer, restorer, exporter"),
    ):
        (build.directory / f"{phase}.real").touch()
        out = check(build, "--lifecycle", str(build.directory))
        assert f"drop-ins: {said}\n" in out and "nothing to do, as the restorer looks nothing up" in out
    assert "drop-ins: none\n" in check(build, "--lifecycle", "/")
    assert "drop-ins: /\\xe9 not found" in check(build, "--lifecycle", "/\u00e9", PYTHONIOENCODING="ascii")


def test_what_a_file_says_is_shown_without_control_characters(build: Build) -> None:
    build.layers.write(r"a\u001b[31m\u202e\r\n::set-output name=x::y\r\n", "r:1")
    out = check(build, "--daemon")
    assert not {letter for letter in out if not letter.isprintable() and letter != "\n"}
    assert not any(line.startswith("::") for line in out.splitlines())
