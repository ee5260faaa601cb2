"""`builder`: derive an image from a builder or lifecycle image, with the shim in the three phases' places.

Nothing of the image is run, so it needs no shell and no Python: a container is created and never started, the lifecycle
directory is copied out, changed and copied in whole, and the container is committed. So the new top layer holds all of
that directory, which pack takes for the lifecycle.
"""

from __future__ import annotations

import io
import os
import pathlib
import tarfile
import tempfile
from typing import TYPE_CHECKING

from shim.errors import ShimError
from shim.phase.invocation import WRAPPED
from shim.record import Record
from shim.tools import install as bundling
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from shim.daemon.containers import Daemon

LIFECYCLE = "/cnb/lifecycle"
"""Where platforms look for it (https://github.com/buildpacks/spec/blob/main/platform.md)."""


class Derived(Record):
    """What is to be made of which image."""

    image: str
    tag: str
    bundle: str
    environment: Mapping[str, str]
    """`ANALYZED_SHIM_*` settings to bake in."""
    push: bool = False


def steps(wanted: Derived) -> list[str]:
    """Return what `derive` does, for people."""
    lines = [
        f"create a container of {wanted.image}, and don't start it",
        f"copy {LIFECYCLE} out of it",
        f"install the bundle {wanted.bundle} into it, for {LIFECYCLE}",
        f"copy {LIFECYCLE} in, whole",
    ]
    lines += [f"set {name}={value}" for name, value in wanted.environment.items()]
    lines += [f"commit it as {wanted.tag}, with the configuration, labels, user and environment of {wanted.image}"]
    return [*lines, f"push {wanted.tag}"] if wanted.push else lines


def derive(daemon: Daemon, wanted: Derived, tell: Callable[[str], None]) -> str:
    """Derive an image, and return its ID.

    Args:
        daemon: where the image is, or can be pulled to.
        wanted: what to make.
        tell: is told each step.

    Raises:
        ShimError: a step fails; the container is removed all the same.

    """
    for name in wanted.environment:
        if not name.startswith("ANALYZED_SHIM_"):
            raise ShimError(f"{name} is no setting of the shim's", "ANALYZED_SHIM_* can be baked in")
    if daemon.image_id(wanted.image) is None:
        tell(f"pulling {wanted.image}")
        daemon.pull(wanted.image, lambda *_: None)
    container = daemon.create(wanted.image)
    try:
        tell(f"copying {LIFECYCLE} out of {wanted.image}")
        packed = daemon.copy_out(container, LIFECYCLE)
        if packed is None:
            raise bundling.NoLifecycle(f"{wanted.image} has no {LIFECYCLE}", "take a builder or lifecycle image")
        with tempfile.TemporaryDirectory() as name:
            changed = _install(packed, pathlib.Path(name), wanted.bundle)
        tell(f"copying {LIFECYCLE} in, with the shim in the places of {', '.join(WRAPPED)}")
        daemon.copy_in(container, os.path.dirname(LIFECYCLE), changed)
        image_id = daemon.commit(container, wanted.tag, wanted.environment)
    finally:
        daemon.remove(container)
    if wanted.push:
        tell(f"pushing {wanted.tag}")
        daemon.push(wanted.tag)
    return image_id


def checked(members: list[tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """Return the members of a packed lifecycle directory by name, if they can be unpacked without leaving it.

    Only newer Pythons check that by themselves, and the daemon packs what somebody put into the image.

    Raises:
        NoLifecycle: a member lies elsewhere or behind a link, is a link to a file elsewhere, or is a device.

    """
    top = os.path.basename(LIFECYCLE)
    by_name: dict[str, tarfile.TarInfo] = {}
    for member in members:
        name = member.name.rstrip("/")
        parts = name.split("/")
        above = ("/".join(parts[:length]) for length in range(1, len(parts)))
        bad = parts[0] != top or not set(parts).isdisjoint(("", ".", "..")) or "\0" in name
        bad |= any(by_name[folder].issym() or by_name[folder].islnk() for folder in above if folder in by_name)
        bad |= name in by_name or not (member.isreg() or member.isdir() or member.issym() or member.islnk())
        bad |= member.islnk() and not (member.linkname in by_name and by_name[member.linkname].isreg())
        if bad:
            raise bundling.NoLifecycle(
                f"{LIFECYCLE} of the image has {plain(member.name)!r}, which can't be unpacked safely", "don't use it"
            )
        by_name[name] = member
    return by_name


def _install(packed: bytes, directory: pathlib.Path, bundle: str) -> bytes:
    """Install the bundle into a packed lifecycle directory; owners and times of what was there stay."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        before = checked(archive.getmembers())
        safely: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}  # from Python 3.11.4 on
        archive.extractall(directory, **safely)  # noqa: S202  # each member was checked
    place = directory / os.path.basename(LIFECYCLE)
    bundling.uninstall(str(place))  # so that deriving from a derived image gives the same again
    bundling.install(str(place), bundle, LIFECYCLE)
    top = before[place.name]

    def keep_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
        owner = before.get(member.name, before.get(member.name.removesuffix(".real"), top))
        member.uid, member.gid, member.uname, member.gname = owner.uid, owner.gid, owner.uname, owner.gname
        return member

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(place, place.name, filter=keep_owner)
    return out.getvalue()
