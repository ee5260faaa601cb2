"""A self-contained bundle of the shim in a lifecycle directory: put in the phases' places, and taken out again.

Platforms copy nothing but the lifecycle directory out of an image, so all that the shim needs lies inside it. The
bundle is made by `packaging/bundle.py`; the kernel finds its loader by an absolute path only, which is filled in here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import struct
from typing import TYPE_CHECKING

from shim.errors import ShimError
from shim.phase.invocation import WRAPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "analyzed-shim.d"
"""The bundle's directory in a lifecycle directory."""
LIMIT = 200
"""Bytes that the path of the loader may have: there is so much room in the interpreter's file, and in a `#!` line."""
INTERPRETER = b"/analyzed-shim/install/fills/this/in".ljust(LIMIT, b"/")
"""What stands in the interpreter's file until its place is known."""
_SCRIPT = """\
#!{at}/bin/python3 -IS
import sys

sys.path.insert(0, "{at}/site-packages")
from shim.__main__ import main

sys.exit(main())
"""


class NoLifecycle(ShimError):
    """A directory isn't what it should be: no lifecycle, no bundle, or no place for one."""

    exit_code = 64


def install(directory: str, bundle: str, at: str | None = None) -> None:
    """Put the shim in the place of the three phases; done twice it is the same, and a newer bundle replaces an older.

    At every moment each phase is there, the real one or the shim; while a newer bundle takes an older one's place the
    shim can't be run for a moment. A phase in whose place the shim is already, as a link or by an older bundle, stays
    where it was kept.

    Args:
        directory: a lifecycle directory.
        bundle: a bundle, as `packaging/bundle.py` makes it.
        at: where the directory will be when the phases run; by default where it is.

    Raises:
        NoLifecycle: one of the two isn't what it should be, or can't be changed.

    """
    with _changing(directory) as place:
        _install(place, bundle, f"{os.path.abspath(at or directory)}/{NAME}")


def _install(place: pathlib.Path, bundle: str, final: str) -> None:
    _check_lifecycle(place)
    for phase in WRAPPED:
        if _is_shim(place / phase) and not os.path.lexists(place / f"{phase}.real"):
            raise NoLifecycle(
                f"{place / phase} is the shim, and there is no {phase}.real beside it", "put the real phase there"
            )
    source = pathlib.Path(bundle)
    if not (source / "bin" / "python3").is_file() or not (source / "site-packages" / "shim").is_dir():
        raise NoLifecycle(f"{bundle} is no bundle", "python packaging/bundle.py DIRECTORY makes one")
    if len(f"{final}/lib/ld.so".encode()) >= LIMIT:
        raise NoLifecycle(f"{final} is too long a path for an interpreter", "take a shorter one")
    if len(final.split()) != 1:
        raise NoLifecycle(f"{final!r} has a blank, which the path of an interpreter can't", "take one without")
    new = place / f".{NAME}.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new, symlinks=True)
    _fill_in(new / "bin" / "python3", f"{final}/lib/ld.so".encode())
    _write(new / "bin" / "analyzed-shim", _SCRIPT.format(at=final))
    old = place / f".{NAME}.old"
    shutil.rmtree(old, ignore_errors=True)
    if (place / NAME).exists():
        os.rename(place / NAME, old)
    os.rename(new, place / NAME)
    shutil.rmtree(old, ignore_errors=True)
    for phase in WRAPPED:
        _put(place, phase, _SCRIPT.format(at=final))


def own() -> str:
    """Return the bundle that this runs from.

    Raises:
        NoLifecycle: it runs from none.

    """
    here = pathlib.Path(__file__).parents[3]
    if not (here / "bin" / "python3").is_file() or not (here / "lib").is_dir() or here.name == "lib":
        raise NoLifecycle("this doesn't run from a bundle", "give one with --bundle; packaging/bundle.py makes it")
    return str(here)


def uninstall(directory: str) -> None:
    """Put the real phases back; the directory is as it was before.

    Raises:
        NoLifecycle: it isn't a lifecycle directory, or can't be changed.

    """
    with _changing(directory) as place:
        _check_lifecycle(place)
        for phase in WRAPPED:
            real = place / f"{phase}.real"
            if _is_shim(place / phase) and os.path.lexists(real):
                os.replace(real, place / phase)
        for leftover in (NAME, f".{NAME}.new", f".{NAME}.old"):
            shutil.rmtree(place / leftover, ignore_errors=True)
        for temporary in _temporaries(place):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _changing(directory: str) -> Iterator[pathlib.Path]:
    try:
        yield pathlib.Path(directory)
    except OSError as problem:
        what = f"{problem.filename}: {problem.strerror}" if problem.strerror else str(problem)
        raise NoLifecycle(f"{directory} can't be changed: {what}", "look at its owner, mode and disk") from None


def _check_lifecycle(place: pathlib.Path) -> None:
    missing = [phase for phase in WRAPPED if not os.path.lexists(place / phase)]
    if missing:
        raise NoLifecycle(
            f"{place} isn't a lifecycle directory: there is no {', '.join(missing)}",
            "it is /cnb/lifecycle in most images",
        )


def _put(place: pathlib.Path, phase: str, script: str) -> None:
    """Keep the real phase under its other name, then take its place in one step."""
    if not _is_shim(place / phase):
        keep = place / f".{phase}.keep"
        keep.unlink(missing_ok=True)
        os.link(place / phase, keep, follow_symlinks=False)
        os.replace(keep, place / f"{phase}.real")
    temporary = place / f".{phase}.shim"
    _write(temporary, script)
    os.replace(temporary, place / phase)


def _temporaries(place: pathlib.Path) -> Iterator[pathlib.Path]:
    for phase in WRAPPED:
        yield place / f".{phase}.keep"
        yield place / f".{phase}.shim"


def _is_shim(path: pathlib.Path) -> bool:
    """Say whether the shim is in a phase's place: a script that starts it, or a link to one, here or elsewhere."""
    if path.is_symlink() and os.path.basename(os.readlink(path)) == "analyzed-shim":
        return True
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError:  # a link that leads nowhere from here
        return False
    return head.startswith(b"#!") and b"from shim.__main__ import main" in head


def _fill_in(interpreter: pathlib.Path, loader: bytes) -> None:
    """Write the loader's path into the interpreter's file, where its program header says; the rest become zeros.

    See elf(5): of a 64-bit file, `e_phoff` at 32, `e_phentsize` and `e_phnum` at 54; of a program header, `p_type`
    at 0 (3 is PT_INTERP), `p_offset` at 8, `p_filesz` at 32.
    """
    content = bytearray(interpreter.read_bytes())
    if content[:5] == b"\x7fELF\x02":
        first, (size, count) = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<HH", content, 54)
        for header in range(first, first + size * count, size):
            offset, length = (
                struct.unpack_from("<Q", content, header + 8)[0],
                struct.unpack_from("<Q", content, header + 32)[0],
            )
            if struct.unpack_from("<I", content, header)[0] == 3 and length > LIMIT:
                content[offset : offset + length] = loader.ljust(length, b"\0")
                interpreter.write_bytes(content)
                return
    raise NoLifecycle(f"{interpreter} has no room for its loader's path", "make the bundle anew")


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
