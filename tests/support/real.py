"""Real parts: engines of three kinds and a registry, from Debian's packages, ended by what started them.

The engines differ in what they know of an image that was pulled by its tag: Docker with its classic store the digest
of the index, Podman every digest; and Docker with the containerd store takes the index digest for the image's ID.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator

import docker

from shim.demo.images import Image
from shim.demo.lifecycle import split_tag

ENGINES = ("docker", "podman", "containerd")
"""Debian bookworm's Docker with the overlay2 store, its Podman, and trixie's Docker with the containerd store."""
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where Debian puts daemons and what they start; a user's path needn't have it."""
NEEDED = {
    "registry": ("docker-registry", "skopeo"),
    "docker": ("dockerd",),
    "podman": ("podman", "runc"),
    "containerd": ("mmdebstrap", "unshare"),
}


def missing(part: str) -> list[str]:
    """Return what isn't installed of the programs that a real part needs."""
    return [program for program in NEEDED[part] if shutil.which(program, path=PATH) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _started(command: list[str], log: pathlib.Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "PATH": PATH, **environ}
    command = [shutil.which(command[0], path=PATH) or command[0], *command[1:]]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, env=env
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Registry:
    """A real registry on 127.0.0.1."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._has: dict[str, str] = {}

    def push(self, name: str, image: Image) -> str:
        """Push an image under a name such as `run/app:1.0` with skopeo, and return its full name."""
        full = f"{self.host}/{name}"
        if self._has.get(name) == image.digest:
            return full
        self._has[name] = image.digest
        with tempfile.TemporaryDirectory() as directory:
            lay_out(pathlib.Path(directory), image)
            subprocess.run(
                [
                    "skopeo",
                    "copy",
                    "--all",
                    "--quiet",
                    "--dest-tls-verify=false",
                    f"oci:{directory}",
                    f"docker://{full}",
                ],
                check=True,
            )
        return full

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest of what it has under a tag."""
        kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        headers = {"Accept": f"{kinds}, application/vnd.oci.image.index.v1+json"}
        url = f"http://{self.host}/v2/{repository}/manifests/{tag}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return str(answer.headers["Docker-Content-Digest"])


def lay_out(directory: pathlib.Path, image: Image) -> None:
    """Write an image as an OCI layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md)."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, (_, content) in image.blobs.items():
        (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    size = len(image.blobs[image.digest][1])
    entry = {"mediaType": image.media_type, "digest": image.digest, "size": size}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


class Engine:
    """A real engine, by its socket."""

    def __init__(self, url: str, pid: int, kind: str) -> None:
        self.url = url
        self.pid = pid
        self.kind = kind
        self.client = docker.APIClient(base_url=url, version="auto", timeout=30)

    def pull(self, name: str, platform: str | None = None) -> None:
        repository, tag = name.split("@") if "@" in name else split_tag(name)
        for step in self.client.pull(repository, tag=tag, stream=True, decode=True, platform=platform):
            assert "error" not in step, step

    def id_of(self, reference: str) -> str | None:
        """Return the bare ID of what is under a reference."""
        try:
            found = self.client.inspect_image(reference)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            return None
        return str(found["Id"]).removeprefix("sha256:")

    def tag(self, image: str, name: str) -> None:
        repository, tag = split_tag(name)
        self.client.tag(image, repository, tag)

    def forget(self, prefix: str) -> None:
        """Take all names below a prefix away, and the images that have no other."""
        for image in self.client.images():
            for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                if name.startswith(prefix) and self.id_of(name):
                    try:
                        self.client.remove_image(name)
                    except docker.errors.APIError:
                        if "@" not in name:  # Podman doesn't remove by every digest that it finds
                            raise


@contextlib.contextmanager
def registry(directory: pathlib.Path) -> Iterator[Registry]:
    """Start a registry with its storage in a directory."""
    host = f"127.0.0.1:{free_port()}"
    config = directory / "registry.yml"
    storage = directory / "registry"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        f"http: {{addr: {host}}}\n"
    )
    with _started(["docker-registry", "serve", str(config)], directory / "registry.log") as process:
        _wait(lambda: _answers(f"http://{host}/v2/"), process, directory / "registry.log")
        yield Registry(host)


@contextlib.contextmanager
def engine(kind: str, directory: pathlib.Path, registry: str) -> Iterator[Engine]:
    """Start an engine with all that is its own in a directory, which trusts a registry."""
    sock = directory / "engine.sock"
    with tempfile.TemporaryDirectory() as run:
        command, environ = _COMMANDS[kind](directory, sock, registry, run)
        try:
            with _started(command, directory / "engine.log", **environ) as process:
                _wait(lambda: _listens(sock), process, directory / "engine.log")
                yield Engine(f"unix://{sock}", process.pid, kind)
        finally:
            _unmount_below(directory)
            _unmount_below(pathlib.Path(run))


_Command = tuple[list[str], dict[str, str]]


def _dockerd(
    directory: pathlib.Path, sock: pathlib.Path, registry: str, _: str, containerd_store: bool = False
) -> _Command:
    features = {"containerd-snapshotter": containerd_store}  # which of the two is the default depends on its version
    (directory / "daemon.json").write_text(json.dumps({"features": features}))
    command = ["dockerd", "--host", f"unix://{sock}", "--config-file", str(directory / "daemon.json")]
    command += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--insecure-registry", registry]
    for option, name in (("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")):
        command += [option, str(directory / name)]
    return command, {}


def _dockerd_of_trixie(directory: pathlib.Path, sock: pathlib.Path, registry: str, run: str) -> _Command:
    """A dockerd in a Debian root of its own; the directory is in there under the same path."""
    root = debian_root(directory / "trixie", "trixie", "docker.io")
    command, _ = _dockerd(directory, sock, registry, run, containerd_store=True)
    enter = str(pathlib.Path(__file__).parent / "in-root.sh")
    return [enter, root, str(directory), *command], {}


def _podman(directory: pathlib.Path, sock: pathlib.Path, registry: str, run: str) -> _Command:
    (directory / "tmp").mkdir()
    (directory / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nlog_driver = "k8s-file"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'tmp_dir = "{directory}/tmp/libpod"\n[network]\nnetwork_config_dir = "{directory}/networks"\n'
    )
    (directory / "registries.conf").write_text(
        f'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
    )
    command = ["podman", "--root", f"{directory}/root", "--runroot", run]  # at most 50 characters
    command += ["--storage-driver", "overlay", "system", "service", "--time=0", f"unix://{sock}"]
    environ = {"CONTAINERS_CONF": f"{directory}/containers.conf", "TMPDIR": f"{directory}/tmp"}
    return command, {**environ, "CONTAINERS_REGISTRIES_CONF": f"{directory}/registries.conf"}


_COMMANDS: dict[str, Callable[[pathlib.Path, pathlib.Path, str, str], _Command]] = {
    "docker": _dockerd,
    "podman": _podman,
    "containerd": _dockerd_of_trixie,
}


def debian_root(target: pathlib.Path, suite: str, *packages: str) -> str:
    """Extract packages and what in-root.sh needs, without configuring any; a mirror may stall, and is asked thrice."""
    include = ",".join(("base-files", "dash", "coreutils", "mount", *packages))
    command = ["timeout", "--kill-after=10", "180"]
    command += ["mmdebstrap", "--quiet", "--variant=extract", f"--include={include}", suite, str(target)]
    for _ in range(3):
        made = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
        if not made.returncode:
            return str(target)
        subprocess.run(["rm", "-rf", "--one-file-system", str(target)], check=True)
    raise RuntimeError(f"{command!r} failed: {made.stderr[-2000:]}")


def _unmount_below(directory: pathlib.Path) -> None:
    """Unmount what dockerd leaves mounted when it ends, such as its network namespace."""
    mounts = [line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def _listens(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _wait(ready: object, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    assert callable(ready)
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} didn't start: {log.read_text()[-2000:]}")
        time.sleep(0.1)
