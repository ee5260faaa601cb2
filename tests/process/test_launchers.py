"""What stands before a phase, and what stands in its place: the build comes out as bare, or better."""

from __future__ import annotations

import os
import pathlib
import shlex
import tomllib
from collections.abc import Iterator

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.launchers import CLOSES, LAUNCHERS, SEEN_THROUGH, drop_in, lay_out, stand_in
from tests.support.layers import GROUP, ID, Layers
from tests.support.parts import OTHER_ID, Parts

KNOWN = {"ANALYZED_SHIM_DAEMON": "true"}


@pytest.fixture(autouse=True)
def launchers(tmp_path: pathlib.Path, build: Build, layers: Layers) -> pathlib.Path:
    build.unmeasured()  # it takes half of the time, and behind any launcher the shim goes the same way
    return lay_out(tmp_path / "launchers")


@pytest.fixture
def trap(build: Build, tmp_path: pathlib.Path) -> Iterator[servers.Engine]:  # which the phase needn't get
    engine = servers.Engine(str(tmp_path / "trap.sock"))
    build.env["DOCKER_HOST"] = engine.url
    yield engine
    engine.stop()


def launched(build: Build, name: str, phase: str | pathlib.Path, *arguments: str) -> list[str]:
    """Return the command of a phase behind a launcher."""
    launcher = list(LAUNCHERS[name])
    if name == "env, emptied":  # it sees only what it is given
        launcher += [f"{key}={build.env[key]}" for key in ("PATH", "DOCKER_HOST", "CNB_PLATFORM_API", "CNB_LAYERS_DIR")]
    start = [word.replace("LAUNCHERS", str(build.directory / "launchers")) for word in launcher]
    return [*start, str(build.lifecycle / phase), *arguments]


# All of them in the two states in which a restorer fails that is run as called; of each kind one in the other two.
STATES = [(name, switch) for name in LAUNCHERS for switch in ("in the daemon only", "none")]
STATES += [(name, switch) for name in ("env", "sh, as its child") for switch in ("pulled", "in the registry only")]


@pytest.mark.parametrize(("name", "switch"), STATES)
def test_a_daemon_build_comes_out_as_bare_or_better(
    build: Build, layers: Layers, parts: Parts, name: str, switch: str
) -> None:
    build.env |= parts.at
    image = parts.name
    if switch == "in the daemon only":
        image = f"{parts.registry.host}/run/local:1.0"
        parts.engine.tag(image, f"sha256:{parts.id}")
    elif switch == "in the registry only":
        image = parts.registry.push("run/remote:1.0", parts.image)

    def play(*start: str) -> list[int]:
        layers.write(parts.id, None) if switch == "none" else layers.write(image, image)
        layers.note.write_text("daemon = true\n")
        codes = [build.call(*start, *launched(build, name, "restorer")).code]
        return codes if codes[0] else [0, build.call(*launched(build, name, "exporter", "-daemon", "app:1")).code]

    bare, wrapped = play(), play(*SHIM, "run", "--")
    right = switch != "in the registry only" and name != "env, emptied"
    assert wrapped == ([0, 0] if right else bare)
    if right:
        assert layers.reference == (parts.id if name in SEEN_THROUGH or switch == "none" else image)
    assert layers.stray() == set()


@pytest.mark.parametrize("name", ["env", "env, by its path", "env, with dashes", "sh, as its child"])
@pytest.mark.parametrize("row", ["daemon-build", "unknown", "exporter"])
def test_the_daemon_is_asked_only_if_it_is_known_to_be_the_phase_s(
    build: Build, layers: Layers, trap: servers.Engine, name: str, row: str
) -> None:
    """A launcher may have another one; `--docker-host` says which."""
    trap.tag("r:1", f"sha256:{ID}")
    digest = f"r@sha256:{'0' * 64}"
    phase = build.phase("exporter" if row == "exporter" else "restorer", rewrites_to=digest * (row == "unknown"))
    options = ("--daemon",) * (row == "daemon-build")
    repaired = "r:1" if row == "unknown" else ID
    for given in [(), ("--docker-host", trap.url)][: 1 if name in SEEN_THROUGH else 2]:
        layers.write(digest if row == "exporter" else "r:1", "r:1")
        command = launched(build, name, phase, *(("-daemon",) if row == "exporter" else ()))
        asks = bool(given) or name in SEEN_THROUGH
        environ = {"DOCKER_HOST": f"unix://{build.directory}/none"} if given else {}
        ended = build.call(*SHIM, "run", *options, *given, "--", *command, **environ).expect(
            code=0, reference=repaired if asks else "r:1" if row == "daemon-build" else digest
        )
        assert bool(trap.asked) is asks
        assert ("--docker-host names it" in ended.out) is (not asks and row != "unknown")


@pytest.mark.parametrize("way", ["env", "sh", "env of another"])
def test_a_launcher_that_sets_docker_host_has_another_daemon(
    build: Build, layers: Layers, trap: servers.Engine, parts: Parts, way: str
) -> None:
    trap.tag(parts.name, f"sha256:{OTHER_ID}")
    setting = f"DOCKER_HOST={parts.engine.url}"
    start = {"env": ["env", setting], "sh": ["sh", "-c", f'{setting} exec "$@"', "sh"]}.get(
        way, ["nice", "env", setting]
    )
    layers.write(parts.name, parts.name)
    command = (*SHIM, "run", "--", *start)
    outcome = "prevented" if way == "env" else "kept-name"
    build.call(*command, str(build.lifecycle / "restorer"), **KNOWN).expect(code=0, outcome=outcome)
    build.call(*command, str(build.lifecycle / "exporter"), "-daemon", "app:1").expect(code=0)
    assert (trap.asked, parts.registry.asked) == ([], [])
    assert parts.engine.find("app:1") == f"sha256:{parts.id}"


@pytest.mark.parametrize("name", ["env", "sh, as its child", "one that knows its own options only"])
def test_an_analyzer_leaves_the_note_and_a_registry_build_its_digest(
    build: Build, layers: Layers, parts: Parts, name: str
) -> None:
    build.env |= parts.at
    for daemon in (True, False):
        arguments = (*(("-daemon",) if daemon else ()), "-run-image", parts.name, "app:1")
        build.call(*SHIM, "run", "--", *launched(build, name, "analyzer", *arguments)).expect(code=0, outcome="noted")
        assert tomllib.loads(layers.note.read_text()) == {"daemon": daemon}
    layers.write(parts.name, parts.name)
    parts.engine.asked.clear()
    for phase in ("restorer", "exporter"):
        build.call(*SHIM, "run", "--", *launched(build, name, phase)).expect(code=0, reference=parts.digest)
    assert parts.engine.asked == []


def test_the_variables_are_the_ones_that_env_sets(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    phase = str(build.lifecycle / "restorer")
    run = (*SHIM, "run", "--", "env")
    layers.write(ID)
    build.call(*run, "CNB_PLATFORM_API=0.9", phase).expect(code=0, outcome="passed-through")
    build.call(*run, f"CNB_LAYERS_DIR={layers.path}", phase, CNB_LAYERS_DIR=str(tmp_path)).expect(outcome="no-lookup")
    layers.write("r:1", "r:1")
    build.call(*run, "CNB_USE_DAEMON=true", phase).expect(outcome="kept-name", known_by="CNB_USE_DAEMON")


@pytest.mark.parametrize(
    ("before", "given"),
    [
        ("", "-group {group}"),
        ("", "-group={group} -skip-chown"),
        ("env A=b", "--group=/nowhere -group /nowhere --group={group}"),
        ("LAUNCHERS/close-launcher", "-skip-chown -group {group}"),
        ("env CNB_GROUP_PATH=/nowhere", "-group {group}"),
        ("env CNB_GROUP_PATH=/nowhere CNB_GROUP_PATH={group}", ""),
        ("sh -c 'exec \"$@\"' sh", ""),
    ],
)
def test_a_group_that_the_platform_gave_is_replaced_and_the_note_keeps_what_it_says(
    build: Build, layers: Layers, tmp_path: pathlib.Path, launchers: pathlib.Path, before: str, given: str
) -> None:
    """And nothing is added to it: the next build in the same layers directory may be another."""
    layers.write(ID)
    group = layers.group.rename(tmp_path / "elsewhere.toml")
    content, said = group.read_bytes(), {"daemon": True} if before else {}
    layers.note.write_text("daemon = true\n" if said else "")
    phase = stand_in(build, "a fork", "restorer")
    command = f"{before} {phase} {given}".replace("LAUNCHERS", str(launchers)).format(group=group)
    environ = {"CNB_GROUP_PATH": "/nowhere" if "{group}" in before + given else str(group), **KNOWN}
    build.call(*SHIM, "run", "--", *shlex.split(command), **environ).expect(code=0, outcome="no-lookup")
    assert (group.read_bytes(), tomllib.loads(layers.note.read_text())) == (content, {**said, **tomllib.loads(GROUP)})


@pytest.mark.parametrize(
    ("kind", "way"),
    [*((kind, "named") for kind in CLOSES), *(("a shell", way) for way in ("unnamed", "drop-in", "variable", "PATH"))],
)
def test_the_group_reaches_the_restorer_behind_a_script(
    build: Build, layers: Layers, parts: Parts, kind: str, way: str
) -> None:
    name = "restorer" if way == "named" else "custom.sh" if way in ("unnamed", "variable") else "restorer.real"
    (build.directory / "place").mkdir()
    script = str(stand_in(build, kind, f"place/{name}"))
    environ = {"ANALYZED_SHIM_RESTORER": script} if way == "variable" else {}
    if way in ("named", "unnamed"):
        command = [*SHIM, "run", *(("--phase", "restorer") if way == "unnamed" else ()), "--", script]
    else:
        place = drop_in(build.directory / "place" / "restorer")
        command = ["restorer" if way == "PATH" else str(place)]
        environ["PATH"] = f"{place.parent}:{os.environ['PATH']}"
    command = ["env", *command, *(("-skip-chown",) if kind == "a fork" else ())]
    layers.write(parts.name, parts.name)
    build.call(*command, CNB_USE_DAEMON="true", **parts.at, **environ).expect(outcome="prevented", reference=parts.id)
    layers.write(ID)
    build.call(*command, **environ).expect(code=0, outcome="no-lookup", reference=ID)
    assert (parts.registry.asked, layers.stray()) == ([], set())
