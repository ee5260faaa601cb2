"""SIGKILL to the shim and its phase, at each step and at random moments: every file is whole.

Afterwards analyzed.toml is exactly the one before, the restorer's, or the repaired one, with its owner and mode; at
most one dot-file lies about, as nobody sweeps; and the next run comes to the right end.
"""

from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import NamedTuple

import pytest

from tests.support.build import SHIM, Build
from tests.support.layers import GROUP, ID, Layers, analyzed_toml
from tests.support.processes import program, wait_for
from tests.support.users import let_in

NAME = "r:1"
REWRITTEN = "registry.example/run@sha256:" + "ab" * 32
PHASES = ("analyzer", "restorer", "exporter")
USER, MODE = os.getuid() or 1000, 0o640
RANDOM_KILLS = int(os.environ.get("KILLS", "60"))
REWRITE = 'dd if="$REWRITTEN" of="$CNB_LAYERS_DIR/analyzed.toml" conv=notrunc bs=65536 2>/dev/null'
"""A restorer's rewrite in place, in one call: what it leaves is never torn by itself."""
NOTED = ("after write in shim.files._write_all", "after replace in shim.files._put")
WRITES = ("after open in shim.files._put", "after fchmod in shim.files._copy_attributes", *NOTED)
IN_PLACE = ("after write in shim.files._write_all", "after ftruncate in shim.files._write_in_place")
TO_THE_END_OF_A_PAGE = "#" + "x" * (4096 - 5 - 2 - len(analyzed_toml(NAME, NAME))) + "\n"
A_MOUNT = ("unshare", "-m", "sh", "-ec", 'mount --bind "$OUTSIDE" "$CNB_LAYERS_DIR/analyzed.toml"; exec "$@"', "sh")
DAEMON, UNKNOWN = ("run", "--daemon", "--", "restorer"), ("run", "--", "restorer")
REPORTED = ("run", "--daemon", "--report", "REPORT", "--", "restorer")
FORKED, FAILS = "after fork in shim.process.run", '[ "$CNB_GROUP_PATH" ] || exit 2'


class Way(NamedTuple):
    arguments: tuple[str, ...]
    before: str
    right: str
    """What `run-image.reference` is before it and afterwards."""
    between: tuple[str, ...] = ()
    phase: str = "true"
    wrapper: tuple[str, ...] = ()
    steps: tuple[str, ...] = WRITES
    """Some that have to be among the steps, so that nothing is left out unseen."""
    full: bool = False  # on a file system of its own, which is
    extra: str = ""
    keeps: str = ""
    """A file that lies beside analyzed.toml afterwards; JSON, or the same content."""

    def text(self, reference: str) -> str:
        return analyzed_toml(reference, NAME, extra=self.extra)


WAYS = {
    "a daemon build with a report": Way(REPORTED, NAME, ID, keeps="analyzed-shim.report.json"),
    "the name is put back": Way(UNKNOWN, NAME, NAME, (REWRITTEN,), REWRITE, steps=(FORKED, *WRITES)),
    "a restorer that is run again": Way(UNKNOWN, NAME, NAME, phase=FAILS, steps=(FORKED, *NOTED)),
    "the exporter repairs": Way(("run", "--", "exporter", "-daemon", "app"), REWRITTEN, ID),
    "the note": Way(("run", "--", "analyzer", "-daemon", "app"), NAME, NAME, steps=NOTED),
    "a name is filled in": Way(("run", "--no-daemon", "--", "restorer"), "", NAME),
    "a mount of its own": Way(DAEMON, NAME, ID, wrapper=A_MOUNT, steps=IN_PLACE),
    "a mount of its own, and the name": Way(UNKNOWN, NAME, NAME, (REWRITTEN,), REWRITE, A_MOUNT, IN_PLACE),
    "a full disk with room in the file's last page": Way(DAEMON, NAME, ID, steps=IN_PLACE, full=True),
    "a full disk": Way(DAEMON, NAME, NAME, steps=IN_PLACE, full=True, extra=TO_THE_END_OF_A_PAGE),
    "the snapshot": Way(("snapshot",), NAME, NAME, steps=NOTED, keeps="analyzed-shim.snapshot.toml"),
    "fix": Way(("fix", "--daemon"), REWRITTEN, ID),
}
if os.getuid():  # mounts need root
    WAYS = {name: way for name, way in WAYS.items() if not (way.wrapper or way.full)}


class Place:
    def __init__(self, directory: pathlib.Path, way: Way, build: Build) -> None:
        self.way, self.disk = way, directory / "disk"
        self.disk.mkdir(parents=True)
        let_in(directory)
        if way.full:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(self.disk)], check=True)
        self.layers = Layers(self.disk / "layers")
        self.file = directory / "outside.toml" if way.wrapper else self.layers.toml
        (directory / "rewritten.toml").write_text(way.text(REWRITTEN))
        words = {"REPORT": str(self.layers.path / "analyzed-shim.report.json")}
        words |= {phase: str(program(directory / phase, f"#!/bin/sh\n{way.phase}\n")) for phase in PHASES}
        self.arguments = [words.get(word, word) for word in way.arguments]
        build.unmeasured()
        self.env = {**build.env, "CNB_LAYERS_DIR": str(self.layers.path), "OUTSIDE": str(self.file)}
        self.env |= {"REWRITTEN": str(directory / "rewritten.toml"), "ANALYZED_SHIM_DAEMON": ""}
        self.lay()

    def close(self) -> None:
        if self.way.full:  # what was killed with the shim may hold it for a moment yet
            wait_for(lambda: subprocess.run(["umount", str(self.disk)], capture_output=True).returncode == 0)

    def lay(self) -> None:
        (self.disk / "fill").unlink(missing_ok=True)
        self.layers.note.unlink(missing_ok=True)
        self.layers.write(self.way.before, NAME, extra=self.way.extra)
        if self.way.full:  # only the note has room
            self.layers.note.write_bytes(b"\n" * 4000)
        self.file.write_bytes(self.layers.toml.read_bytes())
        self.layers.give(USER)
        self.file.chmod(MODE)
        os.chown(self.file, USER, USER)
        if self.way.full:
            with pytest.raises(OSError, match="No space left"):
                (self.disk / "fill").write_bytes(bytes(1 << 16))

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.way.wrapper, *command, *self.arguments], env=self.env, start_new_session=True)

    def check_whole(self, when: str) -> str:
        text = self.file.read_text()
        may_be = [self.way.text(reference) for reference in (self.way.before, *self.way.between, self.way.right)]
        if self.way.wrapper or self.way.full:  # can't be replaced: may end in line ends that were to be cut off
            text = text.rstrip("\n") + "\n"
        assert text in may_be, (when, text)
        if (kept := self.layers.path / self.way.keeps).is_file():
            content = kept.read_text()
            assert content == text or (content.startswith("{") and content.endswith("}\n")), when
        if self.layers.note.exists():
            rest = re.sub(r"^# Left by analyzed-shim.*\n(daemon = true\n)?", "", self.layers.note.read_text())
            assert rest.rstrip("\n") in ("", GROUP.rstrip()), (when, rest)
        assert (self.file.stat()[0] & 0o7777, self.file.stat()[4:6]) == (MODE, (USER, USER)), when
        left = self.left()
        assert len(left) <= 1 and all(name.startswith(".analyzed") for name in left), (when, left)
        return text

    def check_the_next_run(self, when: str) -> None:
        before = self.left()
        if self.way.between or self.way.full:  # what was rewritten before is no rewrite: the next build begins anew
            self.lay()
        assert self.start(*SHIM).wait(60) == 0, when
        text, right = self.check_whole(when), self.way.text(self.way.right)
        assert text == right and (self.way.wrapper or self.file.read_text() == right), when
        assert (self.layers.path / self.way.keeps).exists() and self.left() == before, when
        assert self.layers.note.exists() or "analyzer" not in "".join(self.arguments), when

    def left(self) -> set[str]:
        return self.layers.stray() - {self.way.keeps}

    def state(self) -> frozenset[tuple[object, ...]]:
        """Return what lies there, all that a next run can know: the random part of a name says nothing."""
        return frozenset(
            (re.sub(r"[0-9a-f]{16}", "*", path.name), path.lstat()[0], path.lstat()[4:6], path.read_bytes())
            for path in (self.file, *self.layers.path.iterdir())
        )


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_each_step(known: Build, tmp_path: pathlib.Path, name: str) -> None:
    """What lies there while it waits at a step is what a kill leaves; of what is the same, one is killed."""
    way, steps, left = WAYS[name], [""], False
    first: dict[frozenset[tuple[object, ...]], int] = {}
    with closing(Place(tmp_path / "steps", way, known)) as place, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        process = place.start(sys.executable, "-m", "tests.support.steps", str(tmp_path / "socket"))
        told, _ = listening.accept()
        with told, told.makefile() as lines:
            for line in lines:
                first.setdefault(place.state(), len(steps))
                steps.append(line.strip())
                place.check_whole(line)
                left = left or bool(place.left())
                told.send(b"\n")
        assert process.wait(60) == 0
        assert place.file.read_text() == way.text(way.right)
    assert set(way.steps) <= set(steps)
    assert 1 < len(first) < len(steps) and left, "at some step something has to be left"
    for number in first.values():
        when = f"step {number}: {steps[number]}"
        with closing(Place(tmp_path / str(number), way, known)) as here:
            process = here.start(sys.executable, "-m", "tests.support.steps", str(number))
            assert process.wait(60) == -signal.SIGKILL, when
            here.check_whole(when)
            here.check_the_next_run(when)


def test_killed_at_random_moments(known: Build, tmp_path: pathlib.Path) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    lasts = {}
    for name, way in WAYS.items():
        began = time.monotonic()
        with closing(Place(tmp_path / f"{name} once", way, known)) as once:
            assert once.start(*SHIM).wait(60) == 0
        lasts[name] = time.monotonic() - began

    def kill(number: int, name: str, part: float) -> bool:
        after = part * lasts[name]
        when = f"seed {seed}, {name} after {after:.4f} s"
        with closing(Place(tmp_path / str(number), WAYS[name], known)) as place:
            process = place.start(*SHIM)
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            killed = process.wait(60) == -signal.SIGKILL
            if not killed:  # it takes no longer than this now; how busy the machine is changes
                lasts[name] = min(after, lasts[name])
            elif part > 0.9:
                lasts[name] *= 1.1
            place.check_whole(when)
            if place.left() or number % 5 == 0:
                place.check_the_next_run(when)
            return killed

    names = [dice.choice(list(WAYS)) for _ in range(RANDOM_KILLS)]
    with ThreadPoolExecutor(2) as pool:
        killed = sum(pool.map(kill, range(RANDOM_KILLS), names, [dice.random() for _ in names]))
    assert killed > RANDOM_KILLS / 2
