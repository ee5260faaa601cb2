"""`builder`: a copy of a builder or lifecycle image with the drop-ins in its lifecycle directory.

Nothing of the image is run or unpacked. It is saved out of the daemon, and loaded again with one layer that holds all
of the lifecycle directory, which pack takes for the lifecycle. If the image's own topmost layer is nothing but the
lifecycle, as in pack's lifecycle images, the new one takes its place.
"""

from __future__ import annotations

import os
import pathlib
import tarfile
import time
from typing import TYPE_CHECKING

from shim.errors import BrokenFile, PullFailed, ShimError, WrongUse
from shim.phase import settings
from shim.phase.invocation import WRAPPED
from shim.record import Record
from shim.tools import archive, elf, install, labels, pack
from shim.tools.archive import Node
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shim.daemon.containers import Daemon

LIFECYCLE = "/cnb/lifecycle"
"""Where platforms look for it (https://github.com/buildpacks/spec/blob/main/platform.md)."""
_BELOW = LIFECYCLE.removeprefix("/")


class Derived(Record):
    """What is to be made of which image."""

    image: str
    tag: str
    bundle: str
    environment: Mapping[str, str]
    """`ANALYZED_SHIM_*` settings to bake in."""
    push: bool = False
    platform: str | None = None
    """Such as `linux/arm64`; None: the bundle's."""


def steps(wanted: Derived) -> list[str]:
    """Return what `derive` does, for people."""
    lines = [
        f"save {wanted.image} out of the daemon; pull it first if it is not there",
        f"install the bundle {wanted.bundle} into a copy of its {LIFECYCLE}",
    ]
    lines += [f"set {name}={value}" for name, value in wanted.environment.items()]
    lines += [f"load it as {wanted.tag}, with the configuration, labels, user and environment of {wanted.image}"]
    return [*lines, f"push {wanted.tag}"] if wanted.push else lines


def derive(daemon: Daemon, wanted: Derived, tell: Callable[[str], None]) -> str:
    """Derive an image, and return its ID.

    Args:
        daemon: where the image is, or can be pulled to.
        wanted: what to make.
        tell: is told each step.

    Raises:
        ShimError: a step fails; nothing is left behind.

    """
    _check_settings(wanted.environment)
    platform = f"linux/{install.architecture(wanted.bundle)}"
    _have(daemon, wanted, platform, tell)
    with archive.temporary() as directory:
        saved_as = directory / "image.tar"
        tell(f"saving {wanted.image}")
        archive.keep(daemon.save(wanted.image), saved_as, _Clock(tell).of_bytes)
        saved = archive.read(saved_as, platform)
        if len(saved.platforms) > 1:
            tell(f"{wanted.image} is an image index; taking {saved.platform} of {', '.join(saved.platforms)}")
        layer, replace = assembled(saved, wanted.bundle, wanted.image, tell)
        changed = directory / "derived.tar"
        with changed.open("wb") as out:
            archive.write(saved, out, layer, replace=replace, tag=tagged(wanted.tag), environment=wanted.environment)
        saved_as.unlink()
        tell(f"loading {wanted.tag}, with the shim in the places of {', '.join(WRAPPED)}")
        daemon.load(changed, _Clock(tell).of_bytes)
    image_id = daemon.image_id(wanted.tag)
    if image_id is None:
        raise ShimError(f"the daemon loaded {wanted.tag}, and does not have it", "check the daemon's log")
    if wanted.push:
        tell(f"pushing {wanted.tag}")
        daemon.push(wanted.tag, _Clock(tell).of_layer)
    return image_id


def assembled(saved: archive.Saved, bundle: str, image: str, tell: Callable[[str], None]) -> tuple[bytes, bool]:
    """Return the layer with all of the lifecycle directory, and whether it takes the topmost one's place.

    What layers below have in that directory and the new one doesn't, such as another bundle, is hidden.

    Args:
        saved: the image that it is for.
        bundle: the bundle to install.
        image: the image's name, for messages.
        tell: is told if the bundle can't be packed where that would help.

    Raises:
        OSError: the bundle can't be read.
        ShimError: the image has no lifecycle, or another architecture's.

    """
    before = archive.tree(saved, _BELOW)
    replace = archive.only_has(saved, _BELOW)
    often = _is_packed_often(saved)
    hindrance = pack.hindrance(pathlib.Path(bundle)) if often else ""
    nodes = with_shim(before, bundle, image, packs=often and not hindrance)
    if hindrance:
        tell(f"the bundle stays as large as it is, which pack's builds feel ({hindrance})")
    below = archive.tree(saved.but(layers=saved.layers[:-1]), _BELOW) if replace else before
    return archive.layer_of(nodes, _BELOW, _tops(set(below) - set(nodes))), replace


def _is_packed_often(saved: archive.Saved) -> bool:
    """Return whether this is a lifecycle image, whose topmost layer pack packs in every build with extensions."""
    try:
        return labels.has_extensions(labels.of(saved.config)) is None
    except BrokenFile:  # pack doesn't take it
        return False


def tagged(name: str) -> str:
    """Return an image's name with a tag, `latest` if it has none.

    Raises:
        ShimError: it is a digest reference, which no new image can have.

    """
    if "@" in name:
        raise ShimError(f"{name} is a digest reference, which a new image can't have", "name a tag")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _check_settings(given: Mapping[str, str]) -> None:
    """Refuse a setting that no phase's wrapper reads, or would refuse in every build."""
    known = {name for name in settings.VARIABLES.values() if name.startswith("ANALYZED_SHIM_")}
    known |= {f"ANALYZED_SHIM_{phase.upper()}" for phase in WRAPPED}
    for name in given:
        if name not in known:
            raise WrongUse(f"{name} is not a setting of the shim", f"{', '.join(sorted(known))} can be baked in")
    settings.read({}, given)


class _Clock:
    """Says how far something is that takes long, each two seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._next = tell, time.monotonic() + 2

    def of_bytes(self, count: int) -> None:
        self._say(f"  {count >> 20} MiB")

    def of_layer(self, layer: str, current: int, total: int) -> None:
        if layer and total:
            self._say(f"  {plain(layer)}: {current >> 20} of {total >> 20} MiB")

    def _say(self, words: str) -> None:
        if time.monotonic() > self._next:
            self._next = time.monotonic() + 2
            self._tell(words)


def _have(daemon: Daemon, wanted: Derived, ours: str, tell: Callable[[str], None]) -> None:
    """Have the daemon have the image for the bundle's platform; pull it if it isn't there.

    An image that is there for another platform is pulled only if a platform was asked for, or if the daemon (Docker 29
    with the containerd store) says no platform of it.

    Raises:
        ShimError: the image, or the platform asked for, is another than the bundle's.
        PullFailed: it isn't there and can't be pulled.

    """
    if wanted.platform and not _is_for(wanted.platform, ours):
        raise ShimError(
            f"the bundle {wanted.bundle} is for {ours}, not for {wanted.platform}",
            f"pass --bundle with one made on {wanted.platform}",
        )
    theirs = _platform(daemon, wanted.image)
    if not theirs or (wanted.platform and not _is_for(theirs, ours)):
        tell(f"pulling {wanted.image} for {ours}")
        try:
            daemon.pull(wanted.image, _Clock(tell).of_layer, wanted.platform or ours)
        except PullFailed as problem:
            raise PullFailed(
                f"can't pull {wanted.image} for {ours}: {problem}",
                "check the name; if the image is for another platform, pass a --bundle made there",
            ) from None
        theirs = _platform(daemon, wanted.image)
    if not _is_for(theirs, ours):
        raise ShimError(
            f"{wanted.image} is for {theirs}, and the bundle {wanted.bundle} is for {ours}",
            f"pass --platform {ours} if the image has one, or --bundle with one made on {theirs}",
        )


def _platform(daemon: Daemon, image: str) -> str:
    """Return an image's platform; empty if the daemon has none under that name, or doesn't say."""
    about = daemon.about(image) or {}
    return archive.platform_of({key.lower(): value for key, value in about.items()})


def _is_for(platform: str, wanted: str) -> bool:
    """Return whether a platform, perhaps with a variant, is the one that is wanted."""
    return f"{platform}/".startswith(f"{wanted}/")


def with_shim(before: Mapping[str, Node], bundle: str, image: str, *, packs: bool = False) -> dict[str, Node]:
    """Return a lifecycle directory with the drop-ins and the bundle in it; with those of another bundle removed.

    Owners, modes and times of what was there stay; what is new is the directory's owner's.

    Args:
        before: the directory, by the path below it.
        bundle: the bundle to install.
        image: whose directory it is, for messages.
        packs: whether to pack the bundle, for a layer that is packed in every build.

    Raises:
        NoLifecycle: it isn't a lifecycle directory, or is for another architecture than the bundle.

    """
    nodes = without_shim(before)
    missing = [phase for phase in WRAPPED if phase not in nodes]
    if missing or ("" not in before and not nodes):
        raise install.NoLifecycle(
            f"{image} has no lifecycle in {LIFECYCLE}: {', '.join(missing)} not found",
            "use a builder or lifecycle image",
        )
    for phase in WRAPPED:
        if install.is_script(content(nodes, phase)) or _leads_to_shim(nodes[phase]):
            raise install.NoLifecycle(
                f"{LIFECYCLE}/{phase} in {image} is the shim, and {phase}.real beside it was not found",
                "use the image that it was made of",
            )
    install.check_architecture({phase: content(nodes, phase)[:64] for phase in WRAPPED}, bundle, image)
    top = nodes.setdefault("", Node(_header(tarfile.DIRTYPE, 0o755)))
    at = f"{LIFECYCLE}/{install.NAME}"
    text = install.script(at).encode()
    for phase in WRAPPED:
        nodes[f"{phase}.real"] = nodes[phase]
        nodes[phase] = _owned(Node(_header(tarfile.REGTYPE, 0o755), text), nodes[f"{phase}.real"])
    for path, node in _files(pathlib.Path(bundle), packs):
        nodes[f"{install.NAME}/{path}".rstrip("/")] = _owned(node, top)
    nodes[f"{install.NAME}/bin/analyzed-shim"] = _owned(Node(_header(tarfile.REGTYPE, 0o755), text), top)
    return nodes


def without_shim(before: Mapping[str, Node]) -> dict[str, Node]:
    """Return a lifecycle directory with the real phases back in their places, and no bundle."""
    nodes = {
        path: node for path, node in before.items() if path.partition("/")[0] not in (install.NAME, *install.LEFTOVERS)
    }
    for phase in WRAPPED:
        real = f"{phase}.real"
        if real in nodes and (
            phase not in nodes or install.is_script(nodes[phase].content) or _leads_to_shim(nodes[phase])
        ):
            nodes[phase] = nodes.pop(real)
    return nodes


def content(nodes: Mapping[str, Node], path: str) -> bytes:
    """Return a file's content, following links that stay in the directory; nothing, if they lead elsewhere."""
    for _ in range(8):
        node = nodes.get(path)
        if node is None or not node.header.issym():
            return node.content if node else b""
        target = node.header.linkname
        target = target if target.startswith("/") else f"{LIFECYCLE}/{os.path.dirname(path)}/{target}"
        path = os.path.normpath(target).removeprefix(f"{LIFECYCLE}/")
    return b""


def program(nodes: Mapping[str, Node], path: str) -> elf.Elf | None:
    """Return what a phase's program is; None: a script, or not there."""
    return elf.parse(content(nodes, path))


def _leads_to_shim(node: Node) -> bool:
    return node.header.issym() and os.path.basename(node.header.linkname) == "analyzed-shim"


def _tops(paths: set[str]) -> list[str]:
    """Return the paths of a set that aren't below another one of it."""
    return sorted(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


def _files(bundle: pathlib.Path, packs: bool) -> Iterator[tuple[str, Node]]:
    """Yield a bundle's directories and files, by their path in it."""
    paths = {str(path.relative_to(bundle)): path for path in bundle.rglob("*")}
    files = {name: path.read_bytes() for name, path in paths.items() if not path.is_dir()}
    if packs:
        files = pack.packed(files)
    for name in sorted({"", *(name for name, path in paths.items() if path.is_dir()), *files}):
        if name in files:
            runs = name in paths and paths[name].stat().st_mode & 0o100
            yield name, Node(_header(tarfile.REGTYPE, 0o755 if runs else 0o644), files[name])
        else:
            yield name, Node(_header(tarfile.DIRTYPE, 0o755))


def _header(kind: bytes, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo()
    header.type, header.mode = kind, mode
    return header


def _owned(node: Node, by: Node) -> Node:
    header = node.header
    header.uid, header.gid, header.mtime = by.header.uid, by.header.gid, by.header.mtime
    return node
