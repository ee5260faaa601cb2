"""The CI step: the same rows and the same edit, without running anything."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess

import pytest

from shim.demo import images
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.build import SHIM, Build, Ran
from tests.support.ground import id_in
from tests.support.layers import ID, Layers
from tests.support.parts import OTHER_ID, Parts
from tests.support.processes import on_a_terminal
from tests.support.users import as_user


def fix(build: Build, *options: str, **environ: str) -> Ran:
    return build.call(*SHIM, "fix", *options, **environ)


@pytest.fixture
def rewritten(layers: Layers, parts: Parts) -> Layers:
    """What the bare restorer leaves of a multi-arch run image."""
    layers.write(parts.digest, parts.name)
    return layers


@pytest.mark.parametrize("option", ["--daemon", "--pull-policy=never", "--strict"])
def test_a_rewrite_is_put_right_and_the_second_time_there_is_nothing_to_do(
    build: Build, rewritten: Layers, parts: Parts, option: str
) -> None:
    ended = fix(build, option, **parts.at)
    assert (ended.code, ended.outcome, rewritten.reference) == (0, "reverted", parts.id)
    ended.expect(certainty="likely" if option == "--strict" else "known")
    assert ended.report["changed"] is True
    before = rewritten.identity()
    ended = fix(build, option, "--exit-code", **parts.at)
    assert (ended.code, ended.outcome, ended.report["changed"]) == (0, "passed-through", False)
    assert rewritten.identity() == before
    assert not any("POST" in asked for asked in parts.engine.asked)


def test_the_evidence_is_the_note_the_environment_or_the_previous_image(
    build: Build, layers: Layers, parts: Parts
) -> None:
    for evidence, write in (
        ("note", lambda: layers.note.write_text("daemon = true\n")),
        ("CNB_USE_DAEMON", lambda: build.env.update(CNB_USE_DAEMON="true")),
        ("previous image", lambda: layers.write(parts.digest, parts.name, previous=OTHER_ID)),
    ):
        layers.write(parts.digest, parts.name)
        write()
        fix(build, **parts.at).expect(outcome="reverted", evidence=evidence, reference=parts.id)
        layers.note.unlink(missing_ok=True)
        build.env.pop("CNB_USE_DAEMON", None)


@pytest.mark.parametrize("reference", ["digest", "name"])
def test_a_registry_build_is_refused(build: Build, layers: Layers, parts: Parts, reference: str) -> None:
    layers.write(parts.digest if reference == "digest" else parts.name, parts.name)
    before = layers.identity()
    for options, environ in ((("--no-daemon",), {}), ((), {"CNB_USE_DAEMON": "false"})):
        ended = fix(build, *options, **environ, **parts.at)
        ended.expect(code=64)
        assert "registry build" in ended.err
        assert "--daemon" in ended.err
    assert layers.identity() == before
    assert parts.engine.asked == []


@pytest.mark.parametrize("reference", ["id", "empty"])
def test_a_registry_build_with_a_wrong_guess_is_healed(
    build: Build, layers: Layers, parts: Parts, reference: str
) -> None:
    layers.write(parts.id if reference == "id" else "", parts.name)
    fix(build, "--no-daemon", **parts.at).expect(
        code=0, reference=parts.name, outcome="name-restored" if reference == "id" else "filled"
    )


def test_where_nothing_tells_it_is_refused_and_with_the_option_it_is_not(build: Build, rewritten: Layers) -> None:
    before = rewritten.identity()
    ended = fix(build)
    ended.expect(code=64)
    assert "nothing indicates whether" in ended.err
    assert "--daemon" in ended.err
    fix(build, "--daemon").expect(outcome="unrepaired")
    fix(build, "--daemon", "--strict").expect(code=81)
    assert rewritten.identity() == before


def test_an_engine_that_lacks_the_image_does_not_make_it_likely(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(f"r@sha256:{OTHER_ID}", "r:gone")
    fix(build, **parts.at).expect(code=64)
    fix(build, "--daemon", **parts.at).expect(code=0, outcome="not-in-daemon")


@pytest.mark.parametrize("reference", ["r:1", ID])
def test_where_nothing_was_switched_there_is_nothing_to_do(build: Build, layers: Layers, reference: str) -> None:
    layers.write(reference)
    fix(build).expect(code=0, outcome="passed-through")


def test_a_dry_run_changes_nothing_and_a_diff_shows_it(build: Build, rewritten: Layers, parts: Parts) -> None:
    before = rewritten.identity()
    ended = fix(build, "--dry-run", "--diff", "--exit-code", **parts.at)
    assert (ended.code, ended.report["changed"], ended.report["dry_run"]) == (1, True, True)
    assert f'-  reference = "{parts.digest}"\n+  reference = "{parts.id}"\n' in ended.out
    assert ended.err.rstrip().endswith("(dry run: nothing was changed) [reverted]")
    assert rewritten.identity() == before
    fix(build, "--exit-code", **parts.at).expect(code=1)
    fix(build, "--exit-code", **parts.at).expect(code=0)


def test_a_diff_is_coloured_on_a_terminal(build: Build, rewritten: Layers, parts: Parts) -> None:
    _, seen = on_a_terminal([*SHIM, "fix", "--dry-run", "--diff"], {**build.env, **parts.at})
    assert b"\x1b[31m-  reference" in seen
    assert b"\x1b[32m+  reference" in seen


def test_a_report_on_stdout_is_json_and_nothing_else(build: Build, rewritten: Layers, parts: Parts) -> None:
    ended = fix(build, "--report", "-", **parts.at)
    assert json.loads(ended.out)["outcome"] == "reverted"


def test_a_snapshot_is_kept_compared_and_removed(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, extra="  daemon = true\n")
    layers.toml.chmod(0o640)
    build.call(*SHIM, "snapshot").expect(code=0)
    kept = layers.path / "analyzed-shim.snapshot.toml"
    assert kept.read_bytes() == layers.toml.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    layers.write(parts.digest)  # a restorer that knows neither the marker nor the name
    fix(build, **parts.at).expect(
        outcome="reverted", reference=parts.id, evidence="marker", reference_before=parts.name
    )
    assert not kept.exists()


def test_a_snapshot_elsewhere_and_a_dry_run_keeps_it(
    build: Build, rewritten: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    kept = tmp_path / "kept.toml"
    build.call(*SHIM, "snapshot", "--to", str(kept)).expect(code=0)
    fix(build, "--from", str(kept), "--dry-run", **parts.at)
    assert kept.exists()
    fix(build, "--from", str(kept), **parts.at)
    assert not kept.exists()


def test_a_snapshot_that_is_none_is_a_warning(build: Build, rewritten: Layers, parts: Parts) -> None:
    (rewritten.path / "analyzed-shim.snapshot.toml").write_text("[")
    ended = fix(build, **parts.at)
    ended.expect(code=0, outcome="reverted")
    assert "analyzed-shim.snapshot.toml" in ended.report["warnings"][0]


def test_bad_input_names_the_file_and_the_way_out(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    for verb in ("fix", "snapshot"):
        ended = build.call(*SHIM, verb)
        ended.expect(code=66)
        assert f"{layers.toml} not found (" in ended.err
    layers.toml.write_text("[")
    for verb in ("fix", "snapshot"):
        build.call(*SHIM, verb).expect(code=66)
    layers.write("r:1", "r:1")
    ended = build.call(*SHIM, "snapshot", "--to", f"{tmp_path}/no/such/dir")
    ended.expect(code=73)
    assert "--to" in ended.err


def test_another_platform_api_is_nothing_to_do(build: Build, rewritten: Layers, parts: Parts) -> None:
    for api in ("0.9", "0.12"):
        fix(build, "--daemon", "--platform-api", api, **parts.at).expect(code=0, outcome="passed-through")
    ended = fix(build, "--daemon", CNB_PLATFORM_API="", **parts.at)
    ended.expect(code=0, outcome="passed-through")
    assert "--platform-api" in ended.err
    assert rewritten.reference == parts.digest


def test_paths_are_options_too(build: Build, rewritten: Layers, parts: Parts, tmp_path: pathlib.Path) -> None:
    moved = tmp_path / "a.toml"
    moved.write_bytes(rewritten.toml.read_bytes())
    fix(build, "--analyzed", str(moved), "--docker-host", parts.engine.url).expect(outcome="reverted")
    assert rewritten.reference == parts.digest
    fix(build, "--layers", str(rewritten.path), CNB_LAYERS_DIR="/nowhere", **parts.at).expect(outcome="reverted")


def test_a_file_that_can_not_be_written_is_unrepaired(build: Build, rewritten: Layers, parts: Parts) -> None:
    if os.getuid():
        pytest.skip("mounts, which needs root")
    command = f'mount --bind {rewritten.path} {rewritten.path}; mount -o remount,ro,bind {rewritten.path}; exec "$@"'
    full = ["unshare", "-m", "sh", "-ec", command, "sh", *SHIM, "fix"]
    for strict, code in ((), 0), (("--strict",), 81):
        ended = subprocess.run(
            [*full, *strict], env={**build.env, **parts.at}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, ended.stderr
        assert ended.stderr.rstrip().endswith(" [unrepaired]")
    assert rewritten.reference == parts.digest
    build.call(*SHIM, "snapshot")
    rewritten.write("r:1", "r:1")
    ended = subprocess.run(
        [*full, "--daemon"], env={**build.env, **parts.at}, capture_output=True, text=True, check=True
    )
    first, second = ended.stderr.splitlines()
    assert first.endswith(" [passed-through]")
    assert "analyzed-shim.snapshot.toml can't be removed" in second


@pytest.mark.parametrize("api", ["0.10", "0.11"])
def test_between_a_bare_restorer_and_a_bare_exporter_on_a_real_daemon(
    build: Build, layers: Layers, real_parts: tuple[real.Engine, real.Registry], api: str
) -> None:
    engine, registry = real_parts
    image = images.multi("fix")
    name = registry.push("run/fix:1.0", image)
    engine.pull(name)
    environ = {"DOCKER_HOST": engine.url, "CNB_PLATFORM_API": api}
    try:
        layers.write(name, name)
        build.call(*SHIM, "snapshot", **environ)
        build.call(str(build.lifecycle / "restorer"), **environ).expect(code=0)
        rewritten = f"{registry.host}/run/fix@{image.manifest_digest(ARCHITECTURE)}"
        assert layers.reference == rewritten
        if engine.kind == "podman":  # which knows that digest
            fix(build, **environ).expect(outcome="resolves")
            assert layers.reference == rewritten
        else:
            build.call(str(build.lifecycle / "exporter"), "-daemon", "app:1", **environ).expect(code=62)
            fix(build, **environ).expect(outcome="reverted")
            assert layers.reference == id_in(engine, image)
        build.call(str(build.lifecycle / "exporter"), "-daemon", "fixed:1", **environ).expect(code=0)
        assert layers.stray() == set()
    finally:
        engine.forget("fixed")
        engine.forget(registry.host)


def test_a_snapshot_stays_if_nothing_could_be_repaired(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    build.call(*SHIM, "snapshot").expect(code=0)
    layers.write(parts.digest, parts.name)
    ended = build.call(*SHIM, "fix", "--daemon")
    assert (ended.code, ended.outcome, layers.stray()) == (0, "unrepaired", {"analyzed-shim.snapshot.toml"})
    ended = build.call(*SHIM, "fix", "--daemon", **parts.at)
    assert (ended.code, ended.outcome, layers.stray()) == (0, "reverted", set())


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
def test_a_socket_without_permission_makes_it_likely_and_the_line_says_so(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    layers.write(parts.digest, parts.name)
    before = layers.toml.read_bytes()
    (tmp_path / "engine.sock").chmod(0o660)
    text = (
        "from shim.phase import invocation, settings; from shim.tools import fix\n"
        "call = invocation.read(['exporter'], os.environ)\n"
        "sys.exit(fix.fix(call, settings.read({}, os.environ), fix.Choices(snapshot='/no/such')))"
    )
    code, err, report = as_user(build, layers, text, **parts.at)
    assert (code, report["outcome"], report["certainty"]) == (0, "unrepaired", "likely"), err
    assert "permission denied" in err
    assert layers.toml.read_bytes() == before
