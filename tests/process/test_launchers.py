"""What stands before a phase, and what kind of program stands for it: arguments and the group reach the phase."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tomllib

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build, Ran
from tests.support.launchers import CLOSES, LAUNCHERS, lay_out
from tests.support.layers import GROUP, ID, Layers
from tests.support.parts import Parts
from tests.support.processes import program
from tests.support.users import let_in


@pytest.fixture
def launchers(tmp_path: pathlib.Path) -> pathlib.Path:
    return lay_out(tmp_path / "launchers")


@pytest.fixture(autouse=True)
def mostly_unmeasured(request: pytest.FixtureRequest, build: Build) -> None:
    """Measuring coverage takes half of the time, and behind any launcher the shim goes the same way."""
    if "evidence" not in request.fixturenames or request.getfixturevalue("evidence") != "none":
        build.unmeasured()


def wrapped(build: Build, launcher: tuple[str, ...], directory: pathlib.Path, phase: str, *arguments: str) -> list[str]:
    if shutil.which(launcher[0]) is None and not launcher[0].startswith("LAUNCHERS"):
        raise RuntimeError(f"{launcher[0]} is not installed")
    start = [word.replace("LAUNCHERS", str(directory)) for word in launcher]
    return [*SHIM, "run", "--", *start, str(build.lifecycle / phase), *arguments]


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
@pytest.mark.parametrize("evidence", ["note", "CNB_USE_DAEMON", "none"])
def test_a_daemon_build_behind_a_launcher(
    build: Build, layers: Layers, parts: Parts, launchers: pathlib.Path, launcher: tuple[str, ...], evidence: str
) -> None:
    layers.write(parts.name, parts.name)
    if evidence == "note":
        layers.note.write_text("daemon = true\n")
    environ = {"CNB_USE_DAEMON": "true"} if evidence == "CNB_USE_DAEMON" else {}
    if "-i" in launcher:  # it sees only what it is given
        launcher = (*launcher, *(f"{name}={value}" for name, value in {**parts.at, **environ}.items()))
    command = wrapped(build, launcher, launchers, "restorer", "-layers", str(layers.path))
    build.call(*command, **parts.at, **environ).expect(
        code=0, reference=parts.id, outcome="reverted" if evidence == "none" else "prevented"
    )
    if evidence != "none":
        assert parts.registry.asked == []
    assert layers.stray() == set()


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_the_crash_is_prevented_behind_a_launcher(
    build: Build, layers: Layers, launchers: pathlib.Path, launcher: tuple[str, ...]
) -> None:
    layers.write(ID)
    build.call(*wrapped(build, launcher, launchers, "restorer", "-layers", str(layers.path))).expect(
        code=0, outcome="no-lookup", reference=ID
    )


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "registry"])
def test_an_analyzer_and_an_exporter_behind_a_launcher(
    build: Build, layers: Layers, parts: Parts, launchers: pathlib.Path, launcher: tuple[str, ...], daemon: bool
) -> None:
    layers.write(parts.name, parts.name)
    if "-i" in launcher:
        launcher = (*launcher, f"DOCKER_HOST={parts.engine.url}")
    flag = ("-daemon",) if daemon else ()
    run_image = ("-run-image", parts.name)
    command = wrapped(build, launcher, launchers, "analyzer", *flag, *run_image, "-layers", str(layers.path), "app:1")
    build.call(*command, **parts.at).expect(code=0, outcome="noted")
    assert tomllib.loads(layers.note.read_text()) == {"daemon": daemon}
    layers.write(parts.digest if daemon else parts.id, parts.name)
    command = wrapped(build, launcher, launchers, "exporter", *flag, "-layers", str(layers.path), "app:1")
    build.call(*command, **parts.at).expect(
        code=0, outcome="reverted" if daemon else "name-restored", reference=parts.id if daemon else parts.name
    )


@pytest.mark.parametrize(
    "launcher", ["env -C {}", "env -i --chdir={} CNB_PLATFORM_API=0.11", "nice env -C / env -C .{}"]
)
def test_the_files_are_the_ones_where_env_goes(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, launcher: str
) -> None:
    """Beside others, which are where the shim was started."""
    layers.write(parts.name, parts.name)
    layers.note.write_text("daemon = true\n")
    (tmp_path / "elsewhere").mkdir()
    others = Layers(tmp_path / "elsewhere" / "layers")
    others.write(parts.name, parts.name)
    before = others.identity()
    inside = launcher.format(tmp_path).split()
    if "-i" in inside:
        inside += [f"{name}={value}" for name, value in parts.at.items()]
    phase = (str(build.lifecycle / "restorer"), "-layers", "layers")
    command = ("env", "-C", str(tmp_path / "elsewhere"), *SHIM, "run", "--", *inside, *phase)
    build.call(*command, **parts.at, PYTHONPATH=os.getcwd()).expect(code=0, outcome="prevented", reference=parts.id)
    assert (others.identity(), layers.stray()) == (before, set())


def test_the_platform_api_is_the_one_that_env_sets(build: Build, layers: Layers) -> None:
    layers.write(ID)
    phase = str(build.lifecycle / "restorer")
    build.call(*SHIM, "run", "--", "env", "CNB_PLATFORM_API=0.11", phase, CNB_PLATFORM_API="").expect(
        code=0, outcome="no-lookup"
    )
    build.call(*SHIM, "run", "--", "env", "CNB_PLATFORM_API=0.9", phase).expect(code=0, outcome="passed-through")


def test_the_daemon_is_the_one_that_env_names(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    other = servers.Engine(str(tmp_path / "other.sock"))
    other.tag(parts.name, f"sha256:{ID}")
    layers.write(parts.name, parts.name)
    command = (
        *SHIM,
        "run",
        "--daemon",
        "--",
        "env",
        f"DOCKER_HOST={parts.engine.url}",
        str(build.lifecycle / "restorer"),
    )
    ended = build.call(*command, DOCKER_HOST=other.url)
    other.stop()
    assert (ended.code, layers.reference, other.asked) == (0, parts.id, []), ended.err


@pytest.mark.skipif(os.getuid() != 0, reason="chroot needs root")
@pytest.mark.parametrize("phase", ["analyzer", "restorer", "exporter"])
def test_a_phase_below_another_root_is_left_alone(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, phase: str
) -> None:
    """Its files are others than those that have the same paths here."""
    layers.write(parts.digest, parts.name)
    before = layers.identity()
    root = tmp_path / "root"
    root.mkdir()
    fake = program(tmp_path / "chroot", '#!/bin/sh\nshift\nexec "$@"\n')  # no need for a root in which anything runs
    stand_in = build.phase(phase, exits=7)
    ended = build.call(*SHIM, "run", "--daemon", "--", str(fake), str(root), str(stand_in), "-daemon", **parts.at)
    ended.expect(code=7, outcome="passed-through")
    assert str(root) in ended.err or phase == "analyzer"
    assert (layers.identity(), layers.note.exists(), parts.engine.asked) == (before, False, [])


# What stands for the phase.


def stand_in(build: Build, directory: pathlib.Path, kind: str, name: str) -> pathlib.Path:
    real = str(build.lifecycle / "restorer")
    return program(directory / name, CLOSES[kind].format(python=sys.executable, real=real))


def start(build: Build, tmp_path: pathlib.Path, kind: str, way: str, *arguments: str, **environ: str) -> Ran:
    """Run a script in the restorer's place: named as one, named otherwise, as drop-in, or by a variable."""
    name = "restorer" if way == "named" else "restorer.real" if way == "drop-in" else "custom.sh"
    script = stand_in(build, tmp_path, kind, name)
    if way in ("named", "unnamed"):
        return build.run(script, *arguments, **environ)
    text = f"#!{sys.executable}\nimport sys\nfrom shim.__main__ import main\nsys.exit(main())\n"
    place = program(tmp_path / "restorer", text)
    more = {"ANALYZED_SHIM_RESTORER": str(script)} if way == "variable" else {}
    return build.call(str(place), *arguments, PYTHONPATH=os.getcwd(), **more, **environ)


WAYS = ("named", "unnamed", "drop-in", "variable")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLOSES)
def test_the_group_reaches_the_restorer_behind_a_script(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path, kind: str, way: str
) -> None:
    flags = ("-skip-chown",) if kind == "a fork" else ()
    layers.write(parts.name, parts.name)
    ended = start(build, tmp_path, kind, way, *flags, CNB_USE_DAEMON="true", **parts.at)
    ended.expect(code=0, outcome="prevented", reference=parts.id)
    assert (parts.registry.asked, ended.report["runs"]) == ([], 1)
    layers.write(ID)
    start(build, tmp_path, kind, way, *flags).expect(code=0, outcome="no-lookup", reference=ID)
    layers.write("r:1", "r:1")
    start(build, tmp_path, kind, way, *flags, CNB_USE_DAEMON="true").expect(
        code=0, outcome="kept-name", reference="r:1"
    )
    assert layers.stray() == set()


def test_the_group_in_the_note_leaves_what_the_note_says(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    for daemon in (True, False):
        layers.write(ID)
        layers.note.write_text(f"daemon = {str(daemon).lower()}\n")
        start(build, tmp_path, "a shell", "named").expect(code=0)
        assert tomllib.loads(layers.note.read_text()) == {"daemon": daemon, **tomllib.loads(GROUP)}
        assert layers.note.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("given", [("-group", "{group}"), ("--group={group}",), ("-skip-chown", "-group", "{group}")])
def test_a_group_that_the_platform_gave_is_replaced(
    build: Build, layers: Layers, tmp_path: pathlib.Path, given: tuple[str, ...]
) -> None:
    layers.write(ID)
    group = layers.group.rename(tmp_path / "elsewhere.toml")
    arguments = [word.format(group=group) for word in given]
    start(build, tmp_path, "a fork", "named", *arguments, "-log-level", "info").expect(code=0, outcome="no-lookup")


@pytest.mark.skipif(os.getuid() != 0, reason="drops to a user, which needs root")
@pytest.mark.parametrize(
    "flags", [("-skip-chown", "-uid", "1000"), ("-retries", "3", "-uid=1000"), ("-uid", "1000", "-x")]
)
def test_flags_of_a_fork_hide_none_of_the_known_ones(
    build: Build, layers: Layers, tmp_path: pathlib.Path, flags: tuple[str, ...]
) -> None:
    """The user that the phase drops to is the one that owns what the shim writes."""
    layers.write("", "r:1")
    for path in (layers.path, layers.toml, layers.group):
        os.chown(path, 1000, 1000)
    let_in(tmp_path)
    phase = build.phase(does='test "${1%%=*}" = -group')
    build.run(phase, *flags, "-gid", "1000", options=("--daemon",)).expect(code=0, outcome="filled", reference="r:1")
    assert (layers.note.stat().st_uid, layers.toml.stat().st_uid) == (1000, 1000)


@pytest.mark.parametrize("flags", [("-skip-chown", "-daemon"), ("-daemon", "-skip-chown"), ("-x", "y", "-daemon=true")])
def test_an_analyzer_of_a_fork_is_of_a_daemon_build(
    build: Build, layers: Layers, tmp_path: pathlib.Path, flags: tuple[str, ...]
) -> None:
    phase = build.phase("analyzer")
    build.run(phase, *flags, "app:1").expect(outcome="noted")
    assert tomllib.loads(layers.note.read_text()) == {"daemon": True}


def test_what_fails_without_the_lookup_runs_again_as_called(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    """Such as a launcher that isn't known as one, and knows no flag of a restorer's."""
    text = f'#!/bin/sh\ncase $1 in -*) exit 64 ;; esac\nshift\nexec {build.lifecycle / "restorer"} "$@"\n'
    launcher = program(tmp_path / "launcher", text)
    layers.write(parts.name, parts.name)
    ended = build.run(launcher, "HOST", options=("--daemon",), **parts.at)
    ended.expect(code=0, outcome="retried", reference=parts.id, runs=2)
    assert "running it again as called" in ended.err
    layers.write(parts.name, parts.name)
    build.run(launcher, "HOST", options=("--daemon",)).expect(code=0, outcome="kept-name", reference=parts.name)
    layers.write(ID, None)
    bare = build.call(str(launcher), "HOST")
    assert build.run(launcher, "HOST").code == bare.code == 2  # the crash, which nothing keeps from it


def test_a_fork_that_fails_either_way_fails_with_its_own_status(
    build: Build, layers: Layers, parts: Parts, tmp_path: pathlib.Path
) -> None:
    layers.write(parts.name, parts.name)
    phase = build.phase(does=f"echo run >> {tmp_path}/runs", exits=44)
    build.run(phase, options=("--daemon",), **parts.at).expect(code=44, outcome="unchanged", reference=parts.name)
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


# extend, at 0.10 and 0.11.

EXTEND = "  extend = true\n"
EVIDENCE = ("option", "note", "marker", "CNB_USE_DAEMON", "previous image", "pull policy", "none")


@pytest.mark.parametrize("api", ["0.10", "0.11"])
@pytest.mark.parametrize("case", ["multi", "daemon-only"])
@pytest.mark.parametrize(
    "evidence", ["option", "note", "marker", "CNB_USE_DAEMON", "previous image", "pull policy", "none"]
)
def test_extend_is_no_reason_to_do_nothing_in_a_daemon_build(
    build: Build, layers: Layers, parts: Parts, api: str, case: str, evidence: str
) -> None:
    name = parts.name if case == "multi" else f"{parts.registry.host}/run/local:1.0"
    parts.engine.tag(name, f"sha256:{parts.id}")
    marker = "  daemon = true\n" if evidence == "marker" else ""
    layers.write(name, name, previous=ID if evidence == "previous image" else "", extra=EXTEND + marker)
    if evidence == "note":
        layers.note.write_text("daemon = true\n")
    environ = {"CNB_USE_DAEMON": "1"} if evidence == "CNB_USE_DAEMON" else {}
    environ |= {"ANALYZED_SHIM_PULL_POLICY": "never"} if evidence == "pull policy" else {}
    options = ("--daemon",) if evidence == "option" else ()
    ended = build.run("restorer", options=options, CNB_PLATFORM_API=api, **parts.at, **environ)
    guessed = "reverted" if case == "multi" else "retried"
    ended.expect(code=0, outcome=guessed if evidence == "none" else "prevented", reference=parts.id)
    assert tomllib.loads(layers.toml.read_text())["run-image"]["extend"] is True


@pytest.mark.parametrize("api", ["0.10", "0.11"])
@pytest.mark.parametrize("option", ["--daemon", "--no-daemon", "--strict"])
def test_extend_without_a_switch_does_not_crash(build: Build, layers: Layers, api: str, option: str) -> None:
    layers.write(ID, extra=EXTEND)
    build.run("restorer", options=(option,), CNB_PLATFORM_API=api).expect(code=0, outcome="no-lookup", reference=ID)


@pytest.mark.parametrize("api", ["0.10", "0.11"])
def test_extend_in_a_registry_build_keeps_the_digest(build: Build, layers: Layers, parts: Parts, api: str) -> None:
    layers.write(parts.name, parts.name, extra=EXTEND)
    build.run("restorer", options=("--no-daemon",), CNB_PLATFORM_API=api, **parts.at).expect(
        code=0, outcome="not-a-daemon-build", reference=parts.digest
    )
    build.run("exporter", "app:1", CNB_PLATFORM_API=api, **parts.at).expect(
        code=0, outcome="passed-through", reference=parts.digest
    )


def test_extend_at_the_exporter(build: Build, layers: Layers, parts: Parts) -> None:
    layers.write(parts.digest, parts.name, extra=EXTEND)
    build.run("exporter", "-daemon", "app:1", **parts.at).expect(code=0, outcome="reverted", reference=parts.id)


# Levels.


@pytest.mark.parametrize("level", ["info", "warn"])
def test_a_name_that_is_kept_in_a_known_daemon_build_is_no_warning(build: Build, layers: Layers, level: str) -> None:
    layers.write("r:1", "r:1")
    phase = build.run("restorer", options=("--daemon",), CNB_LOG_LEVEL=level)
    assert (phase.code, phase.outcome, phase.report["warnings"]) == (0, "kept-name", [])
    assert phase.err.count("\n") == (1 if level == "info" else 0)
    assert "Warning" not in phase.err
