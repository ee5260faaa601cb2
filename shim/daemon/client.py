"""Asking the daemon: the few questions of a build, over one connection, with answers of bounded size.

The standard library's HTTP client is all it takes. docker-py would read the user's Docker configuration, certificate
bundles and proxies that the phase doesn't look at, and each of these has kept it from asking at all.
"""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from shim.daemon.connection import Connection, Route, unreachable
from shim.errors import PullFailed, Unreachable
from shim.record import Record, is_hex_id
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from shim.daemon.find import Address

    Tell = Callable[[str, int, int], None]
    Warn = Callable[[str], None]

_MOST = 16 << 20
"""Bytes that an answer may have; what a daemon says of an image has some thousands."""
_STEP = 1 << 16
_NOT_IT = "is it a Docker daemon?"


class Image(Record):
    """What the daemon has under a reference."""

    id: str | None
    """Its ID, 64 hex digits; None: it has no such image."""
    detail: str
    """Why there is none, in words."""


class About(Record):
    """What the daemon says about itself."""

    address: str
    name: str
    version: str
    store: str
    """`containerd` or the storage driver: whether an image's ID is its index digest."""


class Answer(Record):
    """An answer, read whole."""

    status: int
    body: bytes
    is_json: bool
    about: str
    """The request, for a line."""


class Daemon:
    """The phase's own daemon."""

    def __init__(self, address: Address, timeout: float, environ: Mapping[str, str]) -> None:
        """Connect, and agree on the version of the API.

        Args:
            address: where it is.
            timeout: seconds that an answer may take.
            environ: the environment of the phase.

        Raises:
            Unreachable: it doesn't answer, or the phase's client refuses how it is to be reached.

        """
        self._timeout = timeout
        self._environ = environ
        self._route = Route(address, environ)
        self._kept: Connection | None = None
        self._version = ""
        wanted = _wanted_version(environ)
        self._version = wanted or self._served_version()

    @property
    def where(self) -> str:
        """The daemon's address, for a line."""
        return f"the daemon at {self._route.shown}"

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._kept:
            self._kept.close()
        self._kept = None

    # Questions.

    def image(self, reference: str) -> Image:
        """Ask what the daemon has under a reference.

        Args:
            reference: a name as it stands, a digest reference or an ID: the daemon normalizes it.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        name = plain(reference)
        if not _is_reference(reference):
            return Image(id=None, detail=f"{name!r} is not an image reference")
        answer = self._ask(f"/images/{quote(reference, safe='/:@')}/json")
        if _is_missing(answer, reference):
            return Image(id=None, detail=_lacks(name, answer))
        found = self._object(answer)
        if found.get("Os", "linux") == "" and not (_object_in(found, "RootFS")).get("Layers"):
            # The containerd store: the name is there, and nothing of it for the daemon's platform.
            return Image(id=None, detail=f"the daemon has {name} for another platform only")
        image_id = found.get("Id")
        digits = image_id.removeprefix("sha256:") if isinstance(image_id, str) else ""
        if not is_hex_id(digits):
            shown = plain(json.dumps(image_id), 80)
            raise Unreachable(f"{self.where} answered {answer.about} with an ID that is none: {shown}", _NOT_IT)
        return Image(id=digits, detail="")

    def image_id(self, reference: str) -> str | None:
        """Return the hex ID of the image that the daemon has under a reference, or None if it has none.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        return self.image(reference).id

    def about(self) -> About:
        """Ask the daemon what it is.

        Raises:
            Unreachable: it doesn't answer usably.

        """
        version, info = self._object(self._ask("/version")), self._object(self._ask("/info"))
        try:
            names = [str(part.get("Name", "")) for part in version.get("Components") or ()]
            status = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
        except (TypeError, AttributeError, ValueError) as problem:
            raise Unreachable(f"{self.where} described itself in an unknown form: {plain(problem)}", _NOT_IT) from None
        name = next((name for name in names if "Podman" in name), "Docker")
        store = "containerd" if "containerd" in str(status.get("driver-type", "")) else info.get("Driver", "")
        return About(
            address=self._route.shown,
            name=plain(name.removesuffix(" Engine")),
            version=plain(version.get("Version", "")),
            store=plain(store),
        )

    def platforms_of(self, name: str) -> list[str]:
        """Return the platforms that the daemon has an image for, such as `linux/arm64`.

        Raises:
            Unreachable: it doesn't answer usably, or has no image of that name.

        """
        found = self._inspect(name, "?manifests=1")
        platforms = [_platform(found)] if found.get("Os") else []
        for manifest in found.get("Manifests") or ():
            if isinstance(manifest, dict) and manifest.get("Kind") == "image" and manifest.get("Available"):
                platforms.append(_platform(_object_in(_object_in(manifest, "ImageData"), "Platform")))
        return list(dict.fromkeys(platforms))

    def digests_of(self, name: str) -> list[str]:
        """Return the digest references, `repo@sha256:…`, under which the daemon knows an image.

        Raises:
            Unreachable: it doesn't answer usably, or has no image of that name.

        """
        return [str(digest) for digest in self._inspect(name).get("RepoDigests") or ()]

    def registry_digest(self, name: str, warn: Warn = lambda _: None) -> str:
        """Have the daemon ask the registry for a name, and return `sha256:…` of what is there.

        Args:
            name: the image's name.
            warn: takes a line about credentials that can't be read.

        Raises:
            Unreachable: the registry doesn't have it, or one of them doesn't answer usably.

        """
        headers = self._authorization(name, warn)
        answer = self._ask(f"/distribution/{quote(name, safe='/:@')}/json", headers)
        return plain(_object_in(self._object(answer), "Descriptor").get("digest", ""))

    # Pulling.

    def pull(self, name: str, platform: str, tell: Tell, warn: Warn) -> Image:
        """Pull an image, and return what the daemon then has under its name.

        Args:
            name: the image's name; without a tag or digest it is pulled as `latest`.
            platform: the phase's, such as `linux/amd64`.
            tell: takes a layer's ID, how many bytes of it are there, and how many it has.
            warn: takes a line about credentials that can't be read.

        Raises:
            PullFailed: it couldn't be pulled, or isn't there afterwards.

        """
        repository, tag = split(name)
        query = urlencode({"fromImage": repository, "tag": tag, "platform": platform})
        connection = Connection(self._route, self._timeout)
        said = ""
        try:
            connection.connect()
            if connection.sock:
                connection.sock.settimeout(None)  # a pull takes its time
            headers = self._authorization(name, warn)
            response = self._send(connection, "POST", f"{self._prefix}/images/create?{query}", headers)
            if response.status != 200:
                answer = self._read(response, "POST /images/create")
                raise PullFailed(f"{self.where} answered with status {answer.status}: {self._reason(answer)}")
            for step in _steps(response):
                problem = step.get("error") or _object_in(step, "errorDetail").get("message")
                if problem:
                    raise PullFailed(plain(problem))
                said = plain(step.get("status") or said)
                progress = _object_in(step, "progressDetail")
                tell(plain(step.get("id", "")), _count(progress.get("current")), _count(progress.get("total")))
            found = self.image(name)
        except PullFailed:
            raise
        except (OSError, http.client.HTTPException, ValueError, RecursionError, Unreachable) as problem:
            raise PullFailed(str(unreachable(problem, self._route, self._timeout))) from None
        finally:
            connection.close()
        if found.id is None:
            raise PullFailed(f"the daemon finished the pull, but {found.detail} (it said: {said or 'nothing'})")
        return found

    def _authorization(self, name: str, warn: Warn) -> dict[str, str]:
        import base64

        from shim.daemon.credentials import credentials_for

        found = credentials_for(split(name)[0], self._environ, warn)
        return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(found).encode()).decode()} if found else {}

    # HTTP.

    @property
    def _prefix(self) -> str:
        return self._route.base + (f"/v{self._version}" if self._version else "")

    def _served_version(self) -> str:
        """Ask which version the daemon serves; one that doesn't say, or refuses to, is asked without a version."""
        _, response = self._request("/_ping", self._route.base)
        served = response.headers.get("Api-Version") or ""
        return served if _is_version(served) else ""

    def _ask(self, path: str, headers: Mapping[str, str] = {}) -> Answer:
        return self._request(path, self._prefix, headers)[0]

    def _request(
        self,
        path: str,
        prefix: str,
        headers: Mapping[str, str] = {},
    ) -> tuple[Answer, http.client.HTTPResponse]:
        about = f"GET {plain(path)}"
        while True:
            kept, self._kept = self._kept, None
            connection = kept or Connection(self._route, self._timeout)
            try:
                response = self._send(connection, "GET", prefix + path, headers)
                answer = self._read(response, about)
            except Exception as problem:
                connection.close()
                if kept is not None and isinstance(problem, ConnectionError):
                    continue  # it was closed meanwhile: one that is new tells
                if isinstance(problem, OSError | http.client.HTTPException | ValueError | Unreachable):
                    raise unreachable(problem, self._route, self._timeout) from None
                raise
            if response.will_close or self._kept is not None:  # a question that was given up may still be answered
                connection.close()
            else:
                self._kept = connection
            return answer, response

    def _send(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        host = self._route.netloc or "localhost"
        own = {"Host": host, "User-Agent": "analyzed-shim", "Accept": "application/json"}
        if self._route.sends_to_proxy:
            target, own = f"http://{host}{target}", {**own, **self._route.authorization()}
        connection.request(method, target, headers={**own, **headers})
        return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, about: str) -> Answer:
        end = time.monotonic() + self._timeout
        parts, length = [], 0
        while part := response.read1(_STEP):
            parts.append(part)
            length += len(part)
            if length > _MOST:
                raise Unreachable(f"{self.where} answered {about} with more than {_MOST >> 20} MB", _NOT_IT)
            if time.monotonic() > end:
                raise TimeoutError
        response.close()  # it was read whole, and the connection is free again
        kind = response.headers.get("Content-Type") or ""
        body = b"".join(parts)
        is_json = "json" in kind or body[:1] in (b"{", b"[")
        return Answer(status=response.status, body=body, is_json=is_json, about=about)

    # What an answer says.

    def _object(self, answer: Answer) -> dict[str, Any]:
        if answer.status != 200:
            raise self._refused(answer)
        value = _json(answer.body)
        if not isinstance(value, dict):
            shown = plain(answer.body[:200].decode(errors="replace") or "nothing", 80)
            raise Unreachable(f"{self.where} answered {answer.about} with no JSON object: {shown}", _NOT_IT)
        return value

    def _inspect(self, name: str, query: str = "") -> dict[str, Any]:
        return self._object(self._ask(f"/images/{quote(name, safe='/:@')}/json{query}"))

    def _reason(self, answer: Answer) -> str:
        """Return the daemon's own reason, else what can be said of its answer."""
        value = _json(answer.body)
        message = value.get("message") if isinstance(value, dict) else None
        if isinstance(message, str) and message:
            return plain(message)
        text = answer.body[:1000].decode(errors="replace").strip()
        return plain(text, 120) if text else "no reason given"

    def _refused(self, answer: Answer) -> Unreachable:
        reason = self._reason(answer)
        if "API version" in reason or "client version" in reason:
            tip = "unset DOCKER_API_VERSION" if _wanted_version(self._environ) else "use a newer shim"
            return Unreachable(f"{self.where} refuses API version {self._version}: {reason}", tip)
        if 300 <= answer.status < 400:
            return Unreachable(
                f"{self.where} redirects {answer.about} ({answer.status})", "use the address it leads to"
            )
        if "HTTP request to an HTTPS server" in reason:
            return Unreachable(f"{self.where} uses TLS: {reason}", "set DOCKER_CERT_PATH")
        return Unreachable(
            f"{self.where} refused {answer.about} ({answer.status}): {reason}", "look at the daemon's log"
        )


def split(name: str) -> tuple[str, str]:
    """Return a name's repository, and its digest, tag or `latest`: without one the daemon would pull every tag."""
    rest, _, digest = name.partition("@")
    head, colon, tag = rest.rpartition(":")
    repository = head if colon and "/" not in tag else rest
    return repository, digest or (tag if repository != rest else "") or "latest"


def _wanted_version(environ: Mapping[str, str]) -> str:
    """Return `DOCKER_API_VERSION`, as the phase's client reads it.

    Raises:
        Unreachable: it isn't a version.

    """
    given = environ.get("DOCKER_API_VERSION", "").strip().removeprefix("v")
    if given and not _is_version(given):
        raise Unreachable(f"DOCKER_API_VERSION={plain(given, 40)} is not MAJOR.MINOR", "unset it")
    return given


def _is_version(text: str) -> bool:
    major, point, minor = text.partition(".")
    return bool(point) and major.isdecimal() and minor.isdecimal() and text.isascii()


def _is_reference(text: str) -> bool:
    """Say whether a text can be asked for: it becomes a part of a path, which must stay one."""
    return (
        0 < len(text) <= 1024
        and text.isascii()
        and text.isprintable()
        and not any(letter in text for letter in " ?#%\\")
        and not any(part in ("", ".", "..") for part in text.split("/"))
    )


def _is_missing(answer: Answer, reference: str) -> bool:
    """Say whether the daemon says that it has no such image."""
    if not answer.is_json:
        return False
    if answer.status == 404:
        return b"page not found" not in answer.body
    if answer.status == 500:  # Podman 6, asked for an ID that it doesn't know
        return is_hex_id(reference.removeprefix("sha256:"))
    return answer.status == 400 and b"version" not in answer.body.lower()  # it isn't a reference


def _lacks(name: str, answer: Answer) -> str:
    value = _json(answer.body)
    reason = plain(value.get("message") or "") if isinstance(value, dict) else ""
    usual = not reason or any(words in reason.lower() for words in ("no such image", "image not known"))
    return f"{name} is not in the daemon" + ("" if usual else f": {reason}")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _object_in(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _platform(value: Mapping[str, Any]) -> str:
    """Return a platform of either spelling: an image's own fields, or an OCI platform's."""
    parts = [str(value.get(key) or value.get(key.lower()) or "") for key in ("Os", "Architecture", "Variant")]
    if parts[1:] in (["arm64", "v8"], ["amd64", "v1"]):  # the usual one has no variant
        parts.pop()
    return plain("/".join(filter(None, parts)))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _steps(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the steps of a pull: JSON objects, each on a line, or several on one."""
    decoder = json.JSONDecoder()
    while line := response.readline(_MOST):
        text = line.decode(errors="replace").strip()
        while text:
            step, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            if isinstance(step, dict):
                yield step
