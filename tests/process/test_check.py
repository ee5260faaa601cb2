"""`check` says only what it read, foresees by the decisions of `run`, and changes nothing."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests.support.build import SHIM, Build, Ran
from tests.support.layers import Layers
from tests.support.parts import Parts


def check(build: Build, *options: str, **environ: str) -> Ran:
    return build.call(*SHIM, "check", *options, **environ)


def test_what_check_foresees_is_what_run_does(build: Build, layers: Layers, parts: Parts) -> None:
    """Each row of the restorer: check beforehand, then run; check changed nothing and started nothing."""
    gone = "r.example/gone:1"
    cases: list[tuple[str, str | None, tuple[str, ...], dict[str, str], str]] = [
        (parts.name, parts.name, ("--daemon",), parts.at, "prevented"),
        (parts.name, parts.name, ("--daemon",), {}, "kept-name"),
        (parts.name, parts.name, ("--no-daemon",), parts.at, "not-a-daemon-build"),
        (gone, gone, ("--daemon",), parts.at, "not-in-daemon"),
        (parts.name, None, (), parts.at, "no-lookup"),
        (parts.id, None, ("--daemon",), parts.at, "no-lookup"),
    ]
    for reference, image, options, environ, outcome in cases:
        layers.write(reference, image)
        before, files = layers.identity(), sorted(os.listdir(layers.path))
        ended = check(build, *options, **environ)
        ended.expect(code=0, err="")
        assert f"[{outcome}]" in ended.out
        assert (layers.identity(), sorted(os.listdir(layers.path))) == (before, files)
        build.run("restorer", options=options, **environ).expect(outcome=outcome)
        layers.note.unlink(missing_ok=True)


def test_an_unknown_build_is_said_to_be_that(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = check(build, **parts.at)
    assert "build type: unknown\n" in ended.out
    assert f"daemon: has {parts.name} ({parts.id})\n" in ended.out
    assert "to do: wrap the analyzer too, or pass --daemon or --no-daemon\n" in ended.out


def test_after_a_failed_export_it_says_what_the_daemon_lacks_and_what_to_do(
    build: Build, layers: Layers, parts: Parts
) -> None:
    layers.write(parts.digest, parts.name)
    ended = check(build, **parts.at)
    assert f"at the export: the daemon does not have {parts.digest}; " in ended.out
    assert "to do: wrap the exporter, or run analyzed-shim fix --daemon before it\n" in ended.out


@pytest.mark.parametrize("missing", ["directory", "analyzed.toml", "group.toml"])
def test_what_was_not_found_is_named_and_nothing_is_said_of_it(build: Build, layers: Layers, missing: str) -> None:
    layers.write("r:1", "r:1")
    place = layers.path / "nowhere" if missing == "directory" else layers.path
    if missing != "directory":
        (layers.path / missing).unlink()
    ended = check(build, "--layers", str(place))
    ended.expect(code=64, out="")
    assert str(place if missing == "directory" else place / missing) in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("api", "code", "words"),
    [
        ("", 0, "not set; 0.10 and 0.11 behave the same"),
        ("banana", 64, "'banana'"),
        ("0.x", 64, "'0.x'"),
        ("0.12", 0, "nothing to do at this Platform API"),
        ("v0.11", 0, "[kept-name]"),
    ],
)
def test_the_platform_api(build: Build, layers: Layers, api: str, code: int, words: str) -> None:
    layers.write("r:1", "r:1")
    ended = check(build, "--daemon", CNB_PLATFORM_API=api)
    assert (ended.code, words in ended.out + ended.err) == (code, True), ended.out + ended.err


@pytest.mark.parametrize("wrapped", [(), ("restorer",), ("analyzer", "restorer", "exporter")])
def test_the_drop_ins(build: Build, layers: Layers, tmp_path: pathlib.Path, wrapped: tuple[str, ...]) -> None:
    layers.write("r:1", "r:1", extensions=False)
    for phase in wrapped:
        (tmp_path / f"{phase}.real").touch()
    out = check(build, "--lifecycle", str(tmp_path)).out
    said = {0: "none", 1: "restorer (not analyzer, exporter: wrap all three)", 3: "analyzer, restorer, exporter"}
    assert f"drop-ins: {said[len(wrapped)]}\n" in out
    assert "image extension: no\n" in out
    assert "/nowhere not found" in check(build, "--lifecycle", "/nowhere").out


@pytest.mark.parametrize("text", ["a\x1b[31m", "a\u202e", "::set-output name=x::y\r\n"])
def test_what_a_file_says_is_shown_without_control_characters(build: Build, layers: Layers, text: str) -> None:
    layers.write(text.encode("unicode_escape").decode().replace("\\x", "\\u00"), "r:1")
    out = check(build, "--daemon").out
    assert not {letter for letter in out if not letter.isprintable() and letter != "\n"}
    assert not any(line.startswith("::") for line in out.splitlines())
