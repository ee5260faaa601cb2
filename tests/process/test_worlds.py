"""Whole builds in random worlds, bare and wrapped, with the stand-in's processes: what works bare works wrapped.

A world is what stands around a build that the shim mustn't mind: launchers, scripts in the restorer's place, the user's
Docker configuration and variables, another daemon that a context or a usual socket leads to, whose the files are, which
phases are wrapped, the restorer alone too. The decisions themselves are gone through in tests/unit/test_never_worse.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from typing import NamedTuple

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.launchers import CLOSES, LAUNCHERS, SEEN_THROUGH, lay_out, stand_in
from tests.support.parts import OTHER_ID, Parts
from tests.support.users import let_in

FIRST, WORLDS = 1400, int(os.environ.get("WORLDS", "40"))
CONFIGS: dict[str, bytes] = {
    "none": b"",
    "not UTF-8": b'{"auths": "\xff"}',
    "a context": b'{"currentContext": "elsewhere"}',
}
VARIABLES: dict[str, dict[str, str]] = {
    "none": {},
    "a context": {"DOCKER_CONTEXT": "elsewhere"},
    "a proxy and authorities": {"HTTP_PROXY": "http://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/nowhere"},
    "another version, and a home that isn't there": {"DOCKER_API_VERSION": "1.41", "HOME": "/nowhere"},
}
MET = ["none", *LAUNCHERS]
STATES = ("pulled", "pulled, and known by digest", "in the daemon only", "in the registry only", "not switched")
FAILS_BARE = ("in the daemon only", "not switched")
WRAPPED: tuple[tuple[str, ...], ...] = (("analyzer", "restorer", "exporter"), ("analyzer", "restorer"))
WRAPPED += (("restorer", "exporter"), ("restorer",), ("exporter",))


class World(NamedTuple):
    launcher: str
    script: str
    config: str
    variables: str
    state: str
    wrapped: tuple[str, ...]
    owner: int
    daemon: bool
    usual: bool
    """The daemon is at the usual socket, and `DOCKER_HOST` isn't set; to the docker CLI a context would count then."""


def draw(number: int) -> World:
    """Draw a world; each launcher comes in turn, at first where a restorer fails that is run as called."""
    dice, root = random.Random(number), not os.getuid()
    while True:
        script, config = dice.choice(["none", *CLOSES]), dice.choice(list(CONFIGS))
        variables, state, wrapped = dice.choice(list(VARIABLES)), dice.choice(STATES), dice.choice(WRAPPED)
        owner, daemon, usual = dice.choice([0, 1000]) * root, dice.random() < 0.75, dice.choice([True, False]) and root
        launcher = MET[number % len(MET)]
        world = World(launcher, script, config, variables, state, wrapped, owner, daemon, usual)
        if number >= FIRST + len(MET) or (state in FAILS_BARE and must_work(world)):
            return world


class Place:
    """A build's directory, its daemon and registry, and the other engine."""

    def __init__(self, world: World, build: Build, parts: Parts, other: servers.Engine) -> None:
        self.world, self.build = world, build
        self.launchers = lay_out(build.directory / "launchers")
        let_in(build.directory)
        is_bare = world.script == "none"
        self.restorer = build.lifecycle / "restorer" if is_bare else stand_in(build, world.script, "restorer")
        meta = build.directory / ".docker" / "contexts" / "meta" / hashlib.sha256(b"elsewhere").hexdigest()
        meta.mkdir(parents=True)
        (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": other.url}}}))
        if CONFIGS[world.config]:
            (build.directory / ".docker" / "config.json").write_bytes(CONFIGS[world.config])
        build.unmeasured()
        self.inside: list[str] = []
        if world.usual:
            mounts = 'mount -t tmpfs none /run; touch /run/docker.sock; mount --bind $0 /run/docker.sock; exec "$@"'
            self.inside = ["unshare", "--mount", "sh", "-ec", mounts, parts.engine.url.removeprefix("unix://")]
            del build.env["DOCKER_HOST"]
        else:
            build.env |= parts.at
        build.env |= {"XDG_RUNTIME_DIR": str(build.directory / "runtime"), **VARIABLES[world.variables]}
        name = f"{parts.registry.host}/run/drawn:1.0"
        build.env |= {"STANDIN_RUN_IMAGE": parts.name, "STANDIN_EXTENSION": "true"}
        build.env |= {"STANDIN_SWITCH": name} if world.state != "not switched" else {}
        if world.state != "in the daemon only":
            parts.registry.push("run/drawn:1.0", parts.image)
        else:
            parts.engine.tag(name, f"sha256:{parts.id}")
        if world.state.startswith("pulled"):
            parts.engine.pull(name)
        if world.state.endswith("by digest"):
            parts.engine.tag(parts.digest.replace("/app@", "/drawn@"), f"sha256:{parts.id}")
        other.tag(name, f"sha256:{OTHER_ID}")

    def play(self, wrapped: tuple[str, ...]) -> tuple[list[int], str]:
        """Play a build, and return each phase's exit status, up to the first that fails, and what the last one said."""
        world, build = self.world, self.build
        shutil.rmtree(build.layers.path)
        build.layers.path.mkdir()
        user = ("-uid", str(world.owner), "-gid", str(world.owner)) if world.owner else ()
        before = [word.replace("LAUNCHERS", str(self.launchers)) for word in LAUNCHERS.get(world.launcher, ())]
        codes, said = [], ""
        for phase in ("analyzer", "detector", "restorer", "exporter"):
            own = (("-daemon",) * world.daemon + ("app:1",)) if phase in ("analyzer", "exporter") else ()
            path = str(self.restorer if phase == "restorer" else build.lifecycle / phase)
            start = [*SHIM, "run", "--"] if phase in wrapped else []
            ended = build.call(*self.inside, *start, *before, path, *user, *own)
            codes.append(ended.code)
            said = "".join(line for line in ended.out.splitlines(True) if not line.startswith("analyzed-shim: "))
            assert "internal error" not in ended.out
            if ended.code:
                break
        return codes, said


def must_work(world: World) -> bool:
    """Return whether the contract promises that a build that fails bare works."""
    if world.state == "not switched":
        return "restorer" in world.wrapped
    if not world.daemon or world.state == "in the registry only":
        return False
    if {"analyzer", "restorer"} <= set(world.wrapped):
        return True
    return world.launcher in SEEN_THROUGH and ("restorer" in world.wrapped or world.state == "pulled")


@pytest.mark.parametrize("number", range(FIRST, FIRST + WORLDS))
def test_what_works_bare_works_wrapped(build: Build, parts: Parts, number: int) -> None:
    world = draw(number)
    (build.directory / "runtime").mkdir()
    other = servers.Engine(str(build.directory / "runtime" / "docker.sock"))
    try:
        place = Place(world, build, parts, other)
        bare, image = place.play(())
        wrapped, image_wrapped = place.play(world.wrapped)
    finally:
        other.stop()
    assert other.asked == [], world
    if not any(bare):
        assert (wrapped, image_wrapped) == (bare, image), world
    elif must_work(world):
        assert not any(wrapped), (world, image_wrapped)
        assert f"*** Images on sha256:{parts.id}:" in image_wrapped or not world.daemon, world
    else:
        assert len(wrapped) >= len(bare), (world, image_wrapped)
    assert build.layers.stray() == set(), world


def test_the_worlds_are_of_all_kinds() -> None:
    """Each state in both kinds of build, and what is wrapped behind what is seen through and what isn't."""
    worlds = [draw(number) for number in range(FIRST, FIRST + 40)]
    assert {world.config for world in worlds} == set(CONFIGS)
    assert {world.variables for world in worlds} == set(VARIABLES)
    assert {(world.state, world.daemon) for world in worlds} == {(s, daemon) for s in STATES for daemon in (0, 1)}
    found = {(world.wrapped, world.launcher in SEEN_THROUGH) for world in worlds}
    assert found == {(wrapped, seen) for wrapped in WRAPPED for seen in (0, 1)}
    assert {must_work(world) for world in worlds if world.wrapped == ("restorer",)} == {True, False}
    assert any(world.usual and "a context" in (world.config, world.variables) for world in worlds) or os.getuid()
    repaired = [world for world in worlds if world.state in FAILS_BARE and must_work(world)]
    assert {world.launcher for world in repaired} == set(MET)
    assert {world.script for world in repaired} == {"none", *CLOSES}
