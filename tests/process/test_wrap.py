"""Every row and outcome, played with the shim as a process, the stand-in lifecycle and the embedded engine."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from shim.demo import images, servers
from shim.demo.lifecycle import ARCHITECTURE
from tests.support.build import SHIM, Build
from tests.support.layers import ID, Layers
from tests.support.parts import OTHER_ID, Parts
from tests.support.processes import on_a_terminal, program
from tests.support.users import as_user

# nothing-to-do


@pytest.mark.parametrize("phase", ["analyzer", "restorer", "exporter"])
@pytest.mark.parametrize("api", ["", "0.9", "0.12", "0.14"])
def test_nothing_to_do_at_another_platform_api(build: Build, layers: Layers, phase: str, api: str) -> None:
    layers.write("r:1", "r:1")
    ended = build.run(phase, "-version", CNB_PLATFORM_API=api)
    ended.expect(code=0, out="0.20.0+standin\n", err="", outcome="passed-through")
    assert "exit_code" not in ended.report
    assert not layers.note.exists()


def test_nothing_to_do_no_extension(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(ID, extensions=False)
    before = layers.toml.read_bytes()
    build.run("restorer", "-daemon=false", **parts.at).expect(
        outcome="passed-through", reason=f"no image extension in {layers.group}"
    )
    assert parts.engine.asked == []
    assert layers.toml.read_bytes() == before


@pytest.mark.parametrize(
    "extra",
    ['  [run-image.target]\n    os = "linux"\n', '  extend = true\n  [run-image.target]\n    os = "linux"\n'],
)
def test_nothing_to_do_if_the_target_is_known(build: Build, layers: Layers, parts: Parts, extra: str) -> None:
    layers.write(parts.name, parts.name, extra=extra)
    ended = build.run("restorer", options=("--daemon",), **parts.at)
    ended.expect(outcome="passed-through")
    assert "run-image.target.os is set" in ended.report["reason"]
    assert parts.engine.asked == []


# no-switch


@pytest.mark.parametrize("option", ["--daemon", "--no-daemon", "--strict"])
def test_no_switch_the_crash_is_kept_away_in_every_build(build: Build, layers: Layers, option: str) -> None:
    layers.write(ID)
    build.run("restorer", options=(option,)).expect(code=0)
    ended = build.run("restorer", options=(option,))
    ended.expect(outcome="no-lookup", reference=ID)
    assert ended.err.rstrip().endswith(" [no-lookup]")
    build.call(str(build.lifecycle / "restorer")).expect(code=2)


# registry-build


def test_a_registry_build_asks_the_registry_and_keeps_its_digest(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", options=("--no-daemon",), **parts.at)
    ended.expect(outcome="not-a-daemon-build", reference=parts.digest)
    assert (ended.err, parts.engine.asked) == ("", [])


def test_registry_build_an_empty_reference_gets_its_name(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write("", parts.name)
    build.run("restorer", options=("--no-daemon",), STANDIN_VERSION="0.17").expect(
        outcome="filled", reference=parts.name
    )
    build.run("exporter", "app:1").expect(code=0)


# daemon-build


def test_daemon_build_prevented(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", options=("--daemon",), **parts.at)
    ended.expect(
        code=0,
        outcome="prevented",
        reference=parts.id,
        schema=1,
        phase="restorer",
        platform_api="0.11",
        row="daemon-build",
        build="daemon",
        certainty="known",
        evidence="option",
        run_image=parts.name,
        image_id=parts.id,
        reference_before=parts.name,
        reference_after=parts.name,
        reference_final=parts.id,
        exit_code=0,
        runs=1,
        command=[str(build.lifecycle / "restorer")],
        warnings=[],
        daemon={"address": parts.engine.url, "name": "Docker", "version": "0.0 (embedded)", "store": "memory"},
    )
    assert ended.report["seconds"] > 0
    assert parts.registry.asked == []
    assert parts.engine.asked == ["GET /_ping", f"GET /images/{parts.name}/json", "GET /version", "GET /info"]
    assert layers.stray() == set()


def test_daemon_build_without_a_report_two_questions_are_all(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", options=("--daemon",), ANALYZED_SHIM_REPORT="", **parts.at)
    ended.expect(code=0, reference=parts.id)
    assert parts.engine.asked == ["GET /_ping", f"GET /images/{parts.name}/json"]
    assert ended.err.count("\n") == 1


def test_daemon_build_never_and_not_there_is_80_before_anything_runs(
    build: Build, layers: Layers, parts: Parts
) -> None:
    name = f"{parts.registry.host}/run/absent:1.0"
    layers.write(name, name)
    before = layers.identity()
    ended = build.run("restorer", options=("--pull-policy", "never"), **parts.at)
    ended.expect(code=80, outcome="not-in-daemon")
    assert f"docker pull {name}" in ended.err
    assert layers.identity() == before
    assert parts.registry.asked == []


def test_daemon_build_never_and_there(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    build.run("restorer", ANALYZED_SHIM_PULL_POLICY="never", **parts.at).expect(
        code=0, outcome="prevented", reference=parts.id, evidence="pull policy"
    )
    assert parts.registry.asked == []


@pytest.mark.parametrize("policy", ["if-not-present", "always"])
def test_daemon_build_pulled(build: Build, layers: Layers, parts: Parts, policy: str) -> None:
    name = parts.registry.push("run/new:1.0", parts.image)
    layers.write(name, name)
    ended = build.run("restorer", options=("--pull-policy", policy), **parts.at)
    ended.expect(code=0, outcome="prevented", reference=parts.id)
    assert ended.report["pulled"] is True
    assert f"analyzed-shim: pulling {name} into the daemon\n" in ended.err


def test_daemon_build_on_a_terminal_the_progress_is_one_line_that_goes(
    build: Build, layers: Layers, parts: Parts
) -> None:
    name = parts.registry.push("run/new:1.0", parts.image)
    layers.write(name, name)
    command = [*SHIM, "run", "--daemon", "--", str(build.lifecycle / "restorer")]
    code, seen = on_a_terminal(command, {**build.env, **parts.at})
    assert code == 0, seen
    assert b"\r\x1b[Kanalyzed-shim: pulling " + name.encode() in seen
    assert b"\r\x1b[K" in seen.rpartition(b"MB")[2]
    assert layers.reference == parts.id
    other = parts.registry.push("run/other:1.0", parts.image)
    layers.write(other, other)
    code, seen = on_a_terminal([*command, "-log-level", "error"], {**build.env, **parts.at})
    assert (code, seen, layers.reference) == (0, b"", parts.id)


def test_a_warning_is_coloured_on_a_terminal_unless_it_must_not_be(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    layers.write("r:1", "r:1")
    phase = build.phase()
    layers.group.write_text("group-extensions = 3\n")
    for environ, coloured in (({}, True), ({"CNB_NO_COLOR": "true"}, False), ({"NO_COLOR": "1"}, False)):
        _, seen = on_a_terminal([*SHIM, "run", "--daemon", "--", str(phase)], {**build.env, **environ})
        assert (b"\x1b[33mWarning: \x1b[0m" in seen) is coloured, seen


def test_daemon_build_always_pulls_first(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    newer = images.multi("newer")
    parts.registry.push("run/app:1.0", newer)
    build.run("restorer", options=("--pull-policy", "always"), **parts.at).expect(
        outcome="prevented", reference=newer.config_digest(ARCHITECTURE).removeprefix("sha256:")
    )


def test_daemon_build_always_that_fails_is_a_warning_where_the_image_is_there(
    build: Build, layers: Layers, parts: Parts
) -> None:
    name = f"{parts.registry.host}/run/local:1.0"
    parts.engine.tag(name, f"sha256:{parts.id}")
    layers.write(name, name)
    ended = build.run("restorer", options=("--pull-policy", "always"), **parts.at)
    ended.expect(code=0, outcome="prevented", reference=parts.id)
    assert ended.report["pulled"] is False
    assert f"{name} can't be pulled" in ended.report["warnings"][0]


@pytest.mark.parametrize("policy", ["if-not-present", "always"])
@pytest.mark.parametrize(("strict", "code"), [("--no-strict", 1), ("--strict", 81)])
def test_daemon_build_not_to_be_had_at_all(
    build: Build, layers: Layers, parts: Parts, policy: str, strict: str, code: int
) -> None:
    name = f"{parts.registry.host}/run/absent:1.0"
    layers.write(name, name)
    ended = build.run("restorer", options=("--pull-policy", policy, strict), **parts.at)
    ended.expect(outcome="not-in-daemon")
    assert f"docker pull {name}" in ended.err
    ended.expect(code=code)


def test_daemon_build_the_restorer_s_own_failure_counts(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    layers.write(parts.name, parts.name)
    phase = build.phase(exits=44)
    build.run(phase, options=("--daemon", "--strict"), **parts.at).expect(
        code=44, outcome="unchanged", reference=parts.name
    )


# daemon-out-of-reach


@pytest.mark.parametrize(
    ("socket", "words"),
    [("no-such.sock", "not found"), ("dead.sock", "refuses connections"), ("file", "is not a socket")],
)
def test_out_of_reach_the_engine_can_not_be_asked(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, socket: str, words: str
) -> None:
    dead = servers.Engine(str(tmp_path / "dead.sock"))
    dead.shutdown()
    dead.server_close()
    (tmp_path / "file").write_text("")
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", options=("--daemon",), DOCKER_HOST=f"unix://{tmp_path}/{socket}")
    ended.expect(code=0, outcome="kept-name", reference=parts.name)
    assert words in ended.err
    assert ("exit_code" in ended.report) == (socket == "dead.sock")  # that nobody listens is seen by asking
    assert parts.registry.asked == []


def test_out_of_reach_an_empty_reference_gets_its_name(build: Build, layers: Layers) -> None:
    layers.write("", "r:1")
    build.run("restorer", options=("--daemon",), STANDIN_VERSION="0.17").expect(
        code=0, outcome="filled", reference="r:1"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
@pytest.mark.parametrize("option", [(), ("--daemon",)])
def test_out_of_reach_a_socket_that_is_not_ours_to_open(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, option: tuple[str, ...]
) -> None:
    layers.write(parts.name, parts.name)
    (tmp_path / "engine.sock").chmod(0o660)
    phase = str(build.phase())
    code, err, report = as_user(build, layers, "", "run", *option, "--", phase, **parts.at)
    assert code == 0, err
    assert (report["outcome"], report["certainty"]) == ("kept-name", "known" if option else "likely")
    assert "permission denied on" in err
    assert layers.reference == parts.name


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
@pytest.mark.parametrize("option", [(), ("--daemon",)])
def test_where_there_is_no_room_for_a_process_it_becomes_the_phase(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, option: tuple[str, ...]
) -> None:
    layers.write(parts.name, parts.name)
    (tmp_path / "engine.sock").chmod(0o666)
    phase = str(build.phase(exits=7))
    limit = "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))"
    code, err, _ = as_user(build, layers, limit, "run", *option, "--", phase, **parts.at)
    assert code == 7, err
    assert "no process can be started" in err
    assert layers.reference == parts.name


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
def test_with_neither_room_for_a_process_nor_for_a_memory_file_the_note_has_the_group(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    layers.write(ID)
    phase = build.phase(does='read a < "${1#-group=}" && exit 7')
    limits = "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)); forbid.forbid(forbid.NUMBERS['memfd_create'][machine])"
    code, err, _ = as_user(build, layers, limits, "run", "--", str(phase))
    assert code == 7, err
    assert layers.stray() == set()


# likely


def test_likely_reverted(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    build.run("restorer", **parts.at).expect(
        code=0, outcome="reverted", reference=parts.id, certainty="likely", reference_after=parts.digest
    )
    assert not any("POST" in asked for asked in parts.engine.asked)


def test_likely_a_digest_of_another_image_is_reverted(build: Build, layers: Layers, parts: Parts) -> None:
    parts.engine.tag(parts.digest, f"sha256:{OTHER_ID}")
    layers.write(parts.name, parts.name)
    build.run("restorer", **parts.at).expect(outcome="reverted")
    assert layers.reference == parts.id


def test_likely_resolves(build: Build, layers: Layers, parts: Parts) -> None:
    parts.engine.tag(parts.digest, f"sha256:{parts.id}")
    layers.write(parts.name, parts.name)
    build.run("restorer", **parts.at).expect(code=0, outcome="resolves", reference=parts.digest)


def test_likely_unchanged(build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path) -> None:
    layers.write(parts.name, parts.name)
    before = layers.identity()
    build.run(build.phase(), **parts.at).expect(code=0, outcome="unchanged")
    assert layers.identity() == before


def test_likely_filled(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write("", parts.name)
    build.run("restorer", STANDIN_VERSION="0.17", **parts.at).expect(code=0, outcome="filled", reference=parts.id)


def test_likely_retried(build: Build, layers: Layers, parts: Parts) -> None:
    name = f"{parts.registry.host}/run/local:1.0"
    parts.engine.tag(name, f"sha256:{parts.id}")
    layers.write(name, name)
    ended = build.run("restorer", **parts.at)
    ended.expect(code=0, outcome="retried", reference=parts.id, runs=2)
    assert "retrying without the registry lookup" in ended.err


def test_likely_the_second_run_s_status_counts(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    layers.write(parts.name, parts.name)
    phase = build.phase(does=f"echo x >> {tmp_path}/n\nexit $(wc -l < {tmp_path}/n)")
    build.run(phase, **parts.at).expect(code=2, outcome="unchanged", reference=parts.name, runs=2)


def test_likely_a_failure_that_touched_the_file_is_passed_on(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    layers.write(parts.name, parts.name)
    phase = build.phase(does=f'echo "# x" >> {layers.toml}', exits=9)
    build.run(phase, **parts.at).expect(code=9, outcome="unchanged", runs=1)
    assert layers.toml.read_text().endswith("# x\n")


# unknown


def test_unknown_a_rewrite_that_nothing_explains_names_the_option(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer")
    ended.expect(code=0, outcome="daemon-unknown", reference=parts.digest)
    assert "ANALYZED_SHIM_DAEMON=true" in ended.err


def test_unknown_no_rewrite_no_line(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    layers.write("r:1", "r:1")
    build.run(build.phase()).expect(code=0, outcome="daemon-unknown", err="")


def test_unknown_filled(build: Build, layers: Layers) -> None:
    layers.write("", "r:1")
    build.run("restorer", STANDIN_VERSION="0.17").expect(code=0, outcome="filled", reference="r:1")


def test_unknown_an_engine_that_lacks_the_image_is_not_told_to_pull(build: Build, layers: Layers, parts: Parts) -> None:
    name = parts.registry.push("run/new:1.0", parts.image)
    layers.write(name, name)
    build.run("restorer", **parts.at).expect(code=0, outcome="daemon-unknown")
    assert not any("POST" in asked for asked in parts.engine.asked)
    layers.write("", name)
    ended = build.run("restorer", STANDIN_VERSION="0.17", **parts.at)
    ended.expect(outcome="daemon-unknown", reference="")
    assert "wrap the exporter too" in ended.err


# The exporter.


@pytest.mark.parametrize(
    ("reference", "image", "daemon"),
    [
        ("r:1", "r:1", True),
        ("r:1", "r:1", False),
        (ID, "r:1", True),
        (ID, None, False),
        ("r@sha256:" + ID, "r:1", False),
    ],
)
def test_takes_it_nothing_is_asked(
    build: Build,
    layers: Layers,
    engine: servers.Engine,
    tmp_path: pathlib.Path,
    reference: str,
    image: str,
    daemon: bool,
) -> None:
    layers.write(reference, image)
    before = layers.identity()
    phase = build.phase("exporter")
    ended = build.run(phase, *(["-daemon"] if daemon else []), "app:1", DOCKER_HOST=engine.url)
    assert (ended.code, ended.outcome, engine.asked) == (0, "passed-through", [])
    assert layers.identity() == before


def test_repairs_reverted(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.digest, parts.name)
    ended = build.run("exporter", "-daemon", "app:1", **parts.at)
    ended.expect(code=0, outcome="reverted", reference=parts.id)
    assert "exit_code" not in ended.report


def test_repairs_resolves(build: Build, layers: Layers, parts: Parts) -> None:
    parts.engine.tag(parts.digest, f"sha256:{parts.id}")
    layers.write(parts.digest, parts.name)
    build.run("exporter", "app:1", CNB_USE_DAEMON="true", **parts.at).expect(
        code=0, outcome="resolves", reference=parts.digest, evidence="CNB_USE_DAEMON"
    )


def test_repairs_what_a_platform_pulled_by_digest_resolves(build: Build, layers: Layers, parts: Parts) -> None:
    name = f"{parts.registry.host}/run/gone:1.0"
    digest = f"{parts.registry.host}/run/gone@sha256:{OTHER_ID}"
    parts.engine.tag(digest, f"sha256:{parts.id}")
    layers.write(digest, name)
    build.run("exporter", "-daemon", "app:1", options=("--strict",), **parts.at).expect(
        code=0, outcome="resolves", reference=digest
    )


@pytest.mark.parametrize(("strict", "code"), [("--no-strict", 62), ("--strict", 81)])
def test_repairs_not_in_the_daemon(build: Build, layers: Layers, parts: Parts, strict: str, code: int) -> None:
    digest = f"{parts.registry.host}/run/gone@sha256:{OTHER_ID}"
    layers.write(digest, "r:gone")
    ended = build.run("exporter", "-daemon", "app:1", options=(strict,), **parts.at)
    ended.expect(code=code, outcome="not-in-daemon", reference=digest)
    assert "docker pull r:gone" in ended.err


def test_the_line_of_an_error_ends_with_the_outcome_too(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write("r:gone", "r:gone")
    ended = build.run("restorer", options=("--pull-policy", "never"), **parts.at)
    assert (ended.code, ended.err.endswith(" [not-in-daemon]\n")) == (80, True), ended.err
    layers.write(parts.digest, "r:gone")
    ended = build.run("exporter", "-daemon", "app:1", options=("--strict",))
    assert (ended.code, ended.err.endswith(" [unrepaired]\n")) == (81, True), ended.err


@pytest.mark.parametrize(("strict", "code"), [("--no-strict", 1), ("--strict", 81)])
def test_repairs_no_answer(build: Build, layers: Layers, parts: Parts, strict: str, code: int) -> None:
    layers.write(parts.digest, parts.name)
    ended = build.run("exporter", "-daemon", "app:1", options=(strict,))
    ended.expect(code=code, outcome="unrepaired", reference=parts.digest)
    assert f"docker pull {parts.digest}" in ended.err


def test_repairs_filled_with_the_id_or_the_name(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    phase = build.phase("exporter")
    layers.write("", parts.name)
    build.run(phase, "-daemon", "app:1", **parts.at).expect(outcome="filled")
    assert layers.reference == parts.id
    for environ, name in ((parts.at, "r:gone"), ({}, parts.name)):
        layers.write("", name)
        ended = build.run(phase, "-daemon", "app:1", **environ)
        ended.expect(outcome="filled", reference=name)
        assert f"docker pull {name}" in ended.err


def test_heals_the_name_comes_back_in_a_registry_build(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.id, parts.name)
    bare = subprocess.run([build.lifecycle / "exporter", "app:1"], env=build.env, capture_output=True, check=False)
    assert bare.returncode == 1
    build.run("exporter", "app:1", **parts.at).expect(code=0, outcome="name-restored", reference=parts.name)
    assert parts.engine.asked == []


def test_heals_an_empty_reference_gets_its_name_in_a_registry_build(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write("", parts.name)
    build.run("exporter", "app:1").expect(code=0, outcome="filled", reference=parts.name)


# The note, and whole builds.


@pytest.mark.parametrize(
    ("arguments", "environ", "daemon"),
    [
        (("-daemon",), {}, True),
        ((), {}, False),
        ((), {"CNB_USE_DAEMON": "true"}, True),
        ((), {"CNB_USE_LAYOUT": "true"}, False),
        (("-daemon=false",), {"CNB_USE_DAEMON": "true"}, False),
    ],
)
def test_the_analyzer_leaves_the_note(
    build: Build,
    layers: Layers,
    tmp_path: pathlib.Path,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    daemon: bool,
) -> None:
    phase = build.phase("analyzer", exits=7)
    ended = build.run(phase, *arguments, "app:1", **environ)
    ended.expect(code=7, outcome="noted", err="")
    assert f"daemon = {str(daemon).lower()}\n" in layers.note.read_text()
    assert stat.S_IMODE(layers.note.stat().st_mode) == 0o644
    ended.expect(build="daemon" if daemon else "registry")


def test_the_note_stands_beside_analyzed_toml(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    phase = build.phase("analyzer")
    build.run(phase, "-daemon", "-analyzed", f"{tmp_path}/elsewhere/a.toml", "app:1").expect(outcome="noted")
    assert (tmp_path / "elsewhere" / "analyzed-shim.toml").exists()
    assert not layers.note.exists()


@pytest.mark.parametrize("wrapped", [("analyzer", "restorer", "exporter"), ("restorer",), ("exporter",)])
@pytest.mark.parametrize("version", ["0.17", "0.20"])
def test_whole_builds_for_a_daemon(
    build: Build, layers: Layers, parts: Parts, wrapped: tuple[str, ...], version: str
) -> None:
    environ = {**parts.at, "STANDIN_VERSION": version, "STANDIN_SWITCH": parts.name}
    for phase, *arguments in (
        ["analyzer", "-daemon", "-run-image", parts.name, "app:1"],
        ["detector"],
        ["restorer"],
        ["exporter", "-daemon", "app:1"],
    ):
        if phase in wrapped:
            ended = build.run(phase, *arguments, **environ)
        else:
            ended = build.call(str(build.lifecycle / phase), *arguments, **environ)
        assert ended.code == 0, (phase, ended.err)
    assert parts.engine.find("app:1") == f"sha256:{parts.id}"


@pytest.mark.parametrize(
    ("wrapped", "final"), [(("analyzer", "restorer", "exporter"), "digest"), (("restorer", "exporter"), "name")]
)
def test_whole_builds_for_a_registry_beside_a_daemon(
    build: Build, layers: Layers, parts: Parts, wrapped: tuple[str, ...], final: str
) -> None:
    environ = {**parts.at, "STANDIN_SWITCH": parts.name}
    for phase, *arguments in (
        ["analyzer", "-run-image", parts.name, "app:1"],
        ["detector"],
        ["restorer"],
        ["exporter", "app:1"],
    ):
        if phase == "restorer" and "analyzer" not in wrapped:  # without the note and a previous image it is a guess
            layers.write(parts.name, parts.name)
        if phase in wrapped:
            ended = build.run(phase, *arguments, **environ)
        else:
            ended = build.call(str(build.lifecycle / phase), *arguments, **environ)
        assert ended.code == 0, (phase, ended.err)
    assert layers.reference == (parts.digest if final == "digest" else parts.name)


# In a phase's place.


@pytest.fixture
def drop_in(build: Build, tmp_path: pathlib.Path) -> pathlib.Path:
    """A lifecycle directory with the shim in the place of the three phases."""
    directory = tmp_path / "cnb"
    directory.mkdir()
    (directory / "lifecycle").write_bytes((build.lifecycle / "lifecycle").read_bytes())
    (directory / "lifecycle").chmod(0o755)
    (directory / "detector").symlink_to("lifecycle")
    for phase in ("analyzer", "restorer", "exporter"):
        (directory / f"{phase}.real").symlink_to("lifecycle")
        program(
            directory / phase,
            f"#!{sys.executable}\nimport sys\nfrom shim.__main__ import main\nsys.exit(main())\n",
        )
    return directory


def test_in_the_phases_places_a_whole_build_needs_no_setting(
    build: Build, layers: Layers, parts: Parts, drop_in: pathlib.Path
) -> None:
    environ = {**parts.at, "STANDIN_SWITCH": parts.name, "PYTHONPATH": os.getcwd()}
    for phase, *arguments in (
        ["analyzer", "-daemon", "-run-image", parts.name, "app:1"],
        ["detector"],
        ["restorer", "-log-level", "debug"],
        ["exporter", "-daemon", "app:1"],
    ):
        ended = build.call(str(drop_in / phase), *arguments, **environ)
        assert ended.code == 0, (phase, ended.err)
    assert layers.reference == parts.id


def test_in_a_phase_s_place_every_argument_is_the_phase_s(build: Build, drop_in: pathlib.Path) -> None:
    ended = build.call(str(drop_in / "restorer"), "--help", PYTHONPATH=os.getcwd())
    ended.expect(code=0)
    assert "stand-in" in ended.out


def test_a_variable_names_the_real_phase(build: Build, drop_in: pathlib.Path, tmp_path: pathlib.Path) -> None:
    real = program(tmp_path / "real", '#!/bin/sh\necho real "$@"\n')
    environ = {"ANALYZED_SHIM_RESTORER": str(real), "PYTHONPATH": os.getcwd(), "CNB_PLATFORM_API": "0.12"}
    assert build.call(str(drop_in / "restorer"), "-daemon", **environ).out == "real -daemon\n"


def test_a_real_phase_that_is_not_there_or_is_the_shim_itself(build: Build, drop_in: pathlib.Path) -> None:
    (drop_in / "restorer.real").unlink()
    ended = build.call(str(drop_in / "restorer"), PYTHONPATH=os.getcwd())
    ended.expect(code=127)
    assert f"{drop_in}/restorer.real not found" in ended.err
    assert "ANALYZED_SHIM_RESTORER" in ended.err
    ended = build.call(str(drop_in / "restorer"), PYTHONPATH=os.getcwd(), ANALYZED_SHIM_RESTORER=f"{drop_in}/restorer")
    ended.expect(code=126)
    assert "is the shim itself" in ended.err


@pytest.mark.parametrize("phase", ["detector", "builder"])
def test_another_phase_of_the_lifecycle_is_become(build: Build, layers: Layers, phase: str) -> None:
    layers.write("r:1", "r:1")
    build.run(phase).expect(code=0, outcome="passed-through", err="")


# Its own lines and its report.


@pytest.mark.parametrize(
    ("environ", "arguments", "lines"),
    [
        ({}, (), 1),
        ({"CNB_LOG_LEVEL": "info"}, (), 1),
        ({"CNB_LOG_LEVEL": "warn"}, (), 0),
        ({"CNB_LOG_LEVEL": "error"}, (), 0),
        ({"CNB_LOG_LEVEL": "error"}, ("-log-level", "info"), 1),
        ({}, ("-log-level=error",), 0),
    ],
)
def test_the_log_level_rules_its_lines(
    build: Build, layers: Layers, parts: Parts, environ: dict[str, str], arguments: tuple[str, ...], lines: int
) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", *arguments, options=("--daemon",), **parts.at, **environ)
    assert ended.err.count("analyzed-shim: ") == lines
    assert layers.reference == parts.id


def test_lines_that_go_to_no_terminal_have_no_colour_and_a_pull_says_that_it_begins(
    build: Build, layers: Layers, parts: Parts
) -> None:
    name = parts.registry.push("run/new:1.0", parts.image)
    layers.write(name, name)
    ended = build.run("restorer", options=("--daemon",), **parts.at)
    ended.expect(outcome="prevented")
    assert ended.err.splitlines()[0] == f"analyzed-shim: pulling {name} into the daemon"
    layers.group.write_text("group-extensions = 3\n")
    ended = build.run("restorer", options=("--daemon",), **parts.at)
    assert "analyzed-shim: Warning: " in ended.err
    assert not set("\x1b\r") & set(ended.err)


@pytest.mark.parametrize("name", ["r:\\u001b[2Jx", "r:\\nERROR: x", "r:\\u202ex", "r:\\u0007"])
def test_a_name_can_not_write_to_the_terminal(build: Build, layers: Layers, parts: Parts, name: str) -> None:
    layers.write(name, name)
    ended = build.run("restorer", options=("--pull-policy", "never"), **parts.at)
    ended.expect(code=80)
    assert ended.err.count("\n") == 1
    assert ended.err.rstrip("\n").isprintable()


def test_a_path_that_is_no_utf_8_can_be_said(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    odd = tmp_path / "odd\udcff"
    odd.mkdir()
    (odd / "group.toml").write_text("group-extensions = 3\n")
    ended = build.run(build.phase(exits=7), "-layers", str(odd))
    ended.expect(code=7, outcome="passed-through")
    assert "\\udcff/group.toml" in ended.err


@pytest.mark.parametrize(
    ("environ", "evidence"),
    [({"CNB_USE_LAYOUT": "true"}, "CNB_USE_LAYOUT"), ({"CNB_USE_DAEMON": "0"}, "CNB_USE_DAEMON")],
)
def test_the_lifecycle_s_variables_are_evidence_of_a_registry_build(
    build: Build, layers: Layers, parts: Parts, environ: dict[str, str], evidence: str
) -> None:
    layers.write(parts.name, parts.name)
    build.run("restorer", **parts.at, **environ).expect(outcome="not-a-daemon-build", evidence=evidence)
    assert parts.engine.asked == []


def test_secrets_in_an_address_stand_in_no_line_and_no_report(build: Build, layers: Layers) -> None:
    layers.write("r:1", "r:1")
    address = "tcp://user:word@127.0.0.1:1"
    launcher = ("env", f"DOCKER_HOST={address}", str(build.lifecycle / "restorer"))
    ended = build.call(*SHIM, "run", "--daemon", "--", *launcher)
    ended.expect(code=0, outcome="kept-name")
    assert "127.0.0.1:1" in ended.err
    assert "word" not in ended.err + json.dumps(ended.report)


def test_debug_says_why_nothing_is_done(build: Build, layers: Layers) -> None:
    layers.write(ID, extensions=False)
    build.run("restorer", CNB_LOG_LEVEL="debug").expect(
        err=f"analyzed-shim: no image extension in {layers.group} [passed-through]\n"
    )


def test_a_report_names_the_phase_where_it_is_asked_to(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    layers.write("r:1", "r:1")
    build.run("detector", ANALYZED_SHIM_REPORT=f"{tmp_path}/r-{{phase}}.json")
    build.run("restorer", "-version", ANALYZED_SHIM_REPORT=f"{tmp_path}/r-{{phase}}.json")
    assert json.loads((tmp_path / "r-restorer.json").read_text())["outcome"] == "passed-through"
    assert (tmp_path / "r-other.json").exists()


def test_a_report_that_can_not_be_written_is_a_warning(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    ended = build.run("restorer", options=("--daemon", "--report", "/no/such/dir/r.json"), **parts.at)
    ended.expect(code=0, reference=parts.id)
    assert "the report can't be written to /no/such/dir/r.json" in ended.err


def test_wrong_use_is_64_and_says_what_to_do(build: Build, layers: Layers) -> None:
    layers.write("r:1", "r:1")
    for command in (["run"], ["run", "--"], ["run", "--bogus", "--", "restorer"], ["bogus"], ["demo", "--bogus"]):
        ended = build.call(*SHIM, *command)
        assert ended.code == 64, command
        assert ended.err
    build.run("restorer", ANALYZED_SHIM_TIMEOUT="soon").expect(code=64)
    build.run("restorer", "-version", ANALYZED_SHIM_TIMEOUT="soon").expect(code=0)
    build.run("restorer", ANALYZED_SHIM_TIMEOUT="soon", CNB_PLATFORM_API="0.9").expect(code=0)


def test_a_group_as_nobody_but_a_person_writes_it(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.name, parts.name)
    layers.group.write_text('group = [{ id = "bp/a" }]\ngroup-extensions = [{ id = "ext/a" }]\n')
    ended = build.run("restorer", options=("--daemon",), **parts.at)
    assert (ended.outcome, layers.reference, parts.registry.asked) == ("prevented", parts.id, [])
