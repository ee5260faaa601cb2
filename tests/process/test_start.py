"""The program that starts the bundle's interpreter (packaging/start.c), with a stand-in for the loader.

For this machine's architecture; with QEMU=1 for the other one too, by qemu. With the bundle's own loader and
interpreter it runs in test_containers.py and test_packaging.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from shim.tools import pack
from tests.support.build import Build
from tests.support.mounts import in_mount_namespace
from tests.support.needs import needs_root
from tests.support.processes import program

STARTS = pathlib.Path(pack.__file__).parent / "start"
RUNNERS: dict[str, list[str]] = {
    machine.name: [] if machine.name == platform.machine() else [f"qemu-{machine.name}"]
    for machine in sorted(STARTS.iterdir())
    if machine.name == platform.machine() or os.environ.get("QEMU")
}
LOADER = """\
    #!/usr/bin/env -S {python} -IS
    import hashlib, json, os, sys

    def told(path):
        return {{"at": os.readlink(path), "hash": hashlib.sha256(open(path, "rb").read()).hexdigest()}}

    arguments = dict(zip(*[iter(sys.argv[1:-3][:6])] * 2)) if "--argv0" in sys.argv else {{}}
    preload = arguments.get("--preload", "").split(":")
    rest = sys.argv[7:] if arguments else sys.argv[3:]
    print(json.dumps({{
        "options": arguments or dict([sys.argv[1:3]]),
        "files": [told(path) for path in (rest[0], *filter(None, preload))] if arguments else [],
        "rest": rest,
        "hidden": sorted(name for name in os.environ if name[1:3] == "D_"),
    }}))
"""
REAL = """\
    #!/bin/sh
    echo "$0 $* $LD_LIBRARY_PATH" $(ls /proc/self/fd 2>/dev/null)
    exit 7
"""
WARNING = (
    "analyzed-shim: WARNING: the bundle's interpreter can't be started here; it needs /proc and memory files;"
    " running the phase as called [passed-through]\n"
)
BLOCK = 1 << 18


@pytest.fixture(params=RUNNERS)
def start(request: pytest.FixtureRequest, build: Build, tmp_path: pathlib.Path) -> Callable[..., list[str]]:
    """Lay out a bundle for a drop-in, and return what makes the command that its `#!` line stands for."""
    bundle = tmp_path / "bundle"
    (bundle / "bin").mkdir(parents=True)
    (bundle / "lib").mkdir()
    shutil.copy(STARTS / request.param, bundle / "bin" / "python3")
    program(bundle / "lib" / "ld.so", LOADER.format(python=sys.executable))
    program(tmp_path / "restorer.real", REAL)
    build.unmeasured()

    def command(packed: bytes | None, *arguments: str) -> list[str]:
        if packed is not None:
            (bundle / pack.PACKED).write_bytes(packed)
        return [
            *RUNNERS[request.param],
            str(bundle / "bin" / "python3"),
            *("-ISXutf8", str(tmp_path / "restorer"), *arguments),
        ]

    return command


def contents() -> list[bytes]:
    """Contents of all kinds, of sizes about those of a block."""
    some = random.Random(1)
    noise = some.randbytes(3 * BLOCK + 7)
    periods = [noise[:period] * (40_000 // period) for period in (1, 2, 3, 7, 15, 16, 17)]
    words = b"".join(some.choice((b"run-image", b"reference", b"\0" * 20, b"ab")) for _ in range(90_000))
    sizes = [noise[:size] for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1)]
    return [*periods, words, noise, b"".join(periods) + words, *sizes]


def test_what_was_packed_is_unpacked(start: Callable[..., list[str]], build: Build, tmp_path: pathlib.Path) -> None:
    wanted = contents()
    command = start(b"".join(map(pack.blocks, wanted)), "-layers", "x y")
    loaded = json.loads(build.call(*command, LD_PRELOAD="/no/such.so", LD_AUDIT="").out)
    assert [file["hash"] for file in loaded["files"]] == [hashlib.sha256(content).hexdigest() for content in wanted]
    assert {file["at"] for file in loaded["files"]} == {"/memfd:analyzed-shim (deleted)"}
    bundle = f"{tmp_path}/bundle"
    assert loaded["options"].pop("--preload").count("/proc/self/fd/") == len(wanted) - 1
    assert loaded["options"] == {"--library-path": f"{bundle}/lib", "--argv0": f"{bundle}/lib/python"}
    memory = loaded["rest"][1].removeprefix("-Xmemory=").split(",")
    assert len({int(number) for number in memory}) == len(wanted)
    assert loaded["rest"][2:] == ["-ISXutf8", f"{tmp_path}/restorer", "-layers", "x y"]
    assert loaded["hidden"] == ["\1D_AUDIT", "\1D_PRELOAD"]


def test_without_packed_files_they_are_taken_as_they_lie(
    start: Callable[..., list[str]], build: Build, tmp_path: pathlib.Path
) -> None:
    loaded = json.loads(build.call(*start(None, "-x"), LD_PRELOAD="/no/such.so").out)
    assert loaded == {
        "options": {"--library-path": f"{tmp_path}/bundle/lib"},
        "files": [],
        "rest": [f"{tmp_path}/bundle/lib/python", "-ISXutf8", f"{tmp_path}/restorer", "-x"],
        "hidden": ["\1D_PRELOAD"],
    }


def forbidden(call: str) -> list[str]:
    return ["env", f"PYTHONPATH={os.getcwd()}", sys.executable, "-m", "tests.support.forbid", call]


NOT_EXECUTABLE = "f=/proc/sys/vm/memfd_noexec; [ ! -e $f ] || echo 2 >$f"
READ_ONLY = "mount --bind /tmp /tmp; mount -o remount,bind,ro /tmp"


@needs_root
@pytest.mark.parametrize(
    ("script", "before", "where"),
    [
        pytest.param(":", [], "/memfd:", id="memory"),
        pytest.param(NOT_EXECUTABLE, [], "/memfd:", id="no-executable-memory-files"),
        pytest.param(":", forbidden("memfd_create"), "/tmp/", id="no-memory-files"),
        pytest.param(READ_ONLY, forbidden("memfd_create"), None, id="nor-a-temporary-directory"),
        pytest.param("mount -t tmpfs none /proc", [], None, id="no-proc"),
        pytest.param("ulimit -f 1", [], None, id="file-size"),
        pytest.param("ulimit -n 11", [], None, id="descriptors"),
    ],
)
def test_where_it_can_be_unpacked(
    start: Callable[..., list[str]],
    build: Build,
    tmp_path: pathlib.Path,
    script: str,
    before: list[str],
    where: str | None,
) -> None:
    command = start(b"".join(map(pack.blocks, contents()[:8])), "-x")
    private = ["unshare", "-p", "-f", "--mount-proc"] if script == NOT_EXECUTABLE else []
    inner = ["sh", "-ec", f'{script}\nexec "$@"', "sh"] if private else []
    ended = in_mount_namespace(
        ":" if private else script, *private, *inner, *before, *command, build=build, LD_LIBRARY_PATH="/no/such"
    )
    if where is None:
        assert (ended.returncode, ended.stderr) == (7, WARNING)
        said, *descriptors = ended.stdout.split(" /no/such")
        assert said == f"{tmp_path}/restorer.real -x"
        assert descriptors[0].split() in ([], ["0", "1", "2", "3"])  # nothing but those of `ls`
    else:
        loaded = json.loads(ended.stdout)
        assert all(file["at"].startswith(where) for file in loaded["files"]), loaded


def test_without_a_real_phase_it_says_what_is_wrong(start: Callable[..., list[str]], build: Build) -> None:
    command = start(b"no sizes")
    (pathlib.Path(command[-1]).parent / "restorer.real").unlink()
    ended = build.call(*command)
    assert (ended.code, "ERROR: the bundle's interpreter can't be started" in ended.err) == (127, True)


def block(*parts: bytes, size: int = 8) -> bytes:
    content = b"".join(parts)
    return b"".join(number.to_bytes(4, "little") for number in (size, len(content))) + content


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\1\0\0", id="half-a-size"),
        pytest.param(b"\1\0\0\0", id="no-block"),
        pytest.param(block(b"\x40abcd"), id="too-small"),
        pytest.param(block(b"\x90abcdefghi"), id="too-large"),
        pytest.param(block(b"\x90abcdefgh"), id="literals-that-are-not-there"),
        pytest.param(block(b"\x44abcd\0\0"), id="a-match-with-itself"),
        pytest.param(block(b"\x40abcd\5\0\x10h"), id="a-match-before-the-beginning"),
        pytest.param(block(b"\x4fabcd\1\0\xff\xff\xff"), id="a-match-beyond-the-end"),
        pytest.param(block(b"\x4fabcd\1"), id="half-an-offset"),
        pytest.param(block(b"\xf0" + b"\xff" * 3), id="a-length-without-an-end"),
        pytest.param(block(size=8), id="nothing"),
        pytest.param(pack.blocks(b"x" * 99) + b"\0", id="more-behind"),
        pytest.param(pack.blocks(b"x" * 99) * 17, id="too-many"),
        pytest.param(b"\xff\xff\xff\xff" * 2, id="sizes-that-are-not"),
    ],
)
def test_what_is_damaged_is_not_started(start: Callable[..., list[str]], build: Build, packed: bytes) -> None:
    ended = build.call(*start(packed))
    assert (ended.code, ended.err) == (7, WARNING)


def test_whatever_is_damaged_the_phase_is_run(
    start: Callable[..., list[str]], build: Build, tmp_path: pathlib.Path
) -> None:
    """By the loader if what it unpacked has the sizes that it should, else as it was called; it never crashes."""
    program(tmp_path / "bundle" / "lib" / "ld.so", "#!/bin/sh\nexit 3\n")
    good, some, codes = pack.blocks(contents()[7][:5000]) + pack.blocks(b"ab" * 900), random.Random(2), set()
    command = start(good)
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(some.choice((1, 1, 3, 30))):
            bad[some.randrange(len(bad))] = some.choice((0, 1, 15, 16, 240, 255, some.randrange(256)))
        if some.random() < 0.2:
            del bad[some.randrange(len(bad)) :]
        (tmp_path / "bundle" / pack.PACKED).write_bytes(bad)
        codes.add(subprocess.run(command, env=build.env, capture_output=True, check=False).returncode)
    assert codes == {3, 7}
