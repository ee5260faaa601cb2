"""Images with a lifecycle, as a registry holds them, for any architecture."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from shim.call import WRAPPED
from shim.demo import images
from shim.demo.images import Image
from shim.demo.lifecycle import ARCHITECTURE

METADATA = "io.buildpacks.builder.metadata"

OTHER = {"amd64": "arm64", "arm64": "amd64"}[ARCHITECTURE]
PHASES = {"amd64": 62, "arm64": 183}
ETC = ("etc/passwd", b"root:x:0:0::/:/none\n")


def program(architecture: str) -> bytes:
    """The beginning of a program for an architecture, which nobody runs."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0" + PHASES[architecture].to_bytes(2, "little") + bytes(44)


def member(name: str, content: bytes | None = None, link: str = "", kind: bytes = tarfile.REGTYPE) -> Any:
    header = tarfile.TarInfo(name)
    header.type = tarfile.SYMTYPE if link and kind == tarfile.REGTYPE else kind
    header.linkname, header.mode, header.mtime = link, 0o755, 1000
    header.uid = header.gid = 7
    header.size = len(content or b"")
    return header, content or b""


def lifecycle(architecture: str = ARCHITECTURE) -> list[Any]:
    """A lifecycle as published: one program, and links."""
    links = [member(f"cnb/lifecycle/{phase}", link="lifecycle") for phase in (*WRAPPED, "detector")]
    folders = [member(name, kind=tarfile.DIRTYPE) for name in ("cnb", "cnb/lifecycle")]
    programs = [member("cnb/lifecycle/lifecycle", program(architecture)), member("cnb/lifecycle/launcher", b"launcher")]
    return [*folders, *programs, *links]


def packed(members: list[Any]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        for header, content in members:
            layer.addfile(header, io.BytesIO(content))
    return out.getvalue()


def image(*layers: list[Any], architecture: str = ARCHITECTURE, environ: Any = (), **labels: str) -> Image:
    """An image of layers, as a registry holds it."""
    config: dict[str, Any] = {"User": "1000", "Labels": {"a.b": "c", **labels}, "WorkingDir": "/layers"}
    config["Env"] = ["A=b", "P=/x:$y", *environ]
    return images.image(architecture, config, *map(packed, layers))
