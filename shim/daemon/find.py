"""Where the daemon is that the phase itself would ask, and whether it can be asked.

The lifecycle (`priv/docker.go`) uses Moby's `client.FromEnv`: `DOCKER_HOST`, else the usual socket. It reads no docker
context and no configuration, and knows no other socket. What its client refuses can't be asked here either.
"""

from __future__ import annotations

import os
import stat

from shim.record import Record
from shim.words import plain, without_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    State = Literal["absent", "denied", "silent", "unasked"]

DEFAULT = "unix:///var/run/docker.sock"
_LONGEST = 107
"""Bytes that the path of a Unix socket may have: 108 with the NUL that ends it, see unix(7)."""


class Address(Record):
    """Where the daemon is, as far as can be said without asking it."""

    url: str
    """Its address, fit for a line and a report: nothing secret is in it."""
    state: State
    """`absent`, `denied`, `silent` (it can't be asked), or `unasked`: it can."""
    detail: str
    """The reason, in words."""
    socket: str = ""
    """The path of its Unix socket, an abstract one's with `@`; empty for TCP."""
    host: str = ""
    """For TCP: host and port, as Go's `url.URL.Host` has them."""
    path: str = ""
    """What comes before each of the API's paths."""


class BadURL(Exception):
    """An address that Go's `net/url` doesn't parse; the reason is in its words."""


def find(docker_host: str | None, environ: Mapping[str, str]) -> Address:
    """Find the daemon that a phase would ask, without asking it.

    Args:
        docker_host: `--docker-host`, or nothing: then `DOCKER_HOST` counts.
        environ: the environment of the phase.

    """
    variable = environ.get("DOCKER_HOST", "")
    given = docker_host or variable or DEFAULT
    name = "DOCKER_HOST" if given == variable else "--docker-host"
    shown = plain(without_secrets(given))
    try:
        return _address(given, shown)
    except BadURL as problem:
        detail = (
            f"{name} is {shown}, which the lifecycle does not accept: {problem} (use unix:///PATH or tcp://HOST:PORT)"
        )
        return Address(url=shown, state="silent", detail=detail)


def _address(given: str, shown: str) -> Address:
    """Take an address apart as the lifecycle, and then `client.ParseHostURL`, do."""
    scheme, _, _, named = parse(given)
    proto, separator, rest = given.partition("://")
    if not separator or not rest:
        raise BadURL("no scheme, or nothing after it")
    if scheme == "unix" and _is_root_s(named):  # such a socket the lifecycle opens itself, before it drops its rights
        return _look(named, shown)
    if proto == "unix":
        return _look(rest, shown)
    if proto == "npipe":
        raise BadURL("named pipes are not supported on Linux")
    if proto != "tcp":  # ParseHostURL takes anything else for the host, and the transport for TCP
        return Address(url=shown, state="unasked", detail="", host=rest)
    _, _, host, path = parse(f"tcp://{rest}")
    return Address(url=shown, state="unasked", detail="", host=host, path=path)


def _is_root_s(path: str) -> bool:
    try:
        return os.stat(path).st_uid == 0
    except (OSError, ValueError):
        return False


def _look(path: str, shown: str) -> Address:
    """Look at a Unix socket; it isn't opened, which is left to who asks."""

    def seen(state: State, detail: str) -> Address:
        return Address(url=shown, state=state, detail=detail, socket=path)

    name = plain(path)
    length = len(os.fsencode(path))
    if length > _LONGEST + path.startswith("@"):
        return seen("silent", f"the path of the socket is too long ({length} bytes, {_LONGEST} at most): {name}")
    if path.startswith("@"):
        return seen("unasked", "")
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISSOCK(mode):
            return seen("silent", f"{name} is not a socket")
        if not os.access(path, os.W_OK, effective_ids=True):
            return seen("denied", f"permission denied on {name}")
    except PermissionError:
        return seen("denied", f"permission denied on {name}")
    except (OSError, ValueError):
        return seen("absent", f"{name} not found")
    return seen("unasked", "")


# Go's net/url, as far as an address needs it: what it refuses, the phase refuses.

_HEX = frozenset("0123456789abcdefABCDEF")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_UNRESERVED = _LETTERS | _DIGITS | frozenset("-_.~")
_IN_HOST = _UNRESERVED | frozenset("!$&'()*+,;=:[]<>\"")
_IN_USERINFO = _UNRESERVED | frozenset("!$&'()*+,;=:%@")


def parse(url: str) -> tuple[str, str, str, str]:
    """Take a URL apart as Go's `url.Parse` does.

    Returns:
        The scheme in lower case, what stands before `@` as it is written, the host with its port, and the path.

    Raises:
        BadURL: Go doesn't parse it.

    """
    if any(letter < " " or letter == "\x7f" for letter in url):
        raise BadURL("invalid control character in URL")
    rest, _, fragment = url.partition("#")
    _unescape(fragment, "fragment")
    scheme, rest = _scheme(rest)
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        if scheme:
            return scheme, "", "", ""  # opaque
        if ":" in rest.partition("/")[0]:
            raise BadURL("first path segment in URL cannot contain colon")
    userinfo, host = "", ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, slash, path = rest[2:].partition("/")
        userinfo, _, host = authority.rpartition("@")
        if not _IN_USERINFO.issuperset(userinfo):
            raise BadURL("invalid userinfo")
        _unescape(userinfo, "userinfo")
        host, rest = _host(host), slash + path
    return scheme, userinfo, host, _unescape(rest, "path")


def _scheme(url: str) -> tuple[str, str]:
    for index, letter in enumerate(url):
        if letter in _LETTERS:
            continue
        if letter == ":":
            if index == 0:
                raise BadURL("missing scheme")
            return url[:index].lower(), url[index + 1 :]
        if index == 0 or not (letter in _DIGITS or letter in "+-."):
            break
    return "", url


def _host(host: str) -> str:
    if host.startswith("["):
        inside, bracket, port = host.rpartition("]")
        if not bracket:
            raise BadURL("missing ']' in host")
        zone = inside.find("%25")
        checked = inside if zone < 0 else inside[:zone]
    else:
        checked, colon, digits = host.rpartition(":")
        checked, port = (checked, colon + digits) if colon else (host, "")
    if port and not (port[0] == ":" and _DIGITS.issuperset(port[1:])):
        raise BadURL(f'invalid port "{plain(port)}" after host')
    for letter in checked:
        if letter < "\x80" and letter != "%" and letter not in _IN_HOST:
            raise BadURL(f"invalid character {letter!r} in host name")
    return _unescape(host, "host")


def _unescape(text: str, where: str) -> str:
    """Resolve `%XX`, which in a host may stand for a byte that isn't ASCII only, or for the `%` of a zone."""
    if "%" not in text:
        return text
    head, *parts = text.split("%")
    out = os.fsencode(head)
    for part in parts:
        if len(part) < 2 or not _HEX.issuperset(part[:2]):
            raise BadURL(f"invalid URL escape in the {where}")
        byte = int(part[:2], 16)
        if where == "host" and byte < 0x80 and byte != 0x25:
            raise BadURL(f"invalid URL escape in the {where}")
        out += bytes([byte]) + os.fsencode(part[2:])
    return os.fsdecode(out)
