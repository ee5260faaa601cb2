"""`install` and `uninstall`: the drop-ins and their bundle in a lifecycle directory.

Platforms copy nothing but the lifecycle directory out of an image, so all that the shim needs lies inside it. The
bundle is made by `shim.tools.bundle`; the kernel finds its interpreter by the absolute path in a drop-in's `#!` line.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from typing import TYPE_CHECKING

from shim.errors import ShimError
from shim.phase.invocation import WRAPPED
from shim.tools import elf

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "analyzed-shim.d"
"""The bundle's directory in a lifecycle directory."""
LEFTOVERS = (f".{NAME}.new", f".{NAME}.old")
"""What a run that was killed may leave."""
_LOOK = "look at its owner, mode and disk space"
_LONGEST = 255
"""Bytes that a `#!` line may have; before Linux 5.1 it was 127, of which /cnb/lifecycle takes 53."""
_SCRIPT = """\
#!{at}/bin/python3 -ISXutf8
import os
import sys

for name in [name for name in os.environ if name.startswith("\\1D_")]:  # hidden from the loader by bin/python3
    os.environ["L" + name[1:]] = os.environ.pop(name)
for number in filter(None, sys._xoptions.get("memory", "").split(",")):  # where it unpacked the libraries
    os.close(int(number))
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
        bundle: a bundle, as `analyzed-shim bundle` makes it.
        at: where the directory will be when the phases run; by default where it is.

    Raises:
        NoLifecycle: one of the two isn't what it should be, or can't be changed.

    """
    with _changing(directory) as place:
        try:
            _install(place, bundle, f"{os.path.abspath(at or directory)}/{NAME}")
        except OSError:
            with contextlib.suppress(OSError):  # not if there is one
                os.rename(place / LEFTOVERS[1], place / NAME)
            with contextlib.suppress(OSError):  # what it failed of counts
                _sweep(place)
            raise


def _install(place: pathlib.Path, bundle: str, final: str) -> None:
    _check_lifecycle(place)
    for phase in WRAPPED:
        if _is_shim(place / phase) and not os.path.lexists(place / f"{phase}.real"):
            raise NoLifecycle(
                f"{place / phase} is the shim, and {phase}.real beside it was not found", "put the real phase there"
            )
    source = pathlib.Path(bundle)
    if not (source / "bin" / "python3").is_file() or not (source / "site-packages" / "shim").is_dir():
        raise NoLifecycle(f"{bundle} is not a bundle", "analyzed-shim bundle DIRECTORY makes one")
    text = script(final)
    check_architecture({phase: _head(place, phase) for phase in WRAPPED}, bundle, str(place))
    new = place / f".{NAME}.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new, symlinks=True)
    _write(new / "bin" / "analyzed-shim", text)
    old = place / f".{NAME}.old"
    shutil.rmtree(old, ignore_errors=True)
    if (place / NAME).exists():
        os.rename(place / NAME, old)
    os.rename(new, place / NAME)
    shutil.rmtree(old, ignore_errors=True)
    for phase in WRAPPED:
        _put(place, phase, text)


def script(at: str) -> str:
    """Return the text of a drop-in, and of the bundle's own `analyzed-shim`.

    Args:
        at: the bundle's absolute path when the phases run.

    Raises:
        NoLifecycle: no `#!` line can have it.

    """
    text = _SCRIPT.format(at=at)
    if len(text.partition("\n")[0].encode()) > _LONGEST:
        raise NoLifecycle(f"{at} is too long a path for an interpreter", "use a shorter one")
    if len(at.split()) != 1:
        raise NoLifecycle(f"{at!r} has a blank, which the path of an interpreter can't have", "use one without")
    return text


def is_script(head: bytes) -> bool:
    """Return whether a program that begins like this is the shim."""
    return head.startswith(b"#!") and b"from shim.__main__ import main" in head[:1024]


def architecture(bundle: str) -> str:
    """Return a bundle's architecture, such as `amd64`.

    Raises:
        NoLifecycle: it isn't a bundle.

    """
    try:
        return elf.read(pathlib.Path(bundle) / "bin" / "python3").architecture
    except OSError as problem:
        raise NoLifecycle(f"{bundle} is not a bundle: {problem}", "analyzed-shim bundle DIRECTORY makes one") from None


def check_architecture(heads: dict[str, bytes], bundle: str, where: str) -> None:
    """Check that the phases are programs for the bundle's architecture; scripts are for any.

    Args:
        heads: how each phase's program begins, by its name.
        bundle: the bundle.
        where: the directory or image, for the message.

    Raises:
        NoLifecycle: one is for another.

    """
    ours = architecture(bundle)
    for phase, head in heads.items():
        program = elf.parse(head)
        if program is not None and program.architecture != ours:
            raise NoLifecycle(
                f"{phase} in {where} is a program for {program.architecture}, and the bundle {bundle} is for {ours}",
                f"make a bundle on a machine with {program.architecture}, and pass it with --bundle",
            )


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
        shutil.rmtree(place / NAME, ignore_errors=True)
        _sweep(place)


@contextlib.contextmanager
def _changing(directory: str) -> Iterator[pathlib.Path]:
    try:
        yield pathlib.Path(directory)
    except shutil.Error as problem:  # of each file that couldn't be copied
        raise NoLifecycle(f"{directory} can't be changed: {problem.args[0][0][-1]}", _LOOK) from None
    except OSError as problem:
        what = ": ".join(filter(None, (problem.filename, problem.strerror))) or problem
        raise NoLifecycle(f"{directory} can't be changed: {what}", _LOOK) from None


def _check_lifecycle(place: pathlib.Path) -> None:
    missing = [phase for phase in WRAPPED if not os.path.lexists(place / phase)]
    if missing:
        raise NoLifecycle(
            f"{place} is not a lifecycle directory: {', '.join(missing)} not found",
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


def _sweep(place: pathlib.Path) -> None:
    """Remove what an installation leaves that didn't come to its end."""
    for leftover in LEFTOVERS:
        shutil.rmtree(place / leftover, ignore_errors=True)
    for phase in WRAPPED:
        for temporary in (place / f".{phase}.keep", place / f".{phase}.shim"):
            temporary.unlink(missing_ok=True)


def _is_shim(path: pathlib.Path) -> bool:
    """Say whether the shim is in a phase's place: a script that starts it, or a link to one, here or elsewhere."""
    if path.is_symlink() and os.path.basename(os.readlink(path)) == "analyzed-shim":
        return True
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError:  # a link that leads nowhere from here
        return False
    return is_script(head)


def _head(place: pathlib.Path, phase: str) -> bytes:
    """Return the beginning of the program that is, or was, a phase; nothing, if it leads nowhere from here."""
    real = place / f"{phase}.real"
    try:
        with (real if _is_shim(place / phase) else place / phase).open("rb") as file:
            return file.read(64)
    except FileNotFoundError:
        return b""


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
