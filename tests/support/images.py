"""Images with a lifecycle, as a registry holds them, for any architecture."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

from shim.call import WRAPPED
from shim.demo.images import CONFIG, INDEX, LAYER, MANIFEST, Image
from shim.demo.lifecycle import ARCHITECTURE

METADATA = "io.buildpacks.builder.metadata"

OTHER = {"amd64": "arm64", "arm64": "amd64"}[ARCHITECTURE]
PHASES = {"amd64": 62, "arm64": 183}
BUILDER = {METADATA: '{"buildpacks": [], "stack": {}}'}
"""What makes an image a builder."""
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


def image(*layers: list[Any], architecture: str = ARCHITECTURE, labels: dict[str, str] | None = None) -> Image:
    """An image of layers, as a registry holds it."""
    blobs: dict[str, tuple[str, bytes]] = {}

    def add(media_type: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = (media_type, content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    plain = [packed(members) for members in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {
            "User": "1000",
            "Env": ["A=b", "P=/x:$y"],
            "Labels": {"a.b": "c", **(labels or {})},
            "WorkingDir": "/layers",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in plain]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": f"layer {at}"} for at in range(len(plain))],
    }
    entries = [add(LAYER, gzip.compress(one, mtime=0)) for one in plain]
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": add(CONFIG, json.dumps(config).encode())}
    top = add(MANIFEST, json.dumps({**content, "layers": entries}).encode())
    return Image(digest=str(top["digest"]), media_type=MANIFEST, blobs=blobs)


def index(*images: tuple[str, Image]) -> Image:
    """An index of images by their architecture."""
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": one.digest,
            "size": len(one.blobs[one.digest][1]),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, one in images
    ]
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blobs = {name: blob for _, one in images for name, blob in one.blobs.items()}
    return Image(digest=digest, media_type=INDEX, blobs={**blobs, digest: (INDEX, content)})
