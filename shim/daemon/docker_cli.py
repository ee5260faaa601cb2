"""The docker CLI's daemon, for `builder` and `demo --docker`: by its context, with docker-py."""

from __future__ import annotations

import errno
import os
import stat

from shim.errors import PullFailed, Unreachable
from shim.record import Record, environment, is_hex_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    from docker import APIClient

    from shim.daemon.find import State

    _T = TypeVar("_T")

    import socket as _socket
else:
    import _socket  # `socket` wraps it in enums, at half a bare interpreter start

_MOST = 16 << 20
"""Bytes that an answer may have; what an engine says of an image has some thousands."""
_UNREADABLE_IS = "look at the daemon, or give its address with --docker-host"


class Address(Record):
    """Where the daemon is, as far as can be told without asking it."""

    url: str
    """Its address; empty where the docker context has it, or where there is none."""
    state: State
    """`absent`, `denied`, `silent`, or `unasked`: it can be asked."""
    detail: str
    """What is the matter, in words."""


def find(docker_host: str | None, environ: Mapping[str, str]) -> Address:
    """Find the daemon: the given address, else the docker context, else the usual sockets.

    Args:
        docker_host: `--docker-host` or `DOCKER_HOST`.
        environ: the environment.

    """
    if docker_host is not None:
        socket = _socket_of(docker_host)
        return _look(socket) if socket else Address(url=docker_host, state="unasked", detail="")
    if _context_name(environ):
        return Address(url="", state="unasked", detail="")
    seen = [address for address in map(_look, _usual_sockets(environ)) if address.state != "absent"]
    for address in seen:
        if address.state == "unasked":
            return address
    return seen[0] if seen else Address(url="", state="absent", detail="there is no daemon's socket")


def _socket_of(url: str) -> str:
    if url.startswith("/"):
        return url
    return "/" + url.removeprefix("unix://").lstrip("/") if url.startswith("unix://") else ""


def _usual_sockets(environ: Mapping[str, str]) -> Iterator[str]:
    runtime = environment(environ, "XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    yield "/var/run/docker.sock"
    yield f"{runtime}/docker.sock"
    if "HOME" in environ:
        yield f"{environ['HOME']}/.docker/run/docker.sock"
    yield "/run/podman/podman.sock"
    yield f"{runtime}/podman/podman.sock"


def _look(path: str) -> Address:
    """Look at a socket, and open it where it may be opened; nothing is asked."""
    url = f"unix://{path}"
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return Address(url=url, state="silent", detail=f"{path} isn't a socket")
        if not os.access(path, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        connection = _socket.socket(_socket.AF_UNIX)
        try:
            connection.setblocking(False)
            connection.connect(path)
        finally:
            connection.close()
    except BlockingIOError:  # its queue is full; it may still answer in time
        pass
    except (FileNotFoundError, NotADirectoryError):
        return Address(url=url, state="absent", detail=f"there is no {path}")
    except PermissionError:
        return Address(url=url, state="denied", detail=f"{path} isn't ours to open")
    except OSError as problem:
        return Address(url=url, state="silent", detail=f"nothing answers at {path}: {problem.strerror}")
    return Address(url=url, state="unasked", detail="")


def _context_name(environ: Mapping[str, str]) -> str:
    """Return the docker context's name where one other than the default is in use, else nothing."""
    name = environment(environ, "DOCKER_CONTEXT")
    if name:
        return "" if name == "default" else name
    directory = environment(environ, "DOCKER_CONFIG") or os.path.join(environ.get("HOME", "/"), ".docker")
    try:
        with open(os.path.join(directory, "config.json"), "rb") as file:
            content = file.read()
    except OSError:
        return ""
    if b'"currentContext"' not in content:
        return ""
    import json

    try:
        named = json.loads(content).get("currentContext")
    except (ValueError, AttributeError):
        return ""
    return named if isinstance(named, str) and named != "default" else ""


class Daemon:
    """A connected daemon."""

    def __init__(self, address: Address, timeout: float, environ: Mapping[str, str]) -> None:
        """Connect.

        Args:
            address: where it is.
            timeout: seconds that an answer may take.
            environ: the environment, for TLS and for registry credentials.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        self._environ = environ
        self._client: APIClient = _usable(lambda: _connect(address, timeout, environ))

    def image_id(self, reference: str) -> str | None:
        """Return the hex ID of the image that the daemon has under a reference, or None where it has none.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        from docker.errors import APIError

        def ask() -> str | None:
            try:
                found = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except APIError as problem:
                if problem.status_code in (400, 404):  # 400: not a reference, so nothing is under it
                    return None
                raise
            return str(found["Id"])

        answer = _usable(ask)
        if answer is None:
            return None
        bare = answer.removeprefix("sha256:")
        if not is_hex_id(bare):
            raise Unreachable(f"the daemon answered an ID that isn't one: {bare[:80]!r}", _UNREADABLE_IS)
        return bare

    def pull(self, name: str, tell: Callable[[str, int, int], None]) -> None:
        """Pull an image by name, for the daemon's own platform.

        Args:
            name: the image's name, as it stands.
            tell: is told a layer's ID, how many bytes of it are there, and how many it has.

        Raises:
            PullFailed: it couldn't be pulled.

        """
        repository, tag = _split(name)  # without a tag the daemon would pull every one
        try:
            for step in self._client.pull(
                repository,
                tag=tag,
                stream=True,
                decode=True,
                auth_config=_credentials(repository, self._environ),
            ):
                if "error" in step:
                    raise PullFailed(str(step["error"]))
                progress = step.get("progressDetail") or {}
                tell(str(step.get("id", "")), int(progress.get("current", 0)), int(progress.get("total", 0)))
        except PullFailed:
            raise
        except Exception as problem:  # whatever the library or the daemon makes of it, a build goes on
            raise PullFailed(_one_line(problem)) from None

    def _inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = _usable(lambda: self._client.inspect_image(name))  # type: ignore[no-untyped-call]
        return found

    def tag(self, image_id: str, name: str) -> None:
        """Give an image another name.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        repository, tag = _split(name)
        _usable(lambda: self._client.tag(image_id, repository, tag))

    def forget(self, prefix: str) -> None:
        """Take all names and digests that begin with a prefix out of the daemon.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        for image in _usable(self._client.images):
            for name in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
                if name.startswith(prefix) and self.image_id(name):  # the last tag takes the digests along
                    _usable(lambda name=name: self._client.remove_image(name))  # type: ignore[misc]

    def create(self, image: str) -> str:
        """Create a container of an image, which is never started, and return its ID.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        config = self._inspect(image).get("Config") or {}
        # The API wants a command, and what the container has no later step can take away: an image that has none
        # gets this one, which any command that is given stands in for.
        command = None if config.get("Cmd") or config.get("Entrypoint") else ["/cnb/lifecycle/lifecycle"]
        made: dict[str, Any] = _usable(lambda: self._client.create_container(image, command=command))
        return str(made["Id"])

    def remove(self, container: str) -> None:
        """Remove a container.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        _usable(lambda: self._client.remove_container(container, force=True))

    def copy_out(self, container: str, path: str) -> bytes | None:
        """Return a path of a container as a tar archive, or None where it isn't there.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        from docker.errors import NotFound

        def ask() -> bytes | None:
            try:
                return b"".join(self._client.get_archive(container, path)[0])
            except NotFound:
                return None

        return _usable(ask)

    def copy_in(self, container: str, directory: str, archive: bytes) -> None:
        """Unpack a tar archive into a directory of a container.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        _usable(lambda: self._client.put_archive(container, directory, archive))

    def commit(self, container: str, name: str, environment: Mapping[str, str]) -> str:
        """Make an image of a container, configured as the image that it is of and with more variables; return its ID.

        Raises:
            Unreachable: the daemon doesn't do it.

        """
        changes = "\n".join(f"ENV {key}={_quoted(value)}" for key, value in environment.items()) or None
        repository, tag = _split(name)
        made: dict[str, Any] = _usable(lambda: self._client.commit(container, repository, tag, changes=changes))
        return str(made["Id"])

    def push(self, name: str) -> None:
        """Push an image to its registry.

        Raises:
            PullFailed: it couldn't be pushed.

        """
        repository, tag = _split(name)
        try:
            credentials = _credentials(repository, self._environ)
            for step in self._client.push(repository, tag, stream=True, decode=True, auth_config=credentials):
                if "error" in step:
                    raise PullFailed(str(step["error"]))
        except PullFailed:
            raise
        except Exception as problem:
            raise PullFailed(_one_line(problem)) from None


def _connect(address: Address, timeout: float, environ: Mapping[str, str]) -> APIClient:
    from docker import APIClient
    from docker.context import ContextAPI
    from docker.utils import kwargs_from_env

    class Client(APIClient):
        """Reads no more of an answer than there can be of one, where it is read at once."""

        def send(self, request: Any, **how: Any) -> Any:
            response = super().send(request, **{**how, "stream": True})
            if not how.get("stream"):
                response.raw = _Limited(response.raw)
                response.content  # noqa: B018  # reads and keeps it
            return response

    arguments: dict[str, Any] = {}
    if address.url:
        arguments = {**kwargs_from_env(environ), "base_url": address.url}
    else:
        context = ContextAPI.get_context(_context_name(environ))
        if context is None:
            raise Unreachable("the docker context in use isn't there", "docker context ls shows which are")
        arguments = {"base_url": context.Host, "tls": context.TLSConfig or False}
    ssh = str(arguments["base_url"]).startswith("ssh://")
    return Client(
        version="auto",
        timeout=timeout,  # type: ignore[arg-type]  # requests takes parts of a second
        use_ssh_client=ssh,
        **arguments,
    )


class _Limited:
    """The body of an answer, as `requests` has it, which can't be longer than a limit."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, *arguments: Any, **how: Any) -> Iterator[bytes]:
        """Yield the parts of the body."""
        length = 0
        for part in self._raw.stream(*arguments, **how):
            length += len(part)
            if length > _MOST:
                raise Unreachable(f"the daemon's answer is longer than {_MOST} bytes", _UNREADABLE_IS)
            yield part


def _usable(ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except Unreachable:
        raise
    except Exception as problem:  # the library passes on what requests, urllib3, json and ssl raise
        raise Unreachable(f"the daemon can't be asked: {_one_line(problem)}", _UNREADABLE_IS) from None


def _credentials(repository: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    """Return what `CNB_REGISTRY_AUTH` has for the image's registry; None: the user's Docker configuration counts.

    It is a JSON object from registry to an `Authorization` header
    (https://github.com/buildpacks/spec/blob/main/platform.md#registry-authentication).
    """
    text = environment(environ, "CNB_REGISTRY_AUTH")
    if text is None:
        return None
    import base64
    import json

    from docker.auth import resolve_repository_name

    registry, _ = resolve_repository_name(repository)
    hosts = ("index.docker.io", "docker.io") if registry == "docker.io" else (registry,)
    try:
        known = json.loads(text)
        kind, _, secret = next(known[host] for host in hosts if host in known).partition(" ")
        if kind.lower() == "bearer":
            return {"registrytoken": secret}
        username, _, password = base64.b64decode(secret).decode().partition(":")
    except (ValueError, TypeError, AttributeError, StopIteration):
        return None
    return {"username": username, "password": password}


def _quoted(value: str) -> str:
    """Return a value as a Dockerfile's ENV takes it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def _split(name: str) -> tuple[str, str]:
    """Return a name's repository, and its tag or digest."""
    from docker import utils

    repository, tag = utils.parse_repository_tag(name)
    return repository, tag or "latest"


def _one_line(problem: Exception) -> str:
    explanation = getattr(problem, "explanation", None)  # docker.errors.APIError: what the daemon said
    text = explanation if isinstance(explanation, str) and explanation else str(problem)
    return " ".join((text or type(problem).__name__).split())[:300]
