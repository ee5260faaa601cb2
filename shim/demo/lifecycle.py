#!/usr/bin/env python3
"""A stand-in for the Cloud Native Buildpacks lifecycle, for demonstrations and tests. It builds nothing.

Like the real one it is one program for all phases, which picks the phase from the base name it is called by, and writes
to stdout. It does what real lifecycles were measured to do to analyzed.toml at Platform API 0.10 to 0.12:

  analyzer  writes analyzed.toml: the run image (-run-image or STANDIN_RUN_IMAGE) as an ID (-daemon) or a digest
  detector  writes both files again: an extension switches to STANDIN_SWITCH, or with STANDIN_EXTENSION=1 to nothing
  restorer  asks the registry for the run image, and writes its digest, fails or crashes; with -daemon (0.12) or
            CNB_USE_DAEMON it asks the daemon
  exporter  fails on a reference that the daemon or registry doesn't have; else tags the run image as the app (-daemon)

STANDIN_VERSION is the lifecycle that it behaves like: 0.17 or 0.20 (the default, for 0.18 to 0.21).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import socket
import sys
import tomllib
import urllib.parse
from typing import Any

PHASES = ("analyzer", "detector", "restorer", "builder", "exporter")
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
BUILDPACKS = '[[group]]\n  id = "standin/buildpack"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSIONS = '\n[[group-extensions]]\n  id = "standin/extension"\n  version = "0.1"\n  api = "0.9"\n'


class Failure(Exception):
    """The phase fails with an exit status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


def ask(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return the status, the headers and the body of an answer."""
    try:
        connection.request(method, path, headers={"Accept": ", ".join((*INDEXES, *MANIFESTS))})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask_daemon(method: str, path: str) -> tuple[int, Any]:
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        status, _, body = ask(UnixConnection(host.removeprefix("unix://")), method, path)
    except OSError as problem:
        raise Failure(1, f"failed to initialize docker client: {problem}") from None
    return status, json.loads(body) if body.startswith(b"{") else None


def daemon_image(reference: str) -> dict[str, Any] | None:
    status, found = ask_daemon("GET", f"/images/{urllib.parse.quote(reference, safe='/:@')}/json")
    return found if status == 200 else None


def registry_image(reference: str) -> tuple[str, dict[str, str]] | None:
    """Return `repo@digest` of an image for this architecture, and its target, as the registry has it."""
    repository, digest = reference.partition("@")[::2]
    repository, tag = (repository, digest) if digest else split_tag(repository)
    host, _, name = repository.partition("/")
    if not name or not ("." in host or ":" in host or host == "localhost"):
        return None  # an image of Docker Hub, which a stand-in doesn't ask
    found = manifest(host, name, tag)
    if found is None:
        return None
    digest, content = found
    for entry in content.get("manifests", []):
        if entry["platform"]["os"] == "linux" and entry["platform"]["architecture"] == ARCHITECTURE:
            digest = entry["digest"]
    return f"{repository}@{digest}", {"os": "linux", "arch": ARCHITECTURE}


def split_tag(name: str) -> tuple[str, str]:
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "latest")


def manifest(host: str, name: str, tag: str) -> tuple[str, dict[str, Any]] | None:
    """Return a manifest's digest and content from a registry that speaks plain HTTP; None if it can't be had."""
    try:
        connection = http.client.HTTPConnection(host, timeout=10)
        status, headers, body = ask(connection, "GET", f"/v2/{name}/manifests/{tag}")
    except (OSError, http.client.HTTPException):
        return None
    return (headers["Docker-Content-Digest"], json.loads(body)) if status == 200 else None


class Phase:
    """One run of a phase."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        env = os.environ
        flags = argparse.ArgumentParser(name, description=__doc__, allow_abbrev=False, prefix_chars="-")
        flags.formatter_class = argparse.RawDescriptionHelpFormatter
        flags.add_argument("-version", action="store_true")
        defaults = {"run-image": env.get("STANDIN_RUN_IMAGE"), "layers": env.get("CNB_LAYERS_DIR") or "/layers"}
        paths = "analyzed group cache-dir app stack platform buildpacks extensions order generated launcher"
        for flag in (*defaults, *paths.split(), "log-level", "build-image"):
            flags.add_argument(f"-{flag}", f"--{flag}", default=defaults.get(flag))
        for flag, variable in (("uid", "CNB_USER_ID"), ("gid", "CNB_GROUP_ID")):
            flags.add_argument(f"-{flag}", f"--{flag}", type=int, default=int(env.get(variable) or 0))
        for flag in ("daemon", "skip-layers", "no-color", "parallel"):
            flags.add_argument(f"-{flag}", f"--{flag}", action="store_true")
        flags.add_argument("images", nargs="*")
        self.name = name
        self.flags = flags.parse_args([argument.replace("-daemon=true", "-daemon") for argument in arguments])
        api = tuple(map(int, (env.get("CNB_PLATFORM_API") or "0.3").split(".")))
        self.extends, self.newer = api >= (0, 10), api >= (0, 12)
        self.version = env.get("STANDIN_VERSION") or "0.20"
        layers = self.flags.layers
        self.analyzed = self.flags.analyzed or env.get("CNB_ANALYZED_PATH") or f"{layers}/analyzed.toml"
        self.group = self.flags.group or env.get("CNB_GROUP_PATH") or f"{layers}/group.toml"
        self.daemon = self.flags.daemon or env.get("CNB_USE_DAEMON") == "true"

    def run(self) -> None:
        if self.flags.version:
            print(f"{self.version}.0+standin")
        else:
            getattr(self, self.name)()

    def drop_privileges(self) -> None:
        """Become the user of the build, as every phase of the real lifecycle does that starts as root."""
        if os.getuid() == 0 and self.flags.uid:
            "host".encode("idna")  # is imported at its first use, and that user may not be able to read it
            os.setgroups([])
            os.setgid(self.flags.gid)
            os.setuid(self.flags.uid)

    def analyzer(self) -> None:
        """Write analyzed.toml, and give the layers directory to the user of the build."""
        run_image: dict[str, Any] = {}
        if self.flags.run_image:
            found = daemon_image(self.flags.run_image) if self.daemon else registry_image(self.flags.run_image)
            if found is None:
                raise Failure(1, f"failed to get run image {self.flags.run_image}")
            reference = found["Id"].removeprefix("sha256:") if isinstance(found, dict) else found[0]
            newer = {"image": self.flags.run_image, "target": {"os": "linux", "arch": ARCHITECTURE}}
            run_image = {"reference": reference, **(newer if self.newer else {})}
        write(self.analyzed, {"image": {"reference": ""}, "run-image": run_image})
        if os.getuid() == 0 and self.flags.uid:
            for path in (self.flags.layers, self.analyzed, *(entry.path for entry in os.scandir(self.flags.layers))):
                os.lchown(path, self.flags.uid, self.flags.gid)
        self.drop_privileges()

    def detector(self) -> None:
        """Write group.toml and, where an extension is in the group, analyzed.toml without what isn't known."""
        self.drop_privileges()
        switch = os.environ.get("STANDIN_SWITCH")
        extension = switch or os.environ.get("STANDIN_EXTENSION")
        with open(self.group, "w") as file:
            file.write(BUILDPACKS + (EXTENSIONS if extension else ""))
        if extension:
            document = read(self.analyzed)
            if switch:
                document["run-image"] = {"reference": "" if self.version == "0.17" else switch, "image": switch}
            write(self.analyzed, document)

    def restorer(self) -> None:
        """Update the run image in analyzed.toml, as 0.17, 0.18 to 0.21, and 0.12 with -daemon do."""
        if self.flags.daemon and not self.newer:
            raise Failure(2, "flag provided but not defined: -daemon")
        self.drop_privileges()
        try:
            with open(self.group, "rb") as file:
                extensions = tomllib.load(file).get("group-extensions")
        except (OSError, tomllib.TOMLDecodeError) as problem:
            raise Failure(1, f"failed to read group file: {problem}") from None
        try:
            document = read(self.analyzed)
        except (OSError, tomllib.TOMLDecodeError) as problem:
            print(f"Warning: Not using analyzed data, usable file not found: {problem}")
            return
        run_image = document["run-image"]
        target = run_image.get("target", {}).get("os")
        if extensions and run_image and not target and self.extends and (self.newer or self.version != "0.17"):
            self.update(run_image)
        write(self.analyzed, document)

    def update(self, run_image: dict[str, Any]) -> None:
        name = run_image.get("image", "")
        if not name:
            print("panic: runtime error: invalid memory address or nil pointer dereference", file=sys.stderr)
            raise Failure(2, "[signal SIGSEGV: segmentation violation]")
        target = {"os": "linux", "arch": ARCHITECTURE}
        if self.daemon and not run_image.get("extend"):
            image = daemon_image(name)
            found = image and (image["Id"].removeprefix("sha256:"), target)
        else:
            found = registry_image(name)
        if not found:
            raise Failure(1, f"failed to get run image {name}")
        run_image["reference"] = found[0]
        if self.newer:
            run_image["target"] = found[1]

    def builder(self) -> None:
        self.drop_privileges()

    def exporter(self) -> None:
        reference = read(self.analyzed)["run-image"].get("reference", "")
        if not reference:
            raise Failure(3, "run image not found in analyzed metadata")
        if not self.daemon:
            if "/" not in reference:
                raise Failure(1, f'failed to create new app image: connect to repo store "{reference}"')
            found = registry_image(reference)
            if found is None:
                raise Failure(1, f"failed to get run image {reference}")
            print(f"*** Images on {found[0]}: {' '.join(self.flags.images)}")
            return
        image = daemon_image(reference)
        if image is None:
            raise Failure(62, "failed to export: get run image top layer SHA: image has no layers")
        for name in self.flags.images:
            query = urllib.parse.urlencode(dict(zip(("repo", "tag"), split_tag(name), strict=True)))
            ask_daemon("POST", f"/images/{urllib.parse.quote(image['Id'], safe=':')}/tag?{query}")
        print(f"*** Images on {image['Id']}: {' '.join(self.flags.images)}")


def read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        document = tomllib.load(file)
    known = ("reference", "image", "extend", "target")
    run_image = {key: value for key, value in document.get("run-image", {}).items() if key in known}
    return {"image": document.get("image", {"reference": ""}), "run-image": run_image}


def write(path: str, document: dict[str, Any]) -> None:
    run_image = dict(document["run-image"])
    lines = ["[image]", f'  reference = "{document["image"]["reference"]}"', "", "[metadata]"]
    for table in ("config", "launcher", "process-types"):
        lines += [f"  [metadata.{table}]", '    sha = ""']
    lines += ["  [metadata.run-image]", '    top-layer = ""', '    reference = ""']
    if run_image:
        target = run_image.pop("target", {})
        lines += ["", "[run-image]", *(f"  {key} = {json.dumps(value)}" for key, value in run_image.items())]
        if target:
            lines += ["  [run-image.target]", *(f"    {key} = {json.dumps(value)}" for key, value in target.items())]
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def main() -> int:
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    if name not in PHASES:
        print(__doc__)
        return 0 if {"-h", "--help", "-help"} & set(sys.argv[1:]) else 1
    try:
        Phase(name, sys.argv[1:]).run()
    except Failure as failure:
        print(f"ERROR: {failure}")  # to stdout, as the lifecycle does
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
