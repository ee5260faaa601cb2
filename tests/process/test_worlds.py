"""Whole builds in random worlds, bare and wrapped, with the stand-in's processes: what works bare works wrapped.

A world is what stands around a build that the shim mustn't mind: launchers, scripts in the restorer's place, the user's
Docker configuration and variables, another engine that a context or a usual socket leads to, whose the files are. The
decisions themselves are gone through in tests/unit/test_never_worse.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib
import random
import shutil
import sys
from typing import NamedTuple

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.launchers import CLOSES, LAUNCHERS, lay_out
from tests.support.parts import OTHER_ID, Parts
from tests.support.processes import program
from tests.support.users import let_in

FIRST, WORLDS = 1457, int(os.environ.get("WORLDS", "40"))
NOT_UTF8 = base64.b64encode(b"\xff:\xff").decode()
CONFIGS: dict[str, bytes] = {
    "none": b"",
    "a list": b"[]",
    "not UTF-8": b'{"auths": "\xff"}',
    "auths null": b'{"auths": null}',
    "an entry that is a string": b'{"auths": {"HOST": "x"}}',
    "auth null": b'{"auths": {"HOST": {"auth": null}}}',
    "a password that isn't UTF-8": b'{"auths": {"HOST": {"auth": "%s"}}}' % NOT_UTF8.encode(),
    "headers that are numbers": b'{"HttpHeaders": {"A": 5}}',
    "proxies null": b'{"proxies": null}',
    "a helper that isn't there": b'{"credsStore": "nowhere"}',
    "a context": b'{"currentContext": "elsewhere"}',
}
VARIABLES: dict[str, dict[str, str]] = {
    "none": {},
    "a context": {"DOCKER_CONTEXT": "elsewhere"},
    "verified": {"DOCKER_TLS_VERIFY": "1"},
    "a proxy": {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
    "other authorities": {"REQUESTS_CA_BUNDLE": "/nowhere", "CURL_CA_BUNDLE": "/nowhere"},
    "another version": {"DOCKER_API_VERSION": "1.41"},
    "a home that isn't there": {"HOME": "/nowhere"},
}
STATES = ("pulled", "pulled, and known by digest", "in the daemon only", "in the registry only", "not switched")
WRAPPED = (("analyzer", "restorer", "exporter"), ("restorer", "exporter"), ("exporter",))


class World(NamedTuple):
    """What is drawn."""

    launcher: str
    script: str
    config: str
    variables: str
    state: str
    owner: int
    policy: str
    wrapped: tuple[str, ...]
    usual: bool
    """The daemon is at the usual socket, and `DOCKER_HOST` isn't set; to the docker CLI a context would count then."""


def draw(number: int) -> World:
    chosen = random.Random(number)
    return World(
        launcher=chosen.choice(["none", *(name for name in LAUNCHERS if name != "env, emptied")]),
        script=chosen.choice(["none", *CLOSES]),
        config=chosen.choice(list(CONFIGS)),
        variables=chosen.choice(list(VARIABLES)),
        state=chosen.choice(STATES),
        owner=chosen.choice([0, 1000]) * (os.getuid() == 0),
        policy=chosen.choice(["", "if-not-present", "always"]),
        wrapped=chosen.choice(WRAPPED),
        usual=chosen.choice([True, False]) and os.getuid() == 0,
    )


class Place:
    """A build's directory, its daemon and registry, and the other engine."""

    def __init__(self, world: World, build: Build, parts: Parts, other: servers.Engine) -> None:
        self.world, self.build, self.parts = world, build, parts
        self.name = self._name()
        self.launchers = lay_out(build.directory / "launchers")
        let_in(build.directory)
        (build.directory / "phases").mkdir()
        if world.script != "none":
            text = CLOSES[world.script].format(python=sys.executable, real=str(build.lifecycle / "restorer"))
            program(build.directory / "phases" / "restorer", text)
        docker = build.directory / ".docker"
        meta = docker / "contexts" / "meta" / hashlib.sha256(b"elsewhere").hexdigest()
        meta.mkdir(parents=True)
        (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": other.url}}}))
        if CONFIGS[world.config]:
            (docker / "config.json").write_bytes(CONFIGS[world.config].replace(b"HOST", parts.registry.host.encode()))
        build.unmeasured()
        self.inside: list[str] = []
        if world.usual:
            mounts = "mount -t tmpfs none /run; touch /run/docker.sock; mount --bind $0 /run/docker.sock"
            socket = parts.engine.url.removeprefix("unix://")
            self.inside = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', socket]
            del build.env["DOCKER_HOST"]
        else:
            build.env |= parts.at
        build.env |= {"XDG_RUNTIME_DIR": str(build.directory / "runtime"), **VARIABLES[world.variables]}
        build.env |= {"STANDIN_RUN_IMAGE": parts.name, "STANDIN_EXTENSION": "true"}
        if world.state != "not switched":
            build.env["STANDIN_SWITCH"] = self.name

    def _name(self) -> str:
        """Bring the daemon and the registry into the state, and return the run image's name."""
        engine, registry = self.parts.engine, self.parts.registry
        name = f"{registry.host}/run/drawn:1.0"
        if self.world.state == "in the daemon only":
            engine.tag(name, f"sha256:{self.parts.id}")
            return name
        registry.push("run/drawn:1.0", self.parts.image)
        if self.world.state.startswith("pulled"):
            engine.pull(name)
        if self.world.state.endswith("by digest"):
            digest = self.parts.digest.partition("@")[2]
            engine.tag(f"{registry.host}/run/drawn@{digest}", f"sha256:{self.parts.id}")
        return name

    def play(self, wrapped: tuple[str, ...]) -> tuple[list[int], str]:
        """Play a build, and return each phase's exit status, up to the first that fails, and what the last one said."""
        world, build = self.world, self.build
        shutil.rmtree(build.layers.path)
        build.layers.path.mkdir()
        os.chown(build.layers.path, world.owner, world.owner)
        user = ("-uid", str(world.owner), "-gid", str(world.owner)) if world.owner else ()
        launcher = LAUNCHERS.get(world.launcher, ())
        before = [word.replace("LAUNCHERS", str(self.launchers)) for word in launcher]
        codes, said = [], ""
        for phase in ("analyzer", "detector", "restorer", "exporter"):
            own = ("-daemon", "app:1") if phase in ("analyzer", "exporter") else ()
            scripted = phase == "restorer" and world.script != "none"
            path = build.directory / "phases" / phase if scripted else build.lifecycle / phase
            start = [*SHIM, "run", "--"] if phase in wrapped else []
            policy = {"ANALYZED_SHIM_PULL_POLICY": world.policy} if world.policy else {}
            ended = build.call(*self.inside, *start, *before, str(path), *user, *own, **policy)
            codes.append(ended.code)
            said = ended.out if ended.code == 0 else ended.err
            if ended.code:
                break
        return codes, said


@pytest.mark.parametrize("number", range(FIRST, FIRST + WORLDS))
def test_what_works_bare_works_wrapped(build: Build, parts: Parts, tmp_path: pathlib.Path, number: int) -> None:
    world = draw(number)
    (tmp_path / "runtime").mkdir()
    other = servers.Engine(str(tmp_path / "runtime" / "docker.sock"))
    try:
        place = Place(world, build, parts, other)
        other.tag(place.name, f"sha256:{OTHER_ID}")
        bare, image = place.play(())
        wrapped, image_wrapped = place.play(world.wrapped)
    finally:
        other.stop()
    assert other.asked == [], world
    if not any(bare):
        assert (wrapped, image_wrapped) == (bare, image), world
    elif "analyzer" in world.wrapped and (world.state != "in the registry only" or world.policy):
        assert not any(wrapped), (world, image_wrapped)
        assert f"*** Images on sha256:{parts.id}:" in image_wrapped, world
    else:
        assert len(wrapped) >= len(bare), (world, image_wrapped)
    assert build.layers.stray() == set(), world


def test_the_worlds_are_of_all_kinds() -> None:
    """Each state with each first wrapped phase, and each choice of the others but for the launchers, of which most."""
    worlds = [draw(number) for number in range(FIRST, FIRST + 40)]
    assert {world.script for world in worlds} >= set(CLOSES)
    assert {world.config for world in worlds} == set(CONFIGS)
    assert {world.variables for world in worlds} == set(VARIABLES)
    assert {(world.state, world.wrapped[0]) for world in worlds} == {(s, w[0]) for s in STATES for w in WRAPPED}
    assert any(world.usual and "a context" in (world.config, world.variables) for world in worlds) or os.getuid()
    assert len({world.launcher for world in worlds}) > 12
