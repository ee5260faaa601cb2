"""Credentials for a pull: `CNB_REGISTRY_AUTH`, else the user's Docker configuration.

What can't be read is one line that names the file and the key, and the pull goes on without, as `docker pull` does.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from typing import TYPE_CHECKING

from shim.record import environment
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Warn = Callable[[str], None]
    Credentials = dict[str, str]

_HUB = (
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "registry-1.docker.io",
    "registry.hub.docker.com",
)
"""The names that Docker Hub's credentials are kept under; the first is the one that `docker login` uses."""
_MOST = 4 << 20
_HELPER_SECONDS = 10.0
_HELPER_MOST = 1 << 16


_NONE = object()
"""There is no entry, which is not the same as one that is null."""


class Unreadable(Exception):
    """Something of the configuration that can't be read; the words say which key and why."""


def registry_of(repository: str) -> str:
    """Return the registry of a repository, `docker.io` if it names none."""
    first, slash, _ = repository.partition("/")
    if not slash or not (any(letter in first for letter in ".:") or first == "localhost" or first != first.lower()):
        return "docker.io"
    return "docker.io" if first in _HUB else first


def credentials_for(repository: str, environ: Mapping[str, str], warn: Warn) -> Credentials | None:
    """Return the credentials for an image, as the daemon takes them, or None.

    Args:
        repository: the image's name without tag or digest.
        environ: the environment.
        warn: takes one line about each thing that can't be read.

    """
    registry = registry_of(repository)
    names = _HUB if registry == "docker.io" else (registry,)
    return _from_build(names, environ, warn) or _from_configuration(names, environ, warn)


def _from_build(names: tuple[str, ...], environ: Mapping[str, str], warn: Warn) -> Credentials | None:
    """Read `CNB_REGISTRY_AUTH`: a JSON object from registry to an `Authorization` header.

    See https://github.com/buildpacks/spec/blob/main/platform.md#registry-authentication.
    """
    text = environment(environ, "CNB_REGISTRY_AUTH")
    if text is None:
        return None
    try:
        header = _entry(_object(_parse(text), "the value"), names)
        if header is _NONE:
            return None
        if not isinstance(header, str):
            raise Unreadable(f"{names[0]} is not a string")
        kind, _, secret = header.partition(" ")
        if kind.lower() == "bearer":
            return {"registrytoken": secret}
        if kind.lower() == "x-identity":
            return {"identitytoken": secret}
        if kind.lower() != "basic":
            raise Unreadable(f"{names[0]} is neither Basic, Bearer nor X-Identity")
        return _decoded(secret, names[0])
    except Unreadable as problem:
        warn(f"credentials for {names[0]} cannot be read from CNB_REGISTRY_AUTH: {plain(problem)}")
        return None


def _from_configuration(names: tuple[str, ...], environ: Mapping[str, str], warn: Warn) -> Credentials | None:
    path = os.path.join(docker_directory(environ), "config.json")

    def without(problem: object) -> None:
        warn(f"credentials for {names[0]} cannot be read from {plain(path)}: {plain(problem)}; going on without")

    try:
        data = read_configuration(path)
        if data is None:
            return None
        config = _object(_parse(data), "the file")
    except Unreadable as problem:
        without(problem)
        return None
    for read in (_from_helper, _from_auths):
        try:
            found = read(config, names, environ)
        except Unreadable as problem:
            without(problem)
            return None if read is _from_auths else _quietly(config, names, environ)
        if found:
            return found
    return None


def _quietly(config: dict[str, Any], names: tuple[str, ...], environ: Mapping[str, str]) -> Credentials | None:
    """Read what stands in the file itself, after something else of it was said to be unreadable."""
    try:
        return _from_auths(config, names, environ)
    except Unreadable:
        return None


def docker_directory(environ: Mapping[str, str]) -> str:
    """Return where the user's Docker configuration is: `DOCKER_CONFIG`, else `.docker` in the home directory."""
    return environment(environ, "DOCKER_CONFIG") or os.path.join(home(environ), ".docker")


def home(environ: Mapping[str, str]) -> str:
    """Return the user's home directory, by the environment if it says so."""
    return environment(environ, "HOME") or os.path.expanduser("~")


def read_configuration(path: str) -> str | None:
    """Return the text of a configuration, or None if there is no such file.

    Raises:
        Unreadable: it can't be read.

    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(_MOST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        raise Unreadable(getattr(problem, "strerror", None) or str(problem)) from None
    if data is None or len(data) > _MOST:
        raise Unreadable(f"it has more than {_MOST >> 20} MB, or is not a file")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8") from None


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("it is not valid JSON") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable(f"{what} is not a JSON object")
    return value


def _entry(entries: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return the entry of a registry, whose key may have a scheme and a path as in older configurations."""
    for name in names:
        if name in entries:
            return entries[name]
    hosts = {key.partition("://")[2] or key: value for key, value in entries.items()}
    hosts = {key.partition("/")[0]: value for key, value in hosts.items()}
    return next((hosts[name] for name in names if name in hosts), _NONE)


def _from_auths(config: dict[str, Any], names: tuple[str, ...], environ: Mapping[str, str]) -> Credentials | None:  # noqa: ARG001
    auths = config.get("auths")
    if auths is None:
        return None
    entry = _entry(_object(auths, "auths"), names)
    if entry is _NONE:
        return None
    key = f'auths["{names[0]}"]'
    entry = _object(entry, key)
    fields = {
        name: entry[name] for name in ("username", "password", "identitytoken", "registrytoken") if entry.get(name)
    }
    if not all(isinstance(value, str) for value in fields.values()):
        raise Unreadable(f"{key} has a value that is not a string")
    auth = entry.get("auth")
    if auth:
        if not isinstance(auth, str):
            raise Unreadable(f"{key}.auth is not a string")
        fields = {**fields, **_decoded(auth, f"{key}.auth")}
    elif not fields and "auth" in entry:
        raise Unreadable(f"{key}.auth is {json.dumps(auth)}")
    return fields or None


def _decoded(secret: str, key: str) -> Credentials:
    try:
        username, colon, password = base64.b64decode(secret.strip(), validate=True).decode().partition(":")
    except ValueError:  # UnicodeDecodeError is one
        raise Unreadable(f"{key} is not the base64 of UTF-8 text") from None
    if not colon:
        raise Unreadable(f"{key} is not USER:PASSWORD in base64")
    return {"username": username, "password": password.strip("\0")}


def _from_helper(config: dict[str, Any], names: tuple[str, ...], environ: Mapping[str, str]) -> Credentials | None:
    """Ask the credential helper that the configuration names for a registry, else the one for all."""
    helpers = config.get("credHelpers")
    helper = _NONE if helpers is None else _entry(_object(helpers, "credHelpers"), names)
    key = f'credHelpers["{names[0]}"]'
    if helper is _NONE:
        key, helper = "credsStore", config.get("credsStore", "")
    if helper is None or helper == "":
        return None
    if not isinstance(helper, str) or "/" in helper or "\0" in helper:
        raise Unreadable(f"{key} is not the name of a helper")
    program = f"docker-credential-{helper}"
    try:
        return _ask(program, names[0], environ)
    except Unreadable as problem:
        raise Unreadable(f"{key} names {plain(program)}, which {problem}") from None


def _ask(program: str, server: str, environ: Mapping[str, str]) -> Credentials | None:
    """Ask a helper by its protocol (https://github.com/docker/docker-credential-helpers#development)."""
    try:
        process = subprocess.Popen(
            [program, "get"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
        )
    except FileNotFoundError:
        raise Unreadable("is not installed") from None
    except OSError as problem:
        raise Unreadable(f"cannot be run: {problem.strerror}") from None
    try:
        out = _converse(process, server)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
    if process.returncode:
        if b"credentials not found" in out or not out.strip():
            return None
        raise Unreadable(f"failed: {plain(out.decode(errors='replace'), 120)}")
    try:
        found = _object(_parse(out.decode()), "the answer")
    except (Unreadable, UnicodeDecodeError):
        raise Unreadable("did not answer with a JSON object") from None
    username, secret = found.get("Username"), found.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise Unreadable("did not answer with Username and Secret")
    if username == "<token>":
        return {"identitytoken": secret}
    return {"username": username, "password": secret, "serveraddress": server} if secret else None


def _converse(process: subprocess.Popen[bytes], server: str) -> bytes:
    """Send a helper the registry, and return what it answers, if that ends in time; its children aren't waited for."""
    assert process.stdin and process.stdout
    end = time.monotonic() + _HELPER_SECONDS
    try:
        process.stdin.write(server.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass
    out = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise Unreadable(f"did not answer within {_HELPER_SECONDS:g} s")
        part = os.read(process.stdout.fileno(), _HELPER_MOST)
        out += part
        if len(out) > _HELPER_MOST:
            raise Unreadable("answered too much")
        if not part:
            break
    try:
        process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Unreadable(f"did not end within {_HELPER_SECONDS:g} s") from None
    return out
