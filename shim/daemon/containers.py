"""The docker CLI's daemon, for `builder` and `demo --docker`: by its context, with docker-py (nothing else uses it)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from docker import APIClient
from docker.context import ContextAPI
from docker.errors import APIError, TLSParameterError
from docker.utils import config, kwargs_from_env, parse_repository_tag
from requests.utils import get_environ_proxies

from shim.daemon.credentials import Unreadable, credentials_for, docker_directory, read_configuration
from shim.errors import MissingFile, PullFailed, ShimError, Unreachable
from shim.record import environment, is_hex_id
from shim.words import plain, without_secrets

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeVar

    _T = TypeVar("_T")

_TIP = "check the daemon, or pass its address with --docker-host"


def _configuration(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the user's Docker configuration; what can't be read is none, as for the docker CLI."""
    try:
        text = read_configuration(os.path.join(docker_directory(environ), "config.json"))
        found = json.loads(text or "{}")
    except (Unreadable, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _context_name(configuration: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """Return the docker context's name if one other than the default is in use, else nothing."""
    name = environment(environ, "DOCKER_CONTEXT") or configuration.get("currentContext")
    return name if isinstance(name, str) and name != "default" else ""


class _Client(APIClient):
    """The library's client, which takes a proxy from the environment as the docker CLI does, and nothing else."""

    trust_env = property(lambda _: False, lambda *_: None)
    """Requests would take other tools' certificates, and passwords out of `~/.netrc`."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Go by no proxy to loopback."""
        host = urlsplit(url).hostname or ""
        near = host in ("localhost", "::1") or host.startswith("127.")
        proxies = proxies or ({} if near else get_environ_proxies(url))
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _client(configuration: Mapping[str, Any], **how: Any) -> APIClient:
    """Return the library's client, which gets headers of the user's configuration and sees nothing else of it.

    It would read all of it and fail where the docker CLI goes on: at credentials, proxies and headers of any other type
    than they should be. Credentials are `credentials.py`'s.
    """
    headers = configuration.get("HttpHeaders")
    known = {name: text for name, text in headers.items() if isinstance(text, str)} if isinstance(headers, dict) else {}
    reading = config.load_general_config
    config.load_general_config = lambda *_: {"auths": {}, "HttpHeaders": known}
    try:
        return _Client(**how)
    finally:
        config.load_general_config = reading


class Daemon:
    """A connected daemon."""

    def __init__(
        self,
        docker_host: str | None,
        timeout: float,
        environ: Mapping[str, str],
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect.

        Args:
            docker_host: `--docker-host` or `DOCKER_HOST`; None: the docker context in use, else the usual socket.
            timeout: seconds that an answer may take.
            environ: the environment, for the context, TLS and registry credentials.
            warn: takes a line about credentials that can't be read.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        self._environ, self._warn = environ, warn
        configuration = _configuration(environ)
        context = None if docker_host else _usable(lambda: _context(_context_name(configuration, environ)))
        self.url = docker_host or (context.Host if context else "unix:///var/run/docker.sock")
        """Its address."""
        tls = (context.TLSConfig or False) if context else _tls(environ)
        how: dict[str, Any] = {"version": "auto", "timeout": timeout, "tls": tls}
        how |= {"base_url": self.url, "use_ssh_client": self.url.startswith("ssh://")}
        try:
            self._client = _usable(lambda: _client(configuration, **how))
        except Unreachable as problem:
            raise Unreachable(f"{without_secrets(self.url)}: {problem}", problem.tip) from None

    def image_id(self, reference: str) -> str | None:
        """Return the hex ID of the image that the daemon has under a reference, or None if it has none.

        Raises:
            Unreachable: it doesn't answer usably.

        """

        def ask() -> str | None:
            try:
                found = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except APIError as problem:
                if problem.status_code in (400, 404):  # 400: not a reference, so nothing is under it
                    return None
                if problem.status_code == 500 and is_hex_id(reference.removeprefix("sha256:")):  # Podman 6: no such ID
                    return None
                raise
            return str(found["Id"])

        answer = _usable(ask)
        if answer is None:
            return None
        bare = answer.removeprefix("sha256:")
        if not is_hex_id(bare):
            raise Unreachable(f"the daemon answered an ID that isn't one: {bare[:80]!r}", _TIP)
        return bare

    def pull(self, name: str, tell: Callable[[str, int, int], None], platform: str | None = None) -> None:
        """Pull an image by name.

        Args:
            name: the image's name, as it stands.
            tell: is told a layer's ID, how many bytes of it are there, and how many it has.
            platform: such as `linux/arm64`; None: the daemon's own.

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
                platform=platform,
                auth_config=self._credentials(repository),
            ):
                if "error" in step:
                    raise PullFailed(str(step["error"]))
                progress = step.get("progressDetail") or {}
                tell(str(step.get("id", "")), progress.get("current") or 0, progress.get("total") or 0)
        except PullFailed:
            raise
        except Exception as problem:  # whatever the library or the daemon makes of it, a build goes on
            raise PullFailed(_one_line(problem)) from None

    def _credentials(self, repository: str) -> dict[str, str]:
        return credentials_for(repository, self._environ, self._warn) or {}  # without, the library would look itself

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

    def about(self, name: str) -> dict[str, Any] | None:
        """Return what the daemon says of an image, or None if it has none under that name.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        return None if self.image_id(name) is None else self._inspect(name)

    def save(self, name: str) -> Iterator[bytes]:
        """Yield an image's archive, in parts, as `docker save` writes it.

        Args:
            name: the image's name.

        Raises:
            MissingFile: it doesn't have all of the image: a containerd store has an index with another platform's part.
            Unreachable: the daemon doesn't do it.

        """
        try:
            yield from self._client.get_image(name)
        except Exception as problem:
            if isinstance(problem, APIError) and problem.status_code == 404:
                raise MissingFile(
                    f"the daemon doesn't have {name} for its own platform: {_one_line(problem)}", f"docker pull {name}"
                ) from None
            raise _unreachable(problem) from None

    def load(self, path: pathlib.Path, tell: Callable[[int], None]) -> None:
        """Load an image's archive, as `docker load` does.

        Args:
            path: the archive.
            tell: is told the number of bytes, again and again.

        Raises:
            Unreachable: the daemon doesn't do it.

        """

        def parts() -> Iterator[bytes]:
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    yield part
                    tell(file.tell())

        def send() -> None:
            for step in self._client.load_image(parts(), quiet=True):  # type: ignore[no-untyped-call]
                if "error" in step:
                    raise Unreachable(f"the daemon can't load the image: {plain(step['error'])}", "check --tag")

        _usable(send)

    def push(self, name: str, tell: Callable[[str, int, int], None] = lambda *_: None) -> None:
        """Push an image to its registry.

        Args:
            name: the image's name.
            tell: as for a pull.

        Raises:
            PullFailed: it couldn't be pushed.

        """
        repository, tag = _split(name)
        try:
            credentials = self._credentials(repository)
            for step in self._client.push(repository, tag, stream=True, decode=True, auth_config=credentials):
                if "error" in step:
                    raise PullFailed(f"pushing {name}: {plain(step['error'])}")
                progress = step.get("progressDetail") or {}
                tell(str(step.get("id", "")), progress.get("current") or 0, progress.get("total") or 0)
        except PullFailed:
            raise
        except Exception as problem:
            raise PullFailed(_one_line(problem)) from None


def _tls(environ: Mapping[str, str]) -> Any:
    """Return what the docker CLI's variables say of TLS, for the library: `DOCKER_CERT_PATH` alone says nothing."""
    if not environment(environ, "DOCKER_TLS_VERIFY"):
        return False
    try:
        return kwargs_from_env(environ).get("tls", False)
    except TLSParameterError:
        directory = environment(environ, "DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
        raise Unreachable(
            f"DOCKER_TLS_VERIFY is set, and {directory} lacks ca.pem, cert.pem or key.pem",
            "set DOCKER_CERT_PATH to where they are, or unset DOCKER_TLS_VERIFY",
        ) from None


def _context(name: str) -> Any:
    context = ContextAPI.get_context(name) if name else None
    if name and context is None:
        raise Unreachable(f"the docker context {name} was not found", "docker context ls shows which there are")
    return context


def _usable(ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except ShimError:
        raise
    except Exception as problem:  # the library passes on what requests, urllib3, json and ssl raise
        raise _unreachable(problem) from None


def _unreachable(problem: Exception) -> Unreachable:
    return Unreachable(f"the daemon can't be asked: {_one_line(problem)}", _TIP)


def _split(name: str) -> tuple[str, str]:
    """Return a name's repository, and its tag or digest."""
    repository, tag = parse_repository_tag(name)
    return repository, tag or "latest"


def _one_line(problem: Exception) -> str:
    explanation = getattr(problem, "explanation", None)  # docker.errors.APIError: what the daemon said
    if isinstance(explanation, str) and explanation:
        return plain(explanation)
    cause = _system_error(problem) or problem
    return plain(getattr(cause, "strerror", None) or cause)


def _system_error(problem: BaseException) -> OSError | None:
    """Return the system's own error, such as "Permission denied", that the library and those below it wrapped."""
    if isinstance(problem, OSError) and (problem.strerror or isinstance(problem, ConnectionError)):
        return problem
    below = (problem.__cause__, problem.__context__, *problem.args)
    return next(filter(None, (_system_error(one) for one in below if isinstance(one, BaseException))), None)
