"""For `check`: what else this machine's Docker set-up points to. The phases look at none of it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING

from shim.daemon.credentials import docker_directory, home
from shim.record import environment
from shim.words import plain, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from shim.daemon.find import Address

_MOST = 4 << 20


def elsewhere(address: Address, environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what points to another daemon than the phases': a docker context, and other engines' sockets.

    Args:
        address: where the phases look.
        environ: the environment.

    Returns:
        Pairs of what it is and the address it leads to, fit for a line.

    """
    found = [*_context(address, environ)]
    seen = {_identity(address.socket)} - {None}
    for what, path in _sockets(environ):
        identity = _identity(path)
        if identity is not None and identity not in seen:
            seen.add(identity)
            found.append((what, f"unix://{plain(path)}"))
    return found


def _context(address: Address, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the docker context in use, unless it leads to the same daemon; `DOCKER_HOST` overrides any."""
    if environment(environ, "DOCKER_HOST"):
        return
    directory = docker_directory(environ)
    config = os.path.join(directory, "config.json")
    name, by = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        current = _object(_read(config)).get("currentContext")
        name, by = current if isinstance(current, str) else "", f"currentContext in {plain(config)}"
    if name in ("", "default"):
        return
    try:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    except ValueError:
        return
    meta = _object(_read(os.path.join(directory, "contexts", "meta", digest, "meta.json")))
    host = _object(_object(meta.get("Endpoints")).get("docker")).get("Host")
    url = plain(without_secrets(host)) if isinstance(host, str) and host else "an unknown address"
    path = host.removeprefix("unix://") if isinstance(host, str) and host.startswith("unix://") else ""
    same = url == address.url or (path and _identity(path) is not None and _identity(path) == _identity(address.socket))
    if not same:
        yield f"the docker context {plain(name)} ({by})", url


def _sockets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    at_home = home(environ)
    runtime = environment(environ, "XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    yield "Docker's usual socket", "/var/run/docker.sock"
    yield "rootless Docker", f"{runtime}/docker.sock"
    yield "Docker Desktop", f"{at_home}/.docker/run/docker.sock"
    yield "Docker Desktop", f"{at_home}/.docker/desktop/docker.sock"
    yield "Podman", "/run/podman/podman.sock"
    yield "rootless Podman", f"{runtime}/podman/podman.sock"
    yield "Colima", f"{at_home}/.colima/default/docker.sock"
    yield "Colima", f"{at_home}/.config/colima/default/docker.sock"
    yield "Rancher Desktop", f"{at_home}/.rd/docker.sock"
    yield "OrbStack", f"{at_home}/.orbstack/run/docker.sock"
    yield "Lima", f"{at_home}/.lima/docker/sock/docker.sock"


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells one socket from another, or None if there is none."""
    try:
        about = os.stat(path) if path else None
    except (OSError, ValueError):
        return None
    return (about.st_dev, about.st_ino) if about and stat.S_ISSOCK(about.st_mode) else None


def _read(path: str) -> object:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return json.loads((file.read(_MOST) or b"").decode())
    except (OSError, ValueError, RecursionError):
        return None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
