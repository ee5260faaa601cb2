"""`check --image`: is a builder or lifecycle image affected, by which platforms, and is the shim in it?

The image isn't run: its labels are read, and what its layers have in the lifecycle directory. Which Platform API a
platform takes was read in pack 0.40 (`internal/build`) and java-buildpack-client 0.0.14, which Quarkus uses.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

from shim.errors import BrokenFile, MissingFile
from shim.phase.invocation import WRAPPED
from shim.record import Record, fields
from shim.tools import archive, install, labels
from shim.tools.derive import LIFECYCLE
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.daemon.containers import Daemon
    from shim.tools.archive import Node

    Api = tuple[int, ...]

AFFECTED: tuple[Api, ...] = ((0, 10), (0, 11))
"""Platform APIs at which the restorer looks the run image up without knowing of the daemon (lifecycle issue 1457)."""
_REWRITES_SINCE = (0, 17)
"""The first lifecycle that spoils the reference: it leaves it empty, and 0.18 and later write a digest."""
_PACK_KNOWS: Api = (0, 15)
"""The newest Platform API that pack knows; it takes the newest that the image offers too."""
_JAVA_TAKES: Api = (0, 10)


class Platform(Record):
    """What one platform does with an image."""

    platform: str
    takes: str | None
    """The Platform API, such as `0.11`; None: the image offers none that it takes."""
    affected: bool


class ImageChecked(Record):
    """All that `check --image` found."""

    image: str
    image_id: str
    platform: str
    """Such as `linux/amd64`."""
    kind: str
    """`builder` or `lifecycle image`."""
    lifecycle: str | None
    """Its version; None if the image doesn't say it."""
    platform_apis: tuple[str, ...]
    extensions: bool | None
    """Whether it has image extensions; None: a lifecycle image, used with any builder."""
    drop_ins: tuple[str, ...]
    """The phases that have a drop-in."""
    shim: str | None
    """The version of the shim in it; None if there is none, or it doesn't say."""
    affected: bool
    """Whether a daemon build by one of the platforms below fails, or may stand on another image."""
    platforms: tuple[Platform, ...]
    reason: str
    do: str

    def as_values(self) -> dict[str, object]:
        """Return all as what JSON can hold; what is not known is left out."""
        values: dict[str, object] = {"schema": 1, "phase": "check-image"}
        values.update((name, value) for name, value in fields(self).items() if value is not None)
        values["platforms"] = [
            {name: value for name, value in fields(one).items() if value is not None} for one in self.platforms
        ]
        return values


def check_image(daemon: Daemon, name: str) -> ImageChecked:
    """Look at a builder or lifecycle image that the daemon has.

    Args:
        daemon: the daemon that the docker CLI would use.
        name: the image's name.

    Raises:
        MissingFile: the daemon doesn't have the image.
        NoLifecycle: it has no lifecycle in /cnb/lifecycle.
        BadImage: its archive can't be read.
        Unreachable: the daemon doesn't answer usably.

    """
    image_id = daemon.image_id(name)
    if image_id is None:
        raise MissingFile(f"{name} is not in the daemon", f"docker pull {name}")
    with archive.temporary() as directory:
        path = directory / "image.tar"
        archive.keep(daemon.save(name), path)
        saved = archive.read(path)
        nodes = archive.tree(saved, LIFECYCLE.removeprefix("/"))
    labelled = labels.of(saved.config)
    if not any(phase in nodes for phase in WRAPPED):
        raise install.NoLifecycle(f"{name} has no lifecycle in {LIFECYCLE}", "name a builder or lifecycle image")
    return _judge(
        name=name,
        image_id=image_id,
        platform=saved.platform,
        described=_described(labelled, nodes),
        extensions=labels.has_extensions(labelled),
        nodes=nodes,
    )


def _judge(
    *,
    name: str,
    image_id: str,
    platform: str,
    described: tuple[str | None, tuple[Api, ...]],
    extensions: bool | None,
    nodes: Mapping[str, Node],
) -> ImageChecked:
    version, apis = described
    drop_ins = tuple(phase for phase in WRAPPED if f"{phase}.real" in nodes)
    found = ImageChecked(
        image=name,
        image_id=image_id,
        platform=platform,
        kind="lifecycle image" if extensions is None else "builder",
        lifecycle=version,
        platform_apis=tuple(map(_dotted, apis)),
        extensions=extensions,
        drop_ins=drop_ins,
        shim=_version_of_shim(nodes),
        affected=False,
        platforms=(),
        reason="",
        do="nothing",
    )
    if extensions is False:
        return found.but(reason="it has no image extensions, without which the restorer looks nothing up")
    if version and _numbers(version) and _numbers(version) < _REWRITES_SINCE:
        return found.but(reason=f"lifecycle {version} does not rewrite the run image; 0.17 and later do")
    pack = max((api for api in apis if api <= _PACK_KNOWS), default=None)
    by_hand = max((api for api in apis if api in AFFECTED), default=None)
    script = ("a script with CNB_PLATFORM_API 0.10 or 0.11", by_hand)
    takes: tuple[tuple[str, Api | None], ...] = (
        ("pack", pack),
        ("java-buildpack-client, Quarkus", _JAVA_TAKES if _JAVA_TAKES in apis else None),
        script,
    )
    if extensions is None:  # pack takes the newest that the builder has too; the others run the builder's lifecycle
        takes = (("pack, with a builder that has 0.11 at most", by_hand), script)
    whole = set(drop_ins) == set(WRAPPED)
    platforms = tuple(
        Platform(platform=who, takes=_dotted(api) if api else None, affected=not whole and api in AFFECTED)
        for who, api in takes
    )
    found = found.but(platforms=platforms, affected=any(one.affected for one in platforms))
    if whole:
        return found.but(reason=f"analyzed-shim {found.shim or ''} is in it".replace("  ", " "))
    if not apis:
        return found.but(
            reason="it does not say which Platform APIs it offers", do="run check between the detector and the restorer"
        )
    if not found.affected:
        return found.but(reason="it offers neither Platform API 0.10 nor 0.11")
    what = "its restorer looks the run image up in the registry in a daemon build at Platform API 0.10 and 0.11"
    if extensions is None:
        what += ", if the builder has image extensions"
    return found.but(reason=what, do=f"analyzed-shim builder {name} --tag NAME")


def _described(labelled: Mapping[str, str], nodes: Mapping[str, Node]) -> tuple[str | None, tuple[Api, ...]]:
    """Return the lifecycle's version and Platform APIs: by the image's labels, else by its `lifecycle.toml`."""
    lifecycle = _table(labels.table(labelled, labels.METADATA), "lifecycle")
    descriptor: dict[str, Any] = {}
    if "lifecycle.toml" in nodes:
        try:
            descriptor = tomllib.loads(nodes["lifecycle.toml"].content.decode())
        except ValueError as problem:
            raise BrokenFile(f"{LIFECYCLE}/lifecycle.toml is not valid TOML: {problem}", "use another image") from None
    version = (
        labelled.get("io.buildpacks.lifecycle.version")
        or lifecycle.get("version")
        or _table(descriptor, "lifecycle").get("version")
    )
    for offered in (
        labels.table(labelled, "io.buildpacks.lifecycle.apis"),
        _table(lifecycle, "apis"),
        _table(descriptor, "apis"),
    ):
        platform = _table(offered, "platform")
        listed = [*_list(platform, "deprecated"), *_list(platform, "supported")]
        apis = sorted({api for text in listed if (api := _numbers(str(text)))})
        if apis:
            return _said(version), tuple(apis)
    return _said(version), ()


def _version_of_shim(nodes: Mapping[str, Node]) -> str | None:
    listed = nodes.get(f"{install.NAME}/sbom.cdx.json")
    if listed is None:
        return None
    try:
        components = json.loads(listed.content)["components"]
        return next(_said(part["version"]) for part in components if part["name"] == "analyzed-shim")
    except (ValueError, KeyError, TypeError, StopIteration):
        return None


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values.get(key)
    return value if isinstance(value, list) else []


def _said(version: object) -> str | None:
    return plain(str(version)).removeprefix("v")[:40] if version else None


def _numbers(text: str) -> Api:
    """Return a version's numbers, or nothing if it doesn't begin with one: `0.20.5+git-1` is (0, 20, 5)."""
    found = re.match(r"v?(\d{1,6}(?:\.\d{1,6}){0,2})", text)
    return tuple(map(int, found[1].split("."))) if found else ()


def _dotted(api: Api) -> str:
    return ".".join(map(str, api))


def lines_of(checked: ImageChecked) -> list[str]:
    """Return what was found, for a person."""
    extensions = {True: "yes", False: "no", None: "the builder decides"}[checked.extensions]
    version = f" (analyzed-shim {checked.shim})" if checked.shim and checked.drop_ins else ""
    lines = [
        f"image:          {checked.image}, a {checked.kind} for {checked.platform}",
        f"lifecycle:      {checked.lifecycle or 'not said'}",
        f"Platform APIs:  {', '.join(checked.platform_apis) or 'not said'}",
        f"extensions:     {extensions}",
        f"drop-ins:       {', '.join(checked.drop_ins) or 'none'}{version}",
        f"affected:       {'yes' if checked.affected else 'no'}: {checked.reason}",
    ]
    width = max((len(one.platform) for one in checked.platforms), default=0)
    for one in checked.platforms:
        takes = f"takes {one.takes}" if one.takes else "finds no Platform API that it takes"
        lines.append(f"  {one.platform:{width}}  {takes}: {'affected' if one.affected else 'not affected'}")
    return [*lines, f"to do:          {checked.do}"]
