"""An image as an archive that `docker save` writes and `docker load` reads, with one layer of it changed.

An engine's own commit can't be used: on a containerd store it leaves out of the layer what didn't change, and pack
takes the topmost layer of a lifecycle image for the whole lifecycle. So the layer is written here, and nothing of the
image is ever unpacked to a disk: names, links and devices in an archive from the daemon lead nowhere.

The format: https://github.com/moby/docker-image-spec (`manifest.json`, and what it names).
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import io
import json
import pathlib
import posixpath
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING, Any

from shim.errors import ShimError
from shim.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST = 1 << 30
"""Bytes that a lifecycle directory may have; published ones have 30 to 80 million."""


class BadImage(ShimError):
    """An image's archive isn't what an image should be."""

    exit_code = 65


class Node:
    """A file, link or directory; two names of one file (hard links) have the same node."""

    def __init__(self, header: tarfile.TarInfo, content: bytes = b"") -> None:
        """Take its header, of which the name doesn't count, and its content."""
        self.header = header
        self.content = content


class Saved(Record):
    """What `docker save` wrote of one image, for one platform."""

    path: pathlib.Path
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    """The layers' names in the archive, the lowest first."""
    platforms: tuple[str, ...]
    """Of all images in the archive, such as `linux/amd64`."""

    @property
    def platform(self) -> str:
        """The image's platform, such as `linux/arm64/v8`."""
        return platform_of(self.config)


def platform_of(config: Mapping[str, Any]) -> str:
    """Return the platform that an image's configuration names, such as `linux/arm64/v8`."""
    parts = (config.get("os"), config.get("architecture"), config.get("variant"))
    return "/".join(str(part) for part in parts if part)


def read(path: pathlib.Path, platform: str | None = None) -> Saved:
    """Read what an archive says of its image.

    Args:
        path: the archive.
        platform: which image, if it has several, such as `linux/arm64`; the first, if none is given.

    Raises:
        BadImage: it isn't an archive of an image, or has none for that platform.

    """
    with _broken(path), tarfile.open(path) as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
        found = [
            (config, tuple(str(layer) for layer in entry["Layers"]))
            for entry in json.loads(_content(archive, members["manifest.json"]))
            for config in [json.loads(_content(archive, members[entry["Config"]]))]
        ]
        platforms = tuple(dict.fromkeys(platform_of(config) for config, _ in found))
        for config, layers in found:
            if platform is None or f"{platform_of(config)}/".startswith(f"{platform}/"):
                if len(layers) != len(config["rootfs"]["diff_ids"]) or not set(layers) <= set(members):
                    raise BadImage(
                        f"the daemon's copy of the image for {platform_of(config)} lacks layers", "pull it again"
                    )
                return Saved(path=path, config=config, layers=layers, platforms=platforms)
    raise BadImage(
        f"the image is for {', '.join(platforms) or 'no platform'}, not for {platform}", "name another --platform"
    )


def tree(saved: Saved, directory: str) -> dict[str, Node]:
    """Return what an image has in a directory, by the path below it; the directory itself is the empty path.

    Args:
        saved: the image.
        directory: such as `cnb/lifecycle`, without a leading slash.

    Raises:
        BadImage: a name in the archive, a link or a device there leads out of it, or it is too large.

    """
    found: dict[str, Node] = {}
    with _broken(saved.path), tarfile.open(saved.path) as archive:
        for layer in saved.layers:
            with _layer(archive, layer) as members:
                _apply(found, members, directory)
    return found


def _apply(found: dict[str, Node], members: tarfile.TarFile, directory: str) -> None:
    """Lay a layer over what the layers below it have (https://github.com/opencontainers/image-spec/blob/main/layer.md)."""
    added: dict[str, Node] = {}
    removed: list[str] = []
    for member in members:
        name = clean(member.name)
        parent, base = posixpath.split(name)
        if base == _OPAQUE:
            if directory == parent or directory.startswith(f"{parent}/") or not parent:
                found.clear()
            elif (inside := _below(parent, directory)) is not None:
                removed += [path for path in found if path.startswith(f"{inside}/")]
        elif base.startswith(_WHITEOUT):
            gone = posixpath.join(parent, base.removeprefix(_WHITEOUT))
            if directory == gone or directory.startswith(f"{gone}/"):
                found.clear()
            elif (inside := _below(gone, directory)) is not None:
                removed += [path for path in found if path == inside or path.startswith(f"{inside}/")]
        elif directory.startswith(f"{name}/") or name == directory:
            if not member.isdir():
                raise BadImage(
                    f"/{name} in the image is not a directory", f"use an image with a directory /{directory}"
                )
            if name == directory:
                added[""] = Node(member)
        elif (inside := _below(name, directory)) is not None:
            added[inside] = _node(members, member, {**found, **added}, directory)
    for path in removed:
        found.pop(path, None)
    for path, node in added.items():
        if path and not node.header.isdir():
            for below in [other for other in found if other.startswith(f"{path}/")]:
                del found[below]
        found[path] = node
    if sum(len(node.content) for node in found.values()) > _MOST:
        raise BadImage(f"/{directory} has more than {_MOST >> 20} MiB", "use a builder or lifecycle image")


def _node(members: tarfile.TarFile, member: tarfile.TarInfo, known: Mapping[str, Node], directory: str) -> Node:
    if member.islnk():
        target = _below(clean(member.linkname), directory)
        if target is None or target not in known:
            raise BadImage(f"/{clean(member.name)} is a hard link that leads out of /{directory}", "use another image")
        return known[target]
    if member.isreg():
        if member.size > _MOST:
            raise BadImage(f"/{clean(member.name)} has {member.size} bytes", "use a builder or lifecycle image")
        return Node(member, _content(members, member))
    if member.isdir() or member.issym():
        return Node(member)
    raise BadImage(f"/{clean(member.name)} is a device or a pipe", "use a builder or lifecycle image")


def clean(name: str) -> str:
    """Return a member's name without a leading `/` or `./`.

    Raises:
        BadImage: it has a `..`, which leads out of the root.

    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadImage(f"the image's archive has a name that leads out of it: {name[:80]!r}", "do not use this image")
    return "/".join(parts)


def _below(name: str, directory: str) -> str | None:
    return name.removeprefix(f"{directory}/") if name.startswith(f"{directory}/") else None


def only_has(saved: Saved, directory: str) -> bool:
    """Return whether the topmost layer has, and hides, nothing but what is in a directory."""
    if not saved.layers:
        return False
    with _broken(saved.path), tarfile.open(saved.path) as archive, _layer(archive, saved.layers[-1]) as members:
        for member in members:
            name = clean(member.name)
            if not (f"{name}/".startswith(f"{directory}/") or f"{directory}/".startswith(f"{name}/")):
                return False
    return True


def layer_of(nodes: Mapping[str, Node], directory: str, gone: list[str], epoch: int = 0) -> bytes:
    """Return a layer with a directory, whole.

    Args:
        nodes: what it has, by the path below it.
        directory: such as `cnb/lifecycle`.
        gone: paths that layers below have and this one removes.
        epoch: time of the directories above.

    """
    out = io.BytesIO()
    written: dict[int, str] = {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for depth in range(1, directory.count("/") + 1):
            above = tarfile.TarInfo("/".join(directory.split("/")[:depth]))
            above.type, above.mode, above.mtime = tarfile.DIRTYPE, 0o755, epoch
            archive.addfile(above)
        for path in sorted(nodes):
            node = nodes[path]
            header = copy.copy(node.header)
            header.name = f"{directory}/{path}".rstrip("/")
            header.pax_headers = {key: value for key, value in header.pax_headers.items() if "SCHILY.xattr" in key}
            if header.isreg() and id(node) in written:
                header.type, header.linkname, header.size = tarfile.LNKTYPE, written[id(node)], 0
                archive.addfile(header)
                continue
            written[id(node)] = header.name
            header.size = len(node.content)
            archive.addfile(header, io.BytesIO(node.content))
        for path in gone:
            parent, base = posixpath.split(f"{directory}/{path}")
            archive.addfile(tarfile.TarInfo(f"{parent}/{_WHITEOUT}{base}"))
    return out.getvalue()


def write(
    saved: Saved, target: IO[bytes], layer: bytes, *, replace: bool, tag: str, environment: Mapping[str, str]
) -> str:
    """Write the archive of an image with one layer more, or another topmost one; return its configuration's digest.

    Everything else of its configuration stays, the time too: the same parts make the same image.

    Args:
        saved: the image that it is of.
        target: where to write.
        layer: the layer.
        replace: in the place of the topmost one.
        tag: the new image's name.
        environment: variables that it has in addition.

    Raises:
        BadImage: the image's archive is broken.

    """
    config = json.loads(json.dumps(saved.config))
    digest = hashlib.sha256(layer).hexdigest()
    kept = saved.layers[:-1] if replace else saved.layers
    config["rootfs"]["diff_ids"] = [*config["rootfs"]["diff_ids"][: len(kept)], f"sha256:{digest}"]
    history = config.get("history")
    if history and not replace:
        history.append(
            {"created": config.get("created") or "1970-01-01T00:00:00Z", "created_by": "analyzed-shim builder"}
        )
    settings = config.setdefault("config", {})
    if environment:
        given = [line for line in settings.get("Env") or () if line.partition("=")[0] not in environment]
        settings["Env"] = [*given, *(f"{name}={value}" for name, value in environment.items())]
    content = json.dumps(config, separators=(",", ":")).encode()
    image = hashlib.sha256(content).hexdigest()
    names = [f"{position:04d}.tar" for position in range(len(kept))] + [f"{digest}.tar"]
    manifest = [{"Config": f"{image}.json", "RepoTags": [tag], "Layers": names}]
    with _broken(saved.path), tarfile.open(saved.path) as archive, tarfile.open(fileobj=target, mode="w") as out:
        members = {member.name.removeprefix("./"): member for member in archive}
        _add(out, f"{image}.json", io.BytesIO(content), len(content))
        for name, old in zip(names, kept, strict=False):
            member = _followed(members, old)
            _add(out, name, archive.extractfile(member) or io.BytesIO(), member.size)
        _add(out, names[-1], io.BytesIO(layer), len(layer))
        text = json.dumps(manifest).encode()
        _add(out, "manifest.json", io.BytesIO(text), len(text))
    return f"sha256:{image}"


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    archive.addfile(header, content)


def _followed(members: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    """Return a member, or the one that it is a link to: older engines save a layer that occurs twice as a link."""
    member = members[name]
    for _ in range(len(members)):
        if member.isreg():
            return member
        if member.issym():
            member = members[posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))]
            name = member.name.removeprefix("./")
        else:
            member = members[member.linkname.removeprefix("./")]
    raise KeyError(name)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


@contextlib.contextmanager
def temporary() -> Iterator[pathlib.Path]:
    """Make a temporary directory for archives, and remove it in the end.

    Raises:
        ShimError: a file can't be written there, or another file that is used meanwhile can't be read.

    """
    with tempfile.TemporaryDirectory(prefix="analyzed-shim-") as name:
        try:
            yield pathlib.Path(name)
        except OSError as problem:  # of a full disk it has no file's name
            tip = "" if problem.filename else "set TMPDIR to a directory that has room for the image twice"
            raise ShimError(f"{problem.filename or name}: {problem.strerror}", tip) from None


def keep(parts: Iterable[bytes], path: pathlib.Path, tell: Callable[[int], None] = lambda _: None) -> None:
    """Write an archive to a file, and tell the number of bytes again and again."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            tell(file.tell())


@contextlib.contextmanager
def _layer(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarFile]:
    members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
    file = archive.extractfile(_followed(members, name))
    if file is None:
        raise KeyError(name)
    magic = file.read(4)
    file.seek(0)
    if magic == b"\x28\xb5\x2f\xfd":
        raise BadImage(
            "a layer of the image is compressed with zstd", "push it with gzip, or save it with skopeo first"
        )
    with contextlib.ExitStack() as ends:
        plain = ends.enter_context(gzip.GzipFile(fileobj=file)) if magic[:2] == b"\x1f\x8b" else file
        yield ends.enter_context(tarfile.open(fileobj=plain, mode="r|"))


@contextlib.contextmanager
def _broken(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, KeyError, TypeError, IndexError) as problem:
        raise BadImage(f"the archive {path} is not a whole image: {problem!r}", "pull the image again") from None
