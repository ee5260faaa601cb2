"""The CI step: the same decisions and the same edit, without running a phase."""

from __future__ import annotations

import os
import stat

import pytest

from tests.support.build import SHIM, Build, Ran
from tests.support.layers import Layers, analyzed_toml
from tests.support.parts import Parts


def fix(build: Build, *options: str, **environ: str) -> Ran:
    return build.call(*SHIM, "fix", *options, **environ)


@pytest.fixture
def rewritten(layers: Layers, parts: Parts) -> Layers:
    """What the bare restorer leaves of a multi-arch run image."""
    layers.write(parts.digest, parts.name)
    return layers


def test_a_known_daemon_build_gets_the_id_and_the_second_time_nothing(
    build: Build, rewritten: Layers, parts: Parts
) -> None:
    rewritten.toml.chmod(0o640)
    ended = fix(build, "--daemon", **parts.at).expect(code=0, outcome="reverted", reference=parts.id, exit_code=0)
    assert parts.digest in ended.out
    assert stat.S_IMODE(rewritten.toml.stat().st_mode) == 0o640
    before = rewritten.identity()
    fix(build, "--daemon", **parts.at).expect(code=0, outcome="resolves", err="")
    assert rewritten.identity() == before
    assert {question.split()[0] for question in parts.engine.asked} == {"GET"}


@pytest.mark.parametrize(("known_by", "daemon"), [("note", True), ("CNB_USE_DAEMON", True), ("note", False)])
def test_what_the_build_type_is_known_by(
    build: Build, rewritten: Layers, parts: Parts, known_by: str, daemon: bool
) -> None:
    if known_by == "note":
        rewritten.note.write_text(f"daemon = {str(daemon).lower()}\n")
        ended = fix(build, **parts.at)
    else:
        ended = fix(build, CNB_USE_DAEMON="true", **parts.at)
    ended.expect(code=0, known_by=known_by, reference=parts.id if daemon else parts.digest)
    assert daemon or parts.engine.asked == []


def test_an_unknown_build_gets_the_name(build: Build, rewritten: Layers, parts: Parts) -> None:
    fix(build, **parts.at).expect(code=0, outcome="reverted", build="unknown", reference=parts.name)


def test_a_digest_that_the_daemon_has_stays(build: Build, rewritten: Layers, parts: Parts) -> None:
    parts.engine.tag(parts.digest, f"sha256:{parts.id}")
    for option in ((), ("--daemon",)):
        fix(build, *option, **parts.at).expect(code=0, outcome="resolves", reference=parts.digest)


@pytest.mark.parametrize("version", ["with a snapshot", "without"])
def test_an_empty_reference_gets_the_name_or_the_id(build: Build, layers: Layers, parts: Parts, version: str) -> None:
    layers.write("", parts.name)
    if version == "with a snapshot":
        build.call(*SHIM, "snapshot")
    fix(build, **parts.at).expect(code=0, outcome="filled", reference=parts.name)
    layers.write("", parts.name)
    fix(build, "--daemon", **parts.at).expect(code=0, outcome="filled", reference=parts.id)


def test_the_snapshot_tells_what_the_restorer_changed_and_is_removed(
    build: Build, layers: Layers, parts: Parts
) -> None:
    """A reference that was a digest before is no rewrite; without the snapshot nobody could say."""
    layers.write(parts.digest, parts.name)
    build.call(*SHIM, "snapshot").expect(code=0, err="")
    kept = layers.path / "analyzed-shim.snapshot.toml"
    assert kept.read_text() == layers.toml.read_text()
    fix(build, **parts.at).expect(code=0, outcome="unchanged", reference=parts.digest)
    assert not kept.exists()
    fix(build, **parts.at).expect(code=0, outcome="reverted", reference=parts.name)


def test_a_dry_run_shows_the_difference_and_writes_nothing(build: Build, rewritten: Layers, parts: Parts) -> None:
    build.call(*SHIM, "snapshot")
    before, files = rewritten.identity(), sorted(os.listdir(rewritten.path))
    ended = fix(build, "--daemon", "--dry-run", PYTHONIOENCODING="ascii", **parts.at)
    ended.expect(code=0, err="")
    assert f'-  reference = "{parts.digest}"\n+  reference = "{parts.id}"\n' in ended.out
    assert "dry run" in ended.out
    assert (rewritten.identity(), sorted(os.listdir(rewritten.path))) == (before, files)


@pytest.mark.parametrize("api", ["", "0.9", "0.12", "banana"])
def test_at_another_platform_api_there_is_nothing_to_do(
    build: Build, rewritten: Layers, parts: Parts, api: str
) -> None:
    fix(build, "--daemon", CNB_PLATFORM_API=api, **parts.at).expect(outcome="passed-through", reference=parts.digest)
    fix(build, "--daemon", "--platform-api", "0.10", CNB_PLATFORM_API=api, **parts.at).expect(reference=parts.id)


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 81)])
def test_a_daemon_without_the_image(
    build: Build, layers: Layers, parts: Parts, options: tuple[str, ...], code: int
) -> None:
    layers.write("gone@sha256:" + "5" * 64, "gone:1")
    ended = fix(build, "--daemon", *options, **parts.at)
    ended.expect(code=code, outcome="not-in-daemon", exit_code=code)
    assert "docker pull gone:1" in ended.out + ended.err


@pytest.mark.parametrize("command", ["fix", "snapshot"])
@pytest.mark.parametrize("content", [None, b"[run-image", b"\xff"], ids=["missing", "no TOML", "no UTF-8"])
def test_a_file_that_is_none_is_named(build: Build, layers: Layers, command: str, content: bytes | None) -> None:
    if content is not None:
        layers.toml.write_bytes(content)
    ended = build.call(*SHIM, command)
    ended.expect(code=64, out="")
    assert ended.err.startswith(f"analyzed-shim: {layers.toml} ")
    assert ended.err.count("\n") == 1


def test_a_snapshot_that_is_no_toml_is_named_and_nothing_is_changed(
    build: Build, rewritten: Layers, parts: Parts
) -> None:
    (rewritten.path / "analyzed-shim.snapshot.toml").write_text("[")
    ended = fix(build, "--daemon", **parts.at)
    ended.expect(code=64, reference=parts.digest)
    assert "analyzed-shim.snapshot.toml" in ended.err


def test_a_file_that_can_t_be_edited_is_named(build: Build, layers: Layers, parts: Parts) -> None:
    text = analyzed_toml(parts.digest, parts.name)
    head, _, _ = text.partition("[run-image]")
    layers.toml.write_text(f'run-image = {{reference = "{parts.digest}", image = "{parts.name}"}}\n{head}')
    ended = fix(build, "--daemon", **parts.at)
    ended.expect(code=0, outcome="unrepaired", reference=parts.digest)
    assert str(layers.toml) in ended.out
    fix(build, "--daemon", "--strict", **parts.at).expect(code=81)
