"""SIGKILL to the shim and its phase, at random moments and at each step: analyzed.toml is whole, and nothing stays.

Afterwards the file is exactly the one before, the restorer's, or the repaired one; owner and mode are as they were;
and what lies about is swept by the next run, which comes to the right end.
"""

from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.layers import GROUP, ID, Layers, analyzed_toml
from tests.support.processes import program, wait_for

NAME = "r:1"
REWRITTEN = "registry.example/run@sha256:" + "ab" * 32
PHASES = ("analyzer", "restorer", "exporter")
USER, MODE = 1000, 0o640
RANDOM_KILLS = int(os.environ.get("KILLS", "300"))
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="files have another owner, which needs root")


class Way:
    """One way of a run: what lies before it, what is run, and what may lie there afterwards."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        before: str,
        right: str,
        between: tuple[str, ...] = (),
        phase: str = "true",
        wrapper: tuple[str, ...] = (),
        steps: tuple[str, ...] = (),
        disk: bool = False,
        extra: str = "",
        keeps: str | None = None,
    ) -> None:
        self.arguments = arguments
        self.before = before
        self.right = right
        self.between = between
        self.phase = phase
        self.wrapper = wrapper
        self.steps = steps
        """Some that have to be among the steps, so that nothing is left out unseen."""
        self.disk = disk
        """On a file system of its own, which is full."""
        self.extra = extra
        self.keeps = keeps
        """A file that is to lie beside analyzed.toml afterwards, with the same content."""

    def text(self, reference: str) -> str:
        return analyzed_toml(reference, NAME, extra=self.extra)


REWRITE = 'dd if="$REWRITTEN" of="$CNB_LAYERS_DIR/analyzed.toml" conv=notrunc bs=65536 2>/dev/null'
"""A restorer's rewrite in place, in one call: what it leaves is never torn by itself."""
WRITES = (
    *(
        "after open in shim.layers.replacing._replace",
        "after write in shim.layers.replacing._replace",
        "after fchown in shim.layers.replacing._replace",
    ),
    *("after fchmod in shim.layers.replacing._replace", "before replace in shim.layers.replacing._replace"),
    "after replace in shim.layers.replacing._replace",
)
TO_THE_END_OF_A_PAGE = "#" + "x" * (4096 - 5 - 2 - len(analyzed_toml(NAME, NAME))) + "\n"
FORBID_MEMFD = (sys.executable, "-m", "tests.support.forbid", "memfd_create")
WAYS = {
    "a daemon build": Way(("run", "--daemon", "--", "restorer"), NAME, ID, steps=WRITES),
    "a daemon build, as the user": Way(
        ("run", "--daemon", "--", "restorer", "-uid", str(USER), "-gid", str(USER)),
        NAME,
        ID,
        steps=("after seteuid in shim.layers.rights.__enter__", "after replace in shim.layers.replacing._replace"),
    ),
    "likely": Way(("run", "--", "restorer"), NAME, ID, (REWRITTEN,), REWRITE, steps=WRITES),
    "the exporter repairs": Way(("run", "--", "exporter", "-daemon", "app"), REWRITTEN, ID, steps=WRITES),
    "the exporter heals": Way(
        ("run", "--", "exporter", "app"), ID, NAME, steps=("before execve in shim.phase.program.become",)
    ),
    "the note": Way(
        ("run", "--", "analyzer", "-daemon", "app"),
        NAME,
        NAME,
        steps=("after write in shim.layers.replacing._replace", "after replace in shim.layers.replacing._replace"),
    ),
    "a name is filled in": Way(("run", "--no-daemon", "--", "restorer"), "", NAME, steps=WRITES),
    "a restorer that is run again": Way(
        ("run", "--", "restorer"),
        NAME,
        ID,
        phase='case "$*" in *-group*) exit 0 ;; esac; exit 2',
        steps=(
            "after posix_spawn in shim.phase.process.run",
            *WRITES,
        ),
    ),
    "a pull": Way(("run", "--daemon", "--pull-policy", "always", "--", "restorer"), NAME, ID, steps=WRITES),
    "the snapshot": Way(
        ("snapshot",),
        NAME,
        NAME,
        steps=("after write in shim.layers.replacing._replace", "after replace in shim.layers.replacing._replace"),
        keeps="analyzed-shim.snapshot.toml",
    ),
    "fix": Way(("fix", "--daemon"), REWRITTEN, ID, steps=WRITES),
    "without memory files": Way(
        ("run", "--daemon", "--", "restorer"),
        NAME,
        ID,
        wrapper=FORBID_MEMFD,
        steps=(
            "after posix_spawn in shim.phase.process.run",
            "after replace in shim.layers.replacing._replace",
        ),
    ),
    "a mount of its own": Way(
        ("run", "--", "restorer"),
        NAME,
        ID,
        (REWRITTEN,),
        REWRITE,
        wrapper=(
            "unshare",
            "-m",
            "sh",
            "-ec",
            'mount --bind "$OUTSIDE" "$CNB_LAYERS_DIR/analyzed.toml"; exec "$@"',
            "sh",
        ),
        steps=(
            "after pwrite in shim.layers.replacing._write_at",
            "after ftruncate in shim.layers.replacing._overwrite",
        ),
    ),
    "a full disk with room in the file's last page": Way(
        ("run", "--daemon", "--", "restorer"),
        NAME,
        ID,
        steps=(
            "after pwrite in shim.layers.replacing._write_at",
            "after ftruncate in shim.layers.replacing._overwrite",
        ),
        disk=True,
    ),
    "a full disk": Way(
        ("run", "--daemon", "--", "restorer"),
        NAME,
        NAME,
        steps=(
            "after pwrite in shim.layers.replacing._write_at",
            "after ftruncate in shim.layers.replacing._overwrite",
        ),
        disk=True,
        extra=TO_THE_END_OF_A_PAGE,
    ),
}


class Place:
    """A layers directory of its own for one way, beside others."""

    def __init__(self, directory: pathlib.Path, way: Way, url: str, base: dict[str, str]) -> None:
        directory.mkdir()
        for parent in directory.parents[:3]:  # the user of the build has to come there
            parent.chmod(0o755)
        self.way = way
        self.directory = directory
        self.disk = directory / "disk"
        self.disk.mkdir()
        if way.disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(self.disk)], check=True)
        self.layers = Layers(self.disk / "layers")
        self.outside = directory / "outside.toml"
        self.mounted = "OUTSIDE" in "".join(way.wrapper)
        self.tmp = directory / "tmp"
        self.tmp.mkdir(mode=0o777)
        phases = directory / "phases"
        phases.mkdir()
        for phase in PHASES:
            program(phases / phase, f"#!/bin/sh\n{way.phase}\n")
        rewritten = directory / "rewritten.toml"
        rewritten.write_text(way.text(REWRITTEN))
        self.arguments = [str(phases / word) if word in PHASES else word for word in way.arguments]
        self.env = {
            **{name: value for name, value in base.items() if not name.startswith("COV")},
            "CNB_LAYERS_DIR": str(self.layers.path),
            "DOCKER_HOST": url,
            "TMPDIR": str(self.tmp),
            "REWRITTEN": str(rewritten),
            "OUTSIDE": str(self.outside),
            "PYTHONPATH": os.getcwd(),
        }
        self.lay()

    @property
    def file(self) -> pathlib.Path:
        return self.outside if self.mounted else self.layers.toml

    def close(self) -> None:
        if self.way.disk:
            # What was killed with the shim may hold it for a moment yet.
            wait_for(lambda: subprocess.run(["umount", str(self.disk)], capture_output=True).returncode == 0)

    def lay(self) -> None:
        (self.disk / "fill").unlink(missing_ok=True)
        self.layers.write(self.way.before, NAME, extra=self.way.extra)
        if self.mounted:
            self.outside.write_bytes(self.layers.toml.read_bytes())
        os.chown(self.layers.path, USER, USER)
        self.file.chmod(MODE)
        os.chown(self.file, USER, USER)
        if self.way.disk:
            with pytest.raises(OSError, match="No space left"):
                (self.disk / "fill").write_bytes(bytes(1 << 16))

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.way.wrapper, *command, *self.arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def check_whole(self, when: str) -> None:
        text = self.file.read_text()
        may_be = [self.way.text(reference) for reference in (self.way.before, *self.way.between, self.way.right)]
        if self.mounted or self.way.disk:  # can't be replaced: may end in line ends that were to be cut off
            text = text.rstrip("\n") + "\n"
        assert text in may_be, (when, text)
        if self.way.keeps and (self.layers.path / self.way.keeps).exists():
            assert (self.layers.path / self.way.keeps).read_text() == text, when
        if self.layers.note.exists():
            comment, _, rest = self.layers.note.read_text().partition("\n")
            assert comment.startswith("# Left by analyzed-shim"), when
            assert rest in ("daemon = true\n", f"{GROUP}\n", f"daemon = true\n{GROUP}\n"), (when, rest)
        about = self.file.stat()
        assert (about.st_mode & 0o7777, about.st_uid, about.st_gid) == (MODE, USER, USER), when

    def check_the_next_run(self, when: str) -> None:
        if self.way.between or self.way.disk:  # what was rewritten before is no rewrite: the next build begins anew
            self.lay()
        process = self.start(*SHIM)
        assert process.wait(60) == 0, when
        self.check_whole(when)
        assert self.file.read_text() == self.way.text(self.way.right), when
        if self.way.keeps:
            (self.layers.path / self.way.keeps).unlink()  # it has to be there
        assert self.left() == set(), when
        assert self.layers.note.exists() or "analyzer" not in "".join(self.arguments), when

    def left(self) -> set[str]:
        return self.layers.stray() | {path.name for path in self.tmp.iterdir()}

    def state(self) -> frozenset[tuple[object, ...]]:
        """Return what lies there, all that a next run can know: the random part of a name says nothing."""
        found = []
        for path in (self.file, *self.layers.path.iterdir(), *self.tmp.iterdir()):
            about = path.lstat()
            name = re.sub(r"[0-9a-f]{16}", "*", path.name)
            found.append((name, about.st_mode, about.st_uid, about.st_gid, path.read_bytes()))
        return frozenset(found)


class UpToDate(servers.Engine):
    """An engine that finds nothing newer when it pulls."""

    def pull(self, name: str) -> bool:
        return self.find(name) is not None


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Iterator[servers.Engine]:
    server = UpToDate(str(tmp_path / "engine.sock"))
    server.tag(NAME, f"sha256:{ID}")
    yield server
    server.stop()


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_each_step(build: Build, engine: UpToDate, tmp_path: pathlib.Path, name: str) -> None:
    build.unmeasured()
    way = WAYS[name]
    listing = tmp_path / "steps"
    with closing(Place(tmp_path / "listing", way, engine.url, build.env)) as place:
        assert place.start(sys.executable, "-m", "tests.support.steps", str(listing)).wait(60) == 0
        assert place.file.read_text() == way.text(way.right)
    assert any("/images/create" in question for question in engine.asked) == ("--pull-policy" in way.arguments)
    steps = listing.read_text().splitlines()
    for needed in way.steps:
        assert any(step.startswith(needed) for step in steps), (needed, steps)

    tried: set[frozenset[tuple[object, ...]]] = set()

    def kill_at(number: int) -> bool:
        when = f"{name}, step {number}: {steps[number - 1]}"
        with closing(Place(tmp_path / str(number), way, engine.url, build.env)) as here:
            process = here.start(sys.executable, "-m", "tests.support.steps", str(number))
            assert process.wait(60) == -signal.SIGKILL, when
            here.check_whole(when)
            left, state = bool(here.left()), here.state()
            if state not in tried:  # the next run of the same is the same
                tried.add(state)
                here.check_the_next_run(when)
            return left

    with ThreadPoolExecutor(2) as pool:
        left = list(pool.map(kill_at, range(1, len(steps) + 1)))
    assert 1 < len(tried) < len(steps)
    assert any(left) or name in ("the exporter heals", "a mount of its own"), (
        "at some step something has to be left, to be swept"
    )


def test_killed_at_hundreds_of_random_moments(build: Build, engine: UpToDate, tmp_path: pathlib.Path) -> None:
    build.unmeasured()
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    lasts = {}
    for name, way in WAYS.items():
        began = time.monotonic()
        with closing(Place(tmp_path / f"{name} once", way, engine.url, build.env)) as once:
            assert once.start(*SHIM).wait(60) == 0
        lasts[name] = time.monotonic() - began

    def kill(number: int, name: str, part: float) -> bool:
        after = part * lasts[name]
        when = f"seed {seed}, {name} after {after:.4f} s"
        with closing(Place(tmp_path / str(number), WAYS[name], engine.url, build.env)) as place:
            process = place.start(*SHIM)
            time.sleep(after)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
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
    parts = [dice.random() for _ in names]
    with ThreadPoolExecutor(2) as pool:
        killed = list(pool.map(kill, range(RANDOM_KILLS), names, parts))
    assert sum(killed) > RANDOM_KILLS / 2
