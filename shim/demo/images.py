"""Images made of nothing: an OCI image or index, as the blobs and manifests that a registry holds."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any, NamedTuple

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Image(NamedTuple):
    """An image or an index of images."""

    digest: str
    """`sha256:…` of what its tag names."""
    media_type: str
    blobs: dict[str, tuple[str, bytes]]
    """All that belongs to it, by digest: media type and content."""

    def config_digest(self, architecture: str) -> str:
        """Return `sha256:…` of an architecture's configuration, which is its ID in a daemon's classic store."""
        return str(self._json(self.manifest_digest(architecture))["config"]["digest"])

    def manifest_digest(self, architecture: str) -> str:
        for entry in self._json(self.digest).get("manifests", []):
            if entry["platform"]["architecture"] == architecture:
                return str(entry["digest"])
        return self.digest

    def _json(self, digest: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.blobs[digest][1])
        return content


def single(text: str, architecture: str) -> Image:
    """Make an image for one architecture, with one layer that holds a text."""
    files = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n",
        "etc/os-release": b'ID="standin"\nVERSION_ID="1"\n',
        "run-image.txt": text.encode(),
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return image(architecture, {"Labels": {"io.buildpacks.stack.id": "standin"}}, raw.getvalue())


def image(architecture: str, config: dict[str, Any], *layers: bytes) -> Image:
    """Make an image of layers, each a tar archive."""
    rootfs = {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]}
    whole: dict[str, Any] = {"architecture": architecture, "os": "linux", "config": config, "rootfs": rootfs}
    whole["history"] = [{"created": "1980-01-01T00:00:01Z"} for _ in layers]  # Podman needs both
    blobs: dict[str, tuple[str, bytes]] = {}
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    manifest["config"] = _add(blobs, CONFIG, json.dumps(whole).encode())
    manifest["layers"] = [_add(blobs, LAYER, gzip.compress(layer, mtime=0)) for layer in layers]
    top = _add(blobs, MANIFEST, json.dumps(manifest).encode())
    return Image(digest=str(top["digest"]), media_type=MANIFEST, blobs=blobs)


def multi(text: str) -> Image:
    return index({name: single(f"{text} for {name}", name) for name in ("amd64", "arm64")})


def index(images: dict[str, Image]) -> Image:
    """Make an index of images by their architecture."""
    blobs = {digest: blob for image in images.values() for digest, blob in image.blobs.items()}
    entries = []
    for architecture, image in images.items():
        entry = {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.blobs[image.digest][1])}
        entries.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    top = _add(blobs, INDEX, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())
    return Image(digest=str(top["digest"]), media_type=INDEX, blobs=blobs)


def _add(blobs: dict[str, tuple[str, bytes]], media_type: str, content: bytes) -> dict[str, object]:
    digest = _digest(content)
    blobs[digest] = (media_type, content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
