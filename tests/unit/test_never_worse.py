"""Never worse than the bare phases (Law 2): a model of the world, without a look at the rows.

A world is what is true and what can be seen of it. In each, a build is played bare and wrapped, by what real phases
were measured to do with a reference; of the shim only its decisions are played, with what it would see.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from shim import policy
from shim.policy import Found, Row

NAME, DIGEST, EMPTY = "name", "name@sha256:digest", ""
MINE, NEWER, FOREIGN, HOLLOW, BASE = "mine", "newer", "foreign", "hollow", "base"
# Images: the daemon's, another of the same name, one for another platform, an index without content, the builder's own.


class World(NamedTuple):
    """What is true, and how much of it can be seen."""

    daemon_build: bool
    old: bool  # lifecycle 0.17, which does no lookup and leaves the reference empty
    switched: bool
    in_daemon: str | None
    in_registry: str | None
    digest_known: bool  # the daemon resolves the digest reference of its image by that name, as Podman does
    before: str  # what the platform pulls by name before the restorer: nothing, if absent, always
    after: str  # what it pulls after it: nothing, the reference, the reference if it has a digest, the name
    socket: str  # "answers" the shim always, only at the restorer ("once"), only at the exporter ("denied"), or never
    said: str  # --daemon or --no-daemon at the restorer, "rightly" or "wrongly"; a variable; nothing
    breaks: str  # the restorer fails, whatever is done: before ("early") or after ("late") it writes
    file_writable: bool  # the shim can write analyzed.toml, as the restorer can
    note_writable: bool


class BrokenBuild(Exception):
    """The build ends here."""


YES_NO = (True, False)
SOCKETS = ("answers", "once", "denied", "silent")
SAID = ("", "rightly", "wrongly", "CNB_USE_DAEMON=true", "CNB_USE_DAEMON=false")
PULLS = [*itertools.product(("nothing", "if absent", "always"), ("nothing", "reference", "digest", "name"))]
IMAGES = [*itertools.product((None, MINE, FOREIGN, HOLLOW), (None, MINE, NEWER, FOREIGN), (False,)), (MINE, MINE, True)]
FAILURES = [*itertools.product(("", "early", "late"), YES_NO, YES_NO)]


def worlds() -> Iterator[World]:
    for daemon_build, old, switched in itertools.product(YES_NO, YES_NO, YES_NO):
        for pull in PULLS if daemon_build else PULLS[:1]:
            of_them = FAILURES if pull == PULLS[0] else FAILURES[:4]
            for image, socket, word, failure in itertools.product(IMAGES, SOCKETS, SAID, of_them):
                values: tuple[Any, ...] = (daemon_build, old, switched, *image, *pull, socket, word, *failure)
                yield World(*values)


class Build:
    """One build under way."""

    def __init__(self, world: World, wrapped: tuple[str, ...] = ()) -> None:
        self.world = world
        self.wrapped = wrapped
        self.daemon = {f"id of {BASE}": BASE}
        if world.in_daemon:
            self.daemon[NAME] = self.daemon[f"id of {world.in_daemon}"] = world.in_daemon
        if world.digest_known:
            self.daemon[DIGEST] = MINE
        self.reference = (EMPTY if world.old else NAME) if world.switched else f"id of {BASE}"
        self.named: set[str | None] = set()  # what the daemon had under the name from the restorer on
        self.asked: list[str] = []

    def play(self) -> str:
        """Return the image that the app stands on."""
        if self.world.before == "always" or (self.world.before == "if absent" and NAME not in self.daemon):
            self._pull(NAME)
        self.named.add(self.daemon.get(NAME))
        self._wrapped_restorer() if "restorer" in self.wrapped else self._restorer()
        after = {"nothing": EMPTY, "name": NAME, "reference": self.reference}
        after["digest"] = self.reference if self.reference == DIGEST else EMPTY
        if after[self.world.after] in (NAME, DIGEST):  # an ID can't be pulled, and nobody minds
            self._pull(after[self.world.after])
        self.named.add(self.daemon.get(NAME))
        if "exporter" in self.wrapped and self.world.daemon_build and self.world.switched:
            row, found = policy.exporter(self.reference, NAME, self._look("answers", "denied"))
            self._write(policy.filled(row, self.reference, NAME), found)
        return self._exporter()

    def _pull(self, reference: str) -> None:
        if image := self.world.in_registry:
            self.daemon[reference] = self.daemon[f"id of {image}"] = image

    # What real phases do.

    def _restorer(self, lookup: bool = True) -> None:
        world = self.world
        if world.breaks == "early":
            raise BrokenBuild
        if lookup and not world.old:
            if not world.switched:
                raise BrokenBuild
            if world.said == "CNB_USE_DAEMON=true" and world.socket in ("answers", "once"):
                if NAME not in self.daemon:
                    raise BrokenBuild
                self.reference = f"id of {self.daemon[NAME]}"
            elif world.in_registry is None:
                raise BrokenBuild
            else:
                self.reference = DIGEST
        if world.breaks == "late":
            raise BrokenBuild

    def _exporter(self) -> str:
        if self.world.daemon_build:
            if self.daemon.get(self.reference, HOLLOW) == HOLLOW:
                raise BrokenBuild
            return self.daemon[self.reference]
        if not self.world.switched:
            return BASE
        if self.reference in (NAME, DIGEST) and self.world.in_registry:
            return self.world.in_registry
        raise BrokenBuild

    # What the shim does around them, by its decisions.

    def _wrapped_restorer(self) -> None:
        world, before = self.world, self.reference
        option = {"rightly": world.daemon_build, "wrongly": not world.daemon_build}.get(world.said)
        note = world.daemon_build if "analyzer" in self.wrapped and world.note_writable else None
        variable, equals, value = world.said.partition("=")
        known, _ = policy.build_type(option, note, {variable: value} if equals else {})
        look, image = self._look("answers", "once"), NAME if world.switched else ""
        row, found = policy.restorer(world.switched, known, image or before, look)
        row = policy.filled(row, before, image)
        if not row.child:
            return self._finish(row, found)
        self._write(row, policy.UNASKED)
        was = self.reference
        try:
            self._restorer()
        except BrokenBuild:
            if self.reference != was or world.breaks == "late":
                raise
            row, found = policy.after_restorer(True, was, was, NAME, look)
            if row.lookup or not world.note_writable:
                raise
            return self._finish(row, found)
        row, found = policy.after_restorer(False, was, self.reference, NAME, look)
        return self._write(row, found)

    def _finish(self, row: Row, found: Found) -> None:
        lookup = row.lookup or not self.world.note_writable
        self._write(policy.NOT_WRITTEN if lookup and not row.lookup else row, found)
        self._restorer(lookup)

    def _write(self, row: Row, found: Found) -> None:
        if row.write and self.world.file_writable:
            self.reference = found.image_id if row.write == "id" else NAME

    def _look(self, *answering: str) -> policy.Look:
        def look(reference: str) -> Found:
            assert reference, "nobody can be asked for nothing"
            self.asked.append(reference)
            if self.world.socket not in answering:
                return Found("silent", detail="permission denied")
            image = self.daemon.get(reference)
            if image in (FOREIGN, HOLLOW):
                return Found("lacks", own="linux/amd64", other="linux/arm64")
            return Found("has", f"id of {image}") if image else Found("lacks")

        return look


WORLDS = list(worlds())
ALL, ALONE = ("analyzer", "restorer", "exporter"), ("restorer",)
WAYS = [ALL, ALONE, ("exporter",), ("analyzer", "restorer"), ("restorer", "exporter")]


def ended(world: World, wrapped: tuple[str, ...] = ()) -> tuple[str, int]:
    """Return the image that the app stands on, and how good that is; 0: the build fails."""
    build = Build(world, wrapped)
    try:
        image = build.play()
    except BrokenBuild:
        return "", 0
    return image, 1 if image == FOREIGN else 3 if image in build.named else 2


@cache
def works_bare() -> list[tuple[World, str, int]]:
    return [(world, image, good) for world in WORLDS for image, good in (ended(world),) if good]


@cache
def worse(way: tuple[str, ...]) -> list[World]:
    then = {world: ended(world, way) for world, _, _ in works_bare()}
    return [
        world
        for world, image, good in works_bare()
        if (then[world][1] < good if world.daemon_build else then[world][0] != image)
    ]


# What the contract exempts.


def is_said_wrongly(world: World) -> bool:
    return world.said == "wrongly"


def nobody_could_see(world: World) -> bool:
    """The name is there for another platform and the restorer had no socket; or it comes to be after the restorer."""
    foreign = world.in_daemon in (FOREIGN, HOLLOW) and (world.before != "always" or not world.in_registry)
    comes_later = world.in_registry == FOREIGN and world.after != "nothing" and not world.file_writable
    return world.daemon_build and ((foreign and world.socket in ("denied", "silent")) or comes_later)


def no_platform_does(world: World) -> bool:
    """A platform that pulls a digest reference after the restorer, and the name never, though the daemon lacks it.

    The Java client, which pulls nothing but digests there, pulls the name before (FACTS.md).
    """
    pulls = (world.before, world.after) == ("nothing", "digest")
    return pulls and not world.in_daemon and world.socket in ("denied", "silent")


EXEMPT = (is_said_wrongly, nobody_could_see, no_platform_does)


@pytest.mark.parametrize("way", WAYS, ids="+".join)
def test_what_works_bare_works_wrapped_and_comes_out_the_same_or_better(way: tuple[str, ...]) -> None:
    assert 20_000 < len(works_bare()) < len(WORLDS) - 20_000
    assert [world for world in worse(way) if not any(exempt(world) for exempt in EXEMPT)] == []
    if way == ("exporter",):
        assert worse(way) == [], "it sees all, and needs no exemption"


@pytest.mark.parametrize("exempt", EXEMPT)
def test_each_exemption_is_needed_and_for_nothing_else(exempt: Callable[[World], bool]) -> None:
    broken = {world for world in worse(ALL) + worse(ALONE) if [one for one in EXEMPT if one(world)] == [exempt]}
    assert broken
    for world in broken if exempt is not is_said_wrongly else ():
        assert world.daemon_build and world.switched and not world.old, world
        assert world.socket in ("denied", "silent") or not world.file_writable, world


def test_a_daemon_build_that_can_work_does_and_on_the_daemon_s_own_image() -> None:
    """Whatever the registry has, and whatever the restorer may ask: by the note, or by what the restorer did."""
    seen = 0
    for world in WORLDS:
        if not (world.daemon_build and world.switched and world.in_daemon == MINE and world.note_writable):
            continue
        if world.breaks or world.before == "always" or world.after != "nothing" or is_said_wrongly(world):
            continue
        writes, answers = world.file_writable, ("answers", "once")
        ways = {ALL: writes or not world.old, ALONE: writes and world.socket in answers and not world.said}
        ways["exporter",] = writes and world.socket in ("answers", "denied") and bool(world.old or world.in_registry)
        for way in (way for way, works in ways.items() if works):
            assert ended(world, way)[0] == MINE, world
            seen += 1
    assert seen > 200


def test_what_holds_in_every_world() -> None:
    """No crash where no extension switched; nothing is done to a known registry build; no ID but in a daemon build."""
    bare = {image for world in WORLDS if not world.switched and not world.breaks for image in ended(world)[:1]}
    assert bare == {BASE, ""}
    for world in WORLDS:
        build = Build(world, ALONE)  # as the exporter's build is known
        with contextlib.suppress(BrokenBuild):
            build.play()
        if not world.switched and not world.breaks and world.note_writable:
            assert ended(world, ALONE)[0] == BASE, world
        if world.switched and build.reference.startswith("id of") and world.said != "CNB_USE_DAEMON=true":
            assert world.said == ("rightly" if world.daemon_build else "wrongly"), world
    for world, image, _ in works_bare():
        if not world.daemon_build and world.said == "rightly":
            plain, build = Build(world), Build(world, ("restorer", "exporter"))
            assert (plain.play(), build.play(), build.asked) == (image, image, []), world
            assert build.reference == plain.reference, world
