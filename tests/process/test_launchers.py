"""What stands before a phase, and what stands in its place: the build comes out as bare, or better."""

from __future__ import annotations

import os
import shlex
import tomllib

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.launchers import LAUNCHERS, SEEN_THROUGH, drop_in, lay_out, stand_in
from tests.support.layers import GROUP, ID
from tests.support.parts import OTHER_ID, Parts


@pytest.fixture(autouse=True)
def unmeasured(build: Build) -> None:
    """Measuring coverage takes two thirds of the time, and behind any launcher the shim goes the same way."""
    build.unmeasured()


@pytest.mark.parametrize("name", ["env", "env, by its path", "env, with dashes", "sh, as its child"])
@pytest.mark.parametrize("row", ["daemon-build", "unknown", "exporter"])
def test_the_daemon_is_asked_only_if_it_is_known_to_be_the_phase_s(
    unknown: Build, engine: servers.Engine, name: str, row: str
) -> None:
    """A launcher may have another one; `--docker-host` says which."""
    digest = f"r@sha256:{'0' * 64}"
    phase = unknown.phase("exporter" if row == "exporter" else "restorer", rewrites_to=digest * (row == "unknown"))
    command = ("--", *LAUNCHERS[name], str(phase), *("-daemon",) * (row == "exporter"))
    for given in [(), ("--docker-host", engine.url)][: 1 if name in SEEN_THROUGH else 2]:
        unknown.layers.write(digest if row == "exporter" else "r:1", "r:1")
        environ = {"DOCKER_HOST": "unix:///no/such.sock"} if given else {}
        ended = unknown.call(*SHIM, "run", *("--daemon",) * (row == "daemon-build"), *given, *command, **environ)
        asks = bool(given) or name in SEEN_THROUGH
        left, repaired = "r:1" if row == "daemon-build" else digest, "r:1" if row == "unknown" else ID
        ended.expect(code=0, reference=repaired if asks else left)
        assert bool(engine.asked) is asks
        assert ("--docker-host names it" in ended.out) is (not asks and row != "unknown")


@pytest.mark.parametrize("way", ["env {}", "sh -c '{} exec \"$@\"' sh", "nice env {}"])
def test_a_launcher_that_sets_docker_host_has_another_daemon(
    build: Build, parts: Parts, request: pytest.FixtureRequest, way: str
) -> None:
    trap = servers.Engine(str(build.directory / "trap.sock"))
    request.addfinalizer(trap.stop)
    trap.tag(parts.name, f"sha256:{OTHER_ID}")
    build.env |= {"DOCKER_HOST": trap.url, "ANALYZED_SHIM_DAEMON": "true"}
    build.layers.write(parts.name, parts.name)
    command = (*SHIM, "run", "--", *shlex.split(way.format(f"DOCKER_HOST={parts.engine.url}")))
    outcome = "prevented" if way == "env {}" else "kept-name"
    build.call(*command, str(build.lifecycle / "restorer")).expect(code=0, outcome=outcome)
    build.call(*command, str(build.lifecycle / "exporter"), "-daemon", "app:1").expect(code=0)
    assert (trap.asked, parts.registry.asked) == ([], [])
    assert parts.engine.find("app:1") == f"sha256:{parts.id}"


@pytest.mark.parametrize(
    ("before", "given", "known_by"),
    [
        ("", "-group {group}", None),
        ("", "-group={group} -skip-chown", "note"),
        ("env A=b", "--group=/nowhere -group /nowhere --group={group}", "note"),
        ("{launchers}/close-launcher", "-skip-chown -group {group}", "note"),
        ("env CNB_GROUP_PATH=/nowhere CNB_USE_DAEMON=true CNB_LAYERS_DIR={layers}", "-group {group}", "CNB_USE_DAEMON"),
        ("env CNB_GROUP_PATH=/nowhere CNB_GROUP_PATH={group}", "", "note"),
        ("sh -c 'exec \"$@\"' sh", "", "note"),
    ],
)
def test_a_group_that_the_platform_gave_is_replaced_and_the_note_keeps_what_it_says(
    build: Build, before: str, given: str, known_by: str | None
) -> None:
    """And nothing is added to it: the next build in the same layers directory may be another."""
    layers, launchers = build.layers, lay_out(build.directory / "launchers")
    layers.write(ID)
    group = layers.group.rename(build.directory / "elsewhere.toml")
    content, said = group.read_bytes(), {"daemon": True} if known_by == "note" else {}
    layers.note.write_text("daemon = true\n" if said else "")
    phase = stand_in(build, "a fork", "restorer")
    command = f"{before} {phase} {given}".format(group=group, layers=layers.path, launchers=launchers)
    environ = {"CNB_GROUP_PATH": "/nowhere" if "{group}" in before + given else str(group)}
    environ |= {"CNB_LAYERS_DIR": "/nowhere"} if "{layers}" in before else {}
    ended = build.call(*SHIM, "run", "--", *shlex.split(command), **environ)
    ended.expect(code=0, outcome="no-lookup", known_by=known_by)
    assert (group.read_bytes(), tomllib.loads(layers.note.read_text())) == (content, {**said, **tomllib.loads(GROUP)})


@pytest.mark.parametrize("way", ["unnamed", "drop-in", "variable", "PATH"])
def test_the_group_reaches_the_restorer_behind_a_script(build: Build, parts: Parts, way: str) -> None:
    """One of a phase's name, of any kind, is in the random worlds."""
    place = build.directory / "place"
    place.mkdir()
    script = str(stand_in(build, "a shell", "place/restorer.real" if way in ("drop-in", "PATH") else "place/custom.sh"))
    commands = {"unnamed": [*SHIM, "run", "--phase", "restorer", "--", script], "PATH": ["env", "restorer"]}
    command = commands.get(way, [str(drop_in(place / "restorer"))])
    build.env |= {"PATH": f"{place}:{os.environ['PATH']}", "ANALYZED_SHIM_RESTORER": script * (way == "variable")}
    build.layers.write(parts.name, parts.name)
    build.call(*command, CNB_USE_DAEMON="true", **parts.at).expect(outcome="prevented", reference=parts.id)
    build.layers.write(ID)
    build.call(*command).expect(code=0, outcome="no-lookup", reference=ID)
    assert (parts.registry.asked, build.layers.stray()) == ([], set())
