"""Which proxy leads to a daemon on TCP: as Go's `net/http` chooses it (golang.org/x/net/http/httpproxy)."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from shim.daemon.find import BadURL, parse
from shim.errors import Unreachable
from shim.record import Record
from shim.words import plain, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class Proxy(Record):
    """A proxy to go through."""

    scheme: str
    host: str
    port: int
    userinfo: bytes
    """`user:password`, with nothing escaped."""
    shown: str
    """The variable and its value, without secrets."""


def split_host(netloc: str, port: int) -> tuple[str, int]:
    """Return host and port of `host:port`, `host` or `[ipv6]:port`.

    Raises:
        Unreachable: the port or the host is none.

    """
    host, colon, digits = netloc.rpartition(":")
    if not colon or digits.endswith("]"):
        host, digits = netloc, ""
    shown = plain(without_secrets(netloc))
    if digits and not (digits.isascii() and digits.isdigit() and int(digits) < 65536):
        raise Unreachable(f"invalid port in {shown}", "use tcp://HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    if "@" in host:  # of tcp://USER@HOST the user is left out; of any other scheme Go looks for this host
        raise Unreachable(f"host {shown} not found", "the lifecycle's client supports unix:// and tcp:// only")
    if _ip(host) is None and host[:1].isdigit() and _is_short_form(host):
        raise Unreachable(f"host {shown} not found", "write all four parts of the IP address")
    return host, int(digits or port)


def _is_short_form(host: str) -> bool:
    """Say whether this is an IP address to the C library, such as `127.1`, and a name to Go."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def choose(netloc: str, tls: bool, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy to a daemon, or None where it is asked directly.

    Args:
        netloc: the daemon's host and port.
        tls: whether it is asked by TLS.
        environ: the environment of the phase.

    Raises:
        Unreachable: Go refuses to use it.

    """
    names = ("HTTPS_PROXY", "https_proxy") if tls else ("HTTP_PROXY", "http_proxy")
    name = next((name for name in names if environ.get(name)), "")
    proxy = _read(name, environ[name]) if name else None
    if proxy is None:
        return None
    if not tls and environ.get("REQUEST_METHOD"):
        raise Unreachable(f"{name} is not used where REQUEST_METHOD is set", f"unset {name}")
    host, port = split_host(netloc, 443 if tls else 80)
    no_proxy = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    return None if _is_direct(host, port, no_proxy) else proxy


def _read(name: str, value: str) -> Proxy | None:
    """Take a proxy's URL apart; it may have no scheme; one that can't be used is none, as for Go."""
    for url in (value, f"http://{value}"):
        try:
            scheme, userinfo, netloc, _ = parse(url)
            if scheme and netloc:
                break
        except BadURL:
            continue
    else:
        return None
    host, port = split_host(netloc, _PORTS.get(scheme, 80))
    return Proxy(
        scheme=scheme,
        host=host,
        port=port,
        userinfo=unquote_to_bytes(userinfo),
        shown=f"{name}={without_secrets(value)}",
    )


def _is_direct(host: str, port: int, no_proxy: str) -> bool:
    """Say whether a host is asked without a proxy: loopback always, others by `NO_PROXY`."""
    if host == "localhost":
        return True
    address = _ip(host)
    if address is not None and address.is_loopback:
        return True
    host = host.strip().lower()
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return "*" in entries or any(_matches(entry, host, port, address) for entry in entries if entry)


def _matches(entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    """Say whether an entry of `NO_PROXY` is a host's: CIDR, or an address or domain with or without a port."""
    if entry.rpartition("/")[2].isdigit():
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass
    named, only = _split_port(entry)
    if not named or (only and only != str(port)):
        return False
    ip = _ip(named)
    if ip is not None or address is not None:
        return ip is not None and ip == address
    named = named.removeprefix("*") if named.startswith("*.") else named
    return host.endswith(named) if named.startswith(".") else host == named or host.endswith(f".{named}")


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]:")
        return (host, port) if bracket else ("", "")
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and ":" not in host else (entry, "")


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
