"""Never worse than the bare phases: a model of the world, without a look at the rows.

A world is what is true and what can be seen of it: which build it is, what the daemon and the registry have, how the
restorer can reach the daemon, what the build type is known by, and what is started in the restorer's place. In each, a
build is played twice, bare and wrapped, by what real phases were measured to do with a reference; of the shim only its
decisions are played, by its own loop, with the facts that it would gather.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from shim.policy import settle
from shim.policy.evidence import Clues, weigh
from shim.policy.facts import Facts
from shim.policy.row import Step
from shim.record import Record

NAME, DIGEST, EMPTY = "name", "digest", "empty"
MINE, OTHER = "mine", "other"
"""Images: the one that the daemon has under the name, and another one."""


class World(NamedTuple):
    """What is true, and how much of it can be seen."""

    daemon_build: bool
    old: bool
    """Lifecycle 0.17, which leaves the reference empty."""
    switched: bool
    in_daemon: bool
    """The daemon has an image under the name."""
    in_registry: str | None
    """The image that the registry has under the name."""
    digest_known: bool
    """The daemon knows the registry's image of the same content by its digest, as Podman does."""
    platform: str
    """What it pulls by itself: nothing; `then` what it finds as the reference after the restorer; or `first` the name,
    and then a digest, as the Java client does."""
    socket: str
    """What the restorer finds of the daemon."""
    told: str
    """Whether something tells which build it is: `rightly`, `wrongly` (a note of an earlier build), or `not`."""
    policy: Any
    program: str
    """What is started: `restorer`, behind a known launcher or not; or `other`, an unknown launcher that takes a flag of
    the restorer's for its own and fails."""
    breaks: bool
    """The restorer fails, whatever is done."""
    writable: bool
    """The shim can write analyzed.toml, which the restorer can: its owner, mode or mount may forbid it later."""


class Broken(Exception):
    """The build ends here."""


def worlds() -> Iterator[World]:
    yes_no = (False, True)
    kinds: tuple[tuple[Any, ...], ...] = (
        *(yes_no, yes_no, yes_no, yes_no, (None, MINE, OTHER), yes_no, ("nothing", "then", "first")),
        *(("answers", "absent", "denied", "silent"), ("rightly", "wrongly", "not")),
        *(("never", "if-not-present", "always"), ("restorer", "other"), yes_no, yes_no),
    )
    for world in itertools.starmap(World, itertools.product(*kinds)):
        if world.policy == "never" and world.platform != "nothing":
            continue  # it says two things
        if world.digest_known and not (world.in_daemon and world.in_registry == MINE):
            continue  # a digest of what?
        yield world


class Build:
    """One build under way."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemon: dict[str, str] = {}
        if world.in_daemon:
            self.daemon[NAME] = self.daemon[f"id of {MINE}"] = MINE
        if world.digest_known:
            self.daemon[DIGEST] = MINE
        self.reference = (EMPTY if world.old else NAME) if world.switched else "id of base"
        self.daemon["id of base"] = "base"
        self.asked_to_pull = 0
        if world.platform == "first":
            self._have(NAME)

    def _have(self, reference: str) -> None:
        """Have the daemon pull from the registry."""
        if self.world.in_registry:
            self.daemon[reference] = self.daemon[f"id of {self.world.in_registry}"] = self.world.in_registry

    # What real phases do.

    def restorer(self, lookup: bool = True) -> None:
        if lookup and not self.world.old:
            if not self.world.switched or self.world.in_registry is None:
                raise Broken
            self.reference = DIGEST
        if self.world.breaks:
            raise Broken

    def platform(self) -> None:
        if self.reference in {"nothing": (), "then": (NAME, DIGEST), "first": (DIGEST,)}[self.world.platform]:
            self._have(self.reference)

    def exporter(self) -> str:
        """Return the image that the app stands on."""
        if self.world.daemon_build:
            if self.reference not in self.daemon:
                raise Broken
            return self.daemon[self.reference]
        if not self.world.switched:
            return "base"
        if self.reference in (NAME, DIGEST) and self.world.in_registry:
            return self.world.in_registry
        raise Broken

    def pull(self) -> None:
        self.asked_to_pull += 1
        self._have(NAME)

    # What the shim does.

    def wrapped(self, phase: str, facts: Facts, socket: str) -> None:
        """Play the shim in front of a phase: settle, and do what the end says."""
        seen, end = settle(Seen(facts=facts), Shim(self, self.reference, socket))
        if end.write != "nothing" and self.world.writable:  # else it warns, and the build goes on
            self.reference = NAME if end.write == "name" else f"id of {self.daemon[NAME]}"
        if end.finish == "refuse" or (end.finish == "return" and seen.facts.status != "succeeded"):
            raise Broken
        if end.finish == "exec" and phase == "restorer":
            self.start_restorer(end.lookup)

    def start_restorer(self, lookup: bool) -> None:
        if not lookup and self.world.program == "other":
            raise Broken
        self.restorer(lookup)


class Seen(Record):
    facts: Facts


class Shim:
    """The world of the shim's loop in a build of the model."""

    def __init__(self, build: Build, before: str, socket: str) -> None:
        self.build = build
        self.before = before
        self.socket = socket

    def do(self, step: Step, seen: Seen) -> Seen:
        facts, build = seen.facts, self.build
        if step.action == "run":
            return Seen(facts=self._run(step, facts))
        if step.action == "ask-name":
            return Seen(facts=facts.but(daemon=self._answer()))
        if step.action == "ask-reference":
            found, mine = build.daemon.get(build.reference), build.daemon.get(NAME)
            return Seen(facts=facts.but(resolves="nowhere" if found is None else "same" if found == mine else "other"))
        build.pull()
        return Seen(facts=facts.but(pull_tried=True, daemon=self._answer()))

    def _answer(self) -> str:
        return "silent" if self.socket == "silent" else "has" if NAME in self.build.daemon else "lacks"

    def _run(self, step: Step, facts: Facts) -> Facts:
        was = self.build.reference
        try:
            self.build.start_restorer(step.lookup)
            status = "succeeded"
        except Broken:
            status = "failed"
        after = self.build.reference
        facts = facts.but(
            run="as-called" if step.lookup else "without-lookup",
            status=status,
            retried=facts.run != "none",
            reference=kind(after),
            rewritten=after != self.before,
            touched=after != was,
        )
        return facts.but(daemon=self._answer()) if step.asks else facts


def kind(reference: str) -> Any:
    return "id" if reference.startswith("id of") else reference


def bare(world: World) -> str:
    build = Build(world)
    build.restorer()
    build.platform()
    return build.exporter()


def wrapped(world: World, phases: tuple[str, ...]) -> tuple[str, Build]:
    build = Build(world)
    note = {"rightly": world.daemon_build, "wrongly": not world.daemon_build, "not": None}[world.told]
    clues = Clues(note=note, policy_given=world.told == "rightly" and world.daemon_build)
    if "restorer" in phases:
        facts = Facts(
            phase="restorer",
            named=world.program == "restorer",
            image=world.switched,
            reference=kind(build.reference),
            build=weigh(clues)[0],
            pull_policy=world.policy,
        )
        facts = facts if world.socket in ("answers", "silent") else facts.but(daemon=world.socket)
        build.wrapped("restorer", facts, world.socket)
    else:
        build.restorer()
    build.platform()
    if "exporter" in phases:
        facts = Facts(phase="exporter", image=world.switched, reference=kind(build.reference))
        build.wrapped("exporter", facts.but(build="daemon" if world.daemon_build else "registry"), "answers")
    return build.exporter(), build


def outcome(world: World, phases: tuple[str, ...]) -> str | None:
    try:
        return wrapped(world, phases)[0]
    except Broken:
        return None


def works_bare(world: World) -> bool:
    try:
        bare(world)
    except Broken:
        return False
    return True


WORLDS = list(worlds())


def test_there_are_many_worlds_and_bare_builds_fail_in_many_and_work_in_many() -> None:
    works = sum(map(works_bare, WORLDS))
    assert len(WORLDS) > 18_000
    assert 3_000 < works < len(WORLDS) - 3_000


def test_what_works_bare_works_with_all_phases_wrapped_and_with_the_exporter_alone() -> None:
    """Also where it is told wrongly, but for `never`, which forbids such a build before anything runs."""
    for phases in (("restorer", "exporter"), ("exporter",)):
        for world in filter(works_bare, WORLDS):
            if world.told != "wrongly" or world.policy != "never" or phases == ("exporter",):
                assert outcome(world, phases) is not None, (phases, world)


def test_with_the_restorer_alone_only_a_guess_or_a_wrong_word_is_worse_and_only_in_a_registry_build() -> None:
    """By the contract: where nothing tells and the daemon has the image, a registry build may be taken for likely."""
    worse = [world for world in filter(works_bare, WORLDS) if outcome(world, ("restorer",)) is None]
    assert {world.told for world in worse} == {"not", "wrongly"}, "else the exceptions in the docs are out of date"
    for world in worse:
        assert not world.daemon_build, world
        assert world.socket == "answers", world
        assert world.in_daemon or world.platform == "first" or world.told == "wrongly", world


def test_a_daemon_build_that_can_work_does_and_on_the_daemon_s_own_image() -> None:
    """With all phases wrapped, and where the name is in the daemon."""
    for world in WORLDS:
        if world.told == "wrongly":
            continue
        if not world.writable and (world.told == "not" or world.old or world.program == "other"):
            continue  # what the restorer wrote stays; without its lookup that is the name
        can_be_seen = world.told == "rightly" or world.socket in ("answers", "denied")
        if not world.daemon_build or not world.switched or not world.in_daemon or world.breaks or not can_be_seen:
            continue
        if world.program == "other" and world.in_registry is None:
            continue  # nothing can keep the lookup from it
        moved = world.told == "rightly" and world.policy == "always" and world.socket == "answers"
        moved |= world.platform == "first" or (
            world.platform == "then" and not (world.socket == "answers" and world.writable)
        )
        image = outcome(world, ("restorer", "exporter"))
        assert image == (world.in_registry if moved and world.in_registry else MINE), world


def test_an_extension_that_switches_nothing_never_crashes_the_restorer() -> None:
    for world in WORLDS:
        if not world.switched and not world.breaks and world.program == "restorer":
            assert outcome(world, ("restorer",)) == "base", world


def test_a_registry_build_that_is_told_ends_as_the_bare_one() -> None:
    for world in filter(works_bare, WORLDS):
        if not world.daemon_build and world.told == "rightly":
            image, build = wrapped(world, ("restorer", "exporter"))
            assert (image, build.asked_to_pull) == (bare(world), 0), world


def test_nothing_is_pulled_in_an_unknown_build_or_under_never() -> None:
    for world in WORLDS:
        if world.told != "not" and world.policy != "never":
            continue
        try:
            _, build = wrapped(world, ("restorer", "exporter"))
        except Broken:
            continue
        assert build.asked_to_pull == 0, world
