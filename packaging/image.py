#!/usr/bin/env python3
"""Makes the container image of the shim: all commands, and a bundle for `builder` and `install` to install.

    python packaging/image.py NAME [--docker-host ADDRESS] [--push]

There is nothing in it but the interpreter and the shim, for the platform of this machine. It is loaded into the daemon
that the docker CLI would use.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pathlib
import sys
import tarfile
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import shim
from shim.daemon import containers
from shim.daemon.platform import own_platform
from shim.errors import ShimError
from shim.tools import bundle, install
from shim.tools.derive import tagged

AT = "/opt/analyzed-shim"
LABELS = {
    "org.opencontainers.image.title": "analyzed-shim",
    "org.opencontainers.image.version": shim.__version__,
    "org.opencontainers.image.licenses": "Apache-2.0",
}


def entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    """Return a member of an archive that is root's and has no time."""
    header = tarfile.TarInfo(name)
    header.mode, header.type, header.size = mode, kind, size
    return header


def layer() -> bytes:
    """Return the image's only layer."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, tarfile.open(fileobj=out, mode="w") as archive:
        whole = bundle.make(f"{name}/whole", whole=True)
        (whole / "bin" / "analyzed-shim").write_text(install.script(AT))
        (whole / "bin" / "analyzed-shim").chmod(0o755)
        bundle.make(whole / "bundle")
        archive.addfile(entry("tmp", 0o1777, tarfile.DIRTYPE))
        archive.addfile(entry("opt", 0o755, tarfile.DIRTYPE))
        for path in (whole, *sorted(whole.rglob("*"))):
            inside = f"{AT[1:]}/{path.relative_to(whole)}".removesuffix("/.")
            if path.is_dir():
                archive.addfile(entry(inside, 0o755, tarfile.DIRTYPE))
            else:
                content = path.read_bytes()
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                archive.addfile(entry(inside, mode, size=len(content)), io.BytesIO(content))
    return out.getvalue()


def image(name: str) -> bytes:
    """Return the image's archive, as `docker load` takes it."""
    content = layer()
    config = {
        "architecture": own_platform().split("/")[1],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": [f"{AT}/bin/analyzed-shim"],
            "Env": [f"PATH={AT}/bin", f"ANALYZED_SHIM_BUNDLE={AT}/bundle"],
            "Labels": LABELS,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "packaging/image.py"}],
    }
    parts = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": content,
        "manifest.json": json.dumps(
            [{"Config": "config.json", "RepoTags": [tagged(name)], "Layers": ["layer.tar"]}]
        ).encode(),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for inside, text in parts.items():
            archive.addfile(entry(inside, 0o644, size=len(text)), io.BytesIO(text))
    return out.getvalue()


def main() -> None:
    """Make the image, load it, and push it if asked to."""
    parser = argparse.ArgumentParser(description="Make the container image of the shim.")
    parser.add_argument("name")
    parser.add_argument("--docker-host", help="the daemon; else the one that the docker CLI would use")
    parser.add_argument("--push", action="store_true")
    options = parser.parse_args()
    daemon = containers.Daemon(options.docker_host or os.environ.get("DOCKER_HOST") or None, 60, os.environ)
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(image(options.name))
        file.flush()
        daemon.load(pathlib.Path(file.name), lambda _: None)
    if options.push:
        daemon.push(tagged(options.name))
    print(f"{options.name} is {daemon.image_id(options.name)}")


if __name__ == "__main__":
    try:
        main()
    except ShimError as problem:
        sys.exit(f"packaging/image.py: {problem.with_tip}")
